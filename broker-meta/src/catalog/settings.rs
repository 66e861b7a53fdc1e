//! Commands that set what an operator sets: policies, parameters, and what is said of a vhost.

use broker_core::arguments::QueueType;
use broker_core::name::VhostName;
use broker_core::policy::{POLICIES_MAX, Policy, PolicyDraft, PolicyValue};
use broker_core::refusal::Refusal;
use proto::meta::{self, policy_value};

use super::apply::{Outcome, consequence};
use super::{Catalog, CatalogEvent, PARAMETER_MAX_BYTES, PARAMETERS_MAX, ParameterKey};

/// Components of RabbitMQ's that parameters can be set for. Policies and limits have commands of their own.
const COMPONENTS: [&str; 4] = ["federation", "federation-upstream", "federation-upstream-set", "shovel"];

impl Catalog {
    pub(super) fn set_policy(&mut self, command: &meta::SetPolicy) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        let policy = Policy::new(draft(&vhost, command)?).map_err(|bad| Refusal::Command(bad.to_string()))?;
        let policies = self.vhost(&vhost)?.policies();
        if policies.get(policy.name(), policy.operator()).is_some_and(|held| **held == policy) {
            return Ok(Vec::new());
        }
        if !policies.has_room_for(&policy) {
            return Err(Refusal::Command(format!("vhost '{vhost}' has {POLICIES_MAX} policies already; clear some")));
        }
        let mut changes = Vec::new();
        self.topology.put_policy(policy, &mut changes);
        let changed = policy_changed(vhost, &command.name, command.operator);
        Ok(std::iter::once(changed).chain(changes.into_iter().map(consequence)).collect())
    }

    pub(super) fn clear_policy(&mut self, command: &meta::ClearPolicy) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        self.vhost(&vhost)?;
        let mut changes = Vec::new();
        if !self.topology.remove_policy(&vhost, &command.name, command.operator, &mut changes) {
            return Ok(Vec::new());
        }
        let changed = policy_changed(vhost, &command.name, command.operator);
        Ok(std::iter::once(changed).chain(changes.into_iter().map(consequence)).collect())
    }

    pub(super) fn set_parameter(&mut self, command: &meta::SetParameter) -> Outcome {
        let key = key(&command.vhost, &command.component, &command.name);
        self.check_component(&key)?;
        if key.name.is_empty() {
            return Err(Refusal::Command("the parameter has no name".into()));
        }
        if key.component.len() + key.name.len() + command.value.len() > PARAMETER_MAX_BYTES {
            let problem = format!("parameter '{:.100}' is longer than {PARAMETER_MAX_BYTES} octets", key.name);
            return Err(Refusal::Command(problem));
        }
        if self.parameters.get(&key) == Some(&*command.value) {
            return Ok(Vec::new());
        }
        if !self.parameters.has_room_for(&key) {
            return Err(Refusal::Command(format!("there are {PARAMETERS_MAX} parameters already; clear some")));
        }
        self.parameters.set(key.clone(), &command.value);
        Ok(vec![CatalogEvent::ParameterChanged(key)])
    }

    pub(super) fn clear_parameter(&mut self, command: &meta::ClearParameter) -> Vec<CatalogEvent> {
        let key = key(&command.vhost, &command.component, &command.name);
        let cleared = self.parameters.clear(&key);
        cleared.then_some(CatalogEvent::ParameterChanged(key)).into_iter().collect()
    }

    pub(super) fn update_vhost(&mut self, command: &meta::UpdateVhost) -> Outcome {
        let vhost = VhostName::from(command.name.as_str());
        self.vhost(&vhost)?;
        let default_queue_type = command.default_queue_type.as_deref().map(default_queue_type).transpose()?;
        let changed = self.topology.update_vhost(&vhost, |record| {
            if let Some(description) = &command.description {
                record.description.clone_from(description);
            }
            if let Some(tags) = &command.tags {
                record.tags.clone_from(&tags.tags);
            }
            record.tracing = command.tracing.unwrap_or(record.tracing);
            record.default_queue_type = default_queue_type.unwrap_or(record.default_queue_type);
        });
        Ok(changed.then_some(CatalogEvent::VhostChanged(vhost)).into_iter().collect())
    }

    /// A parameter of a vhost is that of a component which is known, in a vhost which exists; a global one is nobody's.
    fn check_component(&self, key: &ParameterKey) -> Result<(), Refusal> {
        let known = match &key.vhost {
            Some(vhost) => {
                self.vhost(vhost)?;
                COMPONENTS.contains(&key.component.as_str())
            }
            None => key.component.is_empty(),
        };
        if known {
            return Ok(());
        }
        Err(Refusal::Command(format!("Validation failed\n\ncomponent {:.100} not found\n", key.component)))
    }
}

/// The type of queues that are declared without one; empty: none is filled in.
pub(super) fn default_queue_type(name: &str) -> Result<Option<QueueType>, Refusal> {
    match QueueType::parse(name) {
        None if !name.is_empty() => {
            Err(Refusal::Command(format!("default queue type '{name:.100}' is not supported; it is classic or quorum")))
        }
        queue_type => Ok(queue_type),
    }
}

fn policy_changed(vhost: VhostName, name: &str, operator: bool) -> CatalogEvent {
    CatalogEvent::PolicyChanged { vhost, name: name.into(), operator }
}

fn key(vhost: &str, component: &str, name: &str) -> ParameterKey {
    ParameterKey { vhost: (!vhost.is_empty()).then(|| vhost.into()), component: component.into(), name: name.into() }
}

fn draft(vhost: &VhostName, command: &meta::SetPolicy) -> Result<PolicyDraft, Refusal> {
    let item = |item: &meta::PolicyItem| Some((item.key.clone(), value(item.value.as_ref()?.kind.as_ref()?)));
    let definition: Option<Vec<(String, PolicyValue)>> = command.definition.iter().map(item).collect();
    Ok(PolicyDraft {
        vhost: vhost.clone(),
        name: command.name.clone(),
        operator: command.operator,
        pattern: command.pattern.clone(),
        apply_to: command.apply_to.clone(),
        priority: command.priority,
        definition: definition.ok_or_else(|| Refusal::Command("a key of the policy has no value".into()))?,
    })
}

fn value(kind: &policy_value::Kind) -> PolicyValue {
    match kind {
        policy_value::Kind::Number(number) => PolicyValue::Number(*number),
        policy_value::Kind::Text(text) => PolicyValue::Text(text.clone()),
        policy_value::Kind::Flag(flag) => PolicyValue::Flag(*flag),
        policy_value::Kind::List(list) => PolicyValue::List(list.items.clone()),
    }
}
