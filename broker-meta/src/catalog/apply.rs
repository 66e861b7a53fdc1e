//! One command after the other.

use std::sync::Arc;

use broker_core::access::{PasswordHash, Permissions, User};
use broker_core::arguments::QueueType;
use broker_core::exchange::ExchangeKind;
use broker_core::field_table::{Arguments, FieldTable, TableBuilder, Value};
use broker_core::name::{NodeId, QueueId, UserName, VhostName};
use broker_core::refusal::Refusal;
use broker_core::topology::{
    BindingCheck, Change, Declare, Delete, Destination, ExchangeDeclaration, ExchangeRecord, QueueDeclaration,
    QueueRecord, Vhost, VhostRecord,
};
use proto::meta::command::Kind;
use proto::meta::{self, Command, DestinationKind};

use super::settings::default_queue_type;
use super::{Catalog, CatalogEvent};

mod access;

/// What a command did, or why not.
pub(super) type Outcome = Result<Vec<CatalogEvent>, Refusal>;

impl Catalog {
    /// Applies a command. Indexes must grow; a command at or below the last index is one that was applied already and does nothing. A queue that
    /// it creates has the index as its identity.
    pub fn apply(&mut self, index: u64, command: &Command) -> Vec<CatalogEvent> {
        if index <= self.index {
            return vec![CatalogEvent::Unchanged];
        }
        self.index = index;
        let outcome = match &command.kind {
            Some(Kind::CreateVhost(command)) => self.create_vhost(command),
            Some(Kind::DeleteVhost(command)) => Ok(self.delete_vhost(command)),
            Some(Kind::PutUser(command)) => self.put_user(command),
            Some(Kind::DeleteUser(command)) => Ok(self.delete_user(command)),
            Some(Kind::SetPermissions(command)) => self.set_permissions(command),
            Some(Kind::ClearPermissions(command)) => Ok(self.clear_permissions(command)),
            Some(Kind::SetTopicPermissions(command)) => self.set_topic_permissions(command),
            Some(Kind::ClearTopicPermissions(command)) => Ok(self.clear_topic_permissions(command)),
            Some(Kind::SetLimits(command)) => self.set_limits(command),
            Some(Kind::DeclareExchange(command)) => self.declare_exchange(index, command),
            Some(Kind::DeleteExchange(command)) => self.delete_exchange(command),
            Some(Kind::DeclareQueue(command)) => self.declare_queue(index, command),
            Some(Kind::DeleteQueue(command)) => Ok(self.delete_queue(command)),
            Some(Kind::DeleteQueues(command)) => Ok(self.delete_queues(command)),
            Some(Kind::Bind(command)) => self.bind(command),
            Some(Kind::Unbind(command)) => self.unbind(command),
            Some(Kind::SetClusterName(command)) => Ok(self.set_cluster_name(command)),
            Some(Kind::EndTransient(command)) => Ok(self.end_transient(command)),
            Some(Kind::SetPolicy(command)) => self.set_policy(command),
            Some(Kind::ClearPolicy(command)) => self.clear_policy(command),
            Some(Kind::SetParameter(command)) => self.set_parameter(command),
            Some(Kind::ClearParameter(command)) => Ok(self.clear_parameter(command)),
            Some(Kind::UpdateVhost(command)) => self.update_vhost(command),
            Some(Kind::AddMember(command)) => self.add_member(command),
            Some(Kind::RemoveMember(command)) => Ok(self.remove_member(command)),
            Some(Kind::Import(command)) => self.import(command),
            None => Err(Refusal::Command("a command of a kind this version does not know".into())),
        };
        match outcome {
            Ok(events) if events.is_empty() => vec![CatalogEvent::Unchanged],
            Ok(events) => events,
            Err(refusal) => vec![CatalogEvent::Refused(refusal)],
        }
    }

    fn create_vhost(&mut self, command: &meta::CreateVhost) -> Outcome {
        let default_queue_type = default_queue_type(&command.default_queue_type)?;
        let vhost = VhostName::from(command.name.as_str());
        let limit = command.vhosts_max;
        if limit > 0 && self.topology.vhost(&vhost).is_none() && self.topology.vhosts().count() as u64 >= limit {
            return Err(Refusal::VhostLimit { vhost, limit });
        }
        let created = self.topology.add_vhost(VhostRecord {
            name: vhost.clone(),
            description: command.description.clone(),
            tags: command.tags.clone(),
            tracing: false,
            default_queue_type,
        });
        Ok(vec![CatalogEvent::VhostCreated { vhost, existed: !created }])
    }

    fn delete_vhost(&mut self, command: &meta::DeleteVhost) -> Vec<CatalogEvent> {
        let vhost = VhostName::from(command.name.as_str());
        let Some(queues) = self.topology.remove_vhost(&vhost) else { return Vec::new() };
        self.access.remove_vhost(&vhost);
        self.parameters.remove_vhost(&vhost);
        vec![CatalogEvent::VhostDeleted { vhost, queues }]
    }

    pub(super) fn put_user(&mut self, command: &meta::PutUser) -> Outcome {
        let password = if command.password_hash.is_empty() {
            None
        } else {
            let hash = PasswordHash::parse(&command.hashing_algorithm, &command.password_hash);
            Some(hash.map_err(|unknown| Refusal::Command(unknown.to_string()))?)
        };
        let name = UserName::from(command.name.as_str());
        self.access.put_user(User { name: name.clone(), password, tags: command.tags.clone() });
        Ok(vec![CatalogEvent::UserChanged(name)])
    }

    fn delete_user(&mut self, command: &meta::DeleteUser) -> Vec<CatalogEvent> {
        let removed = self.access.remove_user(&command.name);
        removed.then(|| CatalogEvent::UserDeleted(command.name.as_str().into())).into_iter().collect()
    }

    pub(super) fn set_permissions(&mut self, command: &meta::SetPermissions) -> Outcome {
        let (user, vhost) = (UserName::from(command.user.as_str()), VhostName::from(command.vhost.as_str()));
        self.topology.vhost_or_refuse(&vhost)?;
        let permissions = Permissions::new(&command.configure, &command.write, &command.read)
            .map_err(|bad| Refusal::Command(bad.to_string()))?;
        if !self.access.set_permissions(&user, &vhost, permissions) {
            return Err(Refusal::Command(format!("user '{user}' does not exist")));
        }
        Ok(vec![CatalogEvent::PermissionsChanged(user, vhost)])
    }

    fn clear_permissions(&mut self, command: &meta::ClearPermissions) -> Vec<CatalogEvent> {
        let (user, vhost) = (UserName::from(command.user.as_str()), VhostName::from(command.vhost.as_str()));
        let cleared = self.access.clear_permissions(&user, &vhost);
        cleared.then_some(CatalogEvent::PermissionsChanged(user, vhost)).into_iter().collect()
    }

    /// `id` is its identity in the store, should it have something to keep there and be new.
    pub(super) fn declare_exchange(&mut self, id: u64, command: &meta::DeclareExchange) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        let declaration = ExchangeDeclaration {
            name: &command.name,
            kind: ExchangeKind::parse(&command.r#type)?,
            durable: command.durable,
            auto_delete: command.auto_delete,
            internal: command.internal,
            arguments: table(&command.arguments)?,
        };
        if let Declare::Existing(record) = self.vhost(&vhost)?.check_exchange_declare(&declaration)? {
            return Ok(vec![CatalogEvent::ExchangeDeclared { record, existed: true }]);
        }
        let record = ExchangeRecord {
            vhost: vhost.clone(),
            name: command.name.as_str().into(),
            kind: declaration.kind,
            durable: command.durable,
            auto_delete: command.auto_delete,
            internal: command.internal,
            arguments: Arguments::new(declaration.arguments),
            policies: self.vhost(&vhost)?.policies().of_exchange(&command.name),
            holder: (declaration.kind == ExchangeKind::Delayed).then_some(QueueId(id)),
        };
        self.topology.add_exchange(record);
        let record = self.vhost(&vhost)?.exchange_or_refuse(&command.name)?.clone();
        Ok(vec![CatalogEvent::ExchangeDeclared { record, existed: false }])
    }

    fn delete_exchange(&mut self, command: &meta::DeleteExchange) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        if let Delete::Missing = self.vhost(&vhost)?.check_exchange_delete(&command.name, command.if_unused)? {
            return Ok(Vec::new());
        }
        let mut changes = Vec::new();
        self.topology.remove_exchange(&vhost, &command.name, &mut changes);
        Ok(changes.into_iter().map(consequence).collect())
    }

    /// Declares a queue if the vhost may have one more.
    fn declare_queue(&mut self, id: u64, command: &meta::DeclareQueue) -> Outcome {
        let vhost = self.vhost(&command.vhost.as_str().into())?;
        if vhost.queue(&command.name).is_none() {
            self.access.may_add_queue(vhost, &command.name, 0)?;
        }
        self.put_queue(id, command)
    }

    pub(super) fn put_queue(&mut self, id: u64, command: &meta::DeclareQueue) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        let declaration = QueueDeclaration {
            name: &command.name,
            // Reserved names were refused before anyone proposed this; what is left are names the broker chose.
            server_named: true,
            durable: command.durable,
            exclusive: command.exclusive_owner.is_some(),
            auto_delete: command.auto_delete,
            arguments: table(&command.arguments)?,
            connection: command.exclusive_owner.unwrap_or_default(),
        };
        if let Declare::Existing(record) = self.vhost(&vhost)?.check_queue_declare(&declaration)? {
            return Ok(vec![CatalogEvent::QueueDeclared { record, existed: true }]);
        }
        let state = self.vhost(&vhost)?;
        let arguments = match state.type_to_fill_in(&declaration) {
            Some(queue_type) => with_queue_type(declaration.arguments, queue_type),
            None => Arguments::new(declaration.arguments),
        };
        let policies = state.policies().of_queue(&command.name, QueueType::of(arguments.table()).unwrap_or_default());
        let record = Arc::new(QueueRecord {
            id: QueueId(id),
            // Shared by all its queues.
            vhost: state.name().clone(),
            name: command.name.as_str().into(),
            durable: command.durable && command.exclusive_owner.is_none(),
            auto_delete: command.auto_delete,
            exclusive_owner: command.exclusive_owner,
            arguments,
            policies,
            node: NodeId(command.node),
        });
        if !self.topology.add_queue(record.clone()) {
            return Err(Refusal::Command(format!("a queue with identity {id} exists")));
        }
        Ok(vec![CatalogEvent::QueueDeclared { record, existed: false }])
    }

    fn delete_queue(&mut self, command: &meta::DeleteQueue) -> Vec<CatalogEvent> {
        let found = self.topology.queue(&command.vhost, &command.name).map(|queue| queue.id);
        let wanted = found.filter(|id| command.id == 0 || command.id == id.0);
        self.delete_queues(&meta::DeleteQueues { ids: wanted.iter().map(|id| id.0).collect() })
    }

    fn delete_queues(&mut self, command: &meta::DeleteQueues) -> Vec<CatalogEvent> {
        let mut changes = Vec::new();
        for &id in &command.ids {
            self.topology.remove_queue(QueueId(id), &mut changes);
        }
        changes.into_iter().map(consequence).collect()
    }

    pub(super) fn bind(&mut self, command: &meta::Bind) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        let destination = destination(command.destination_kind, &command.destination);
        let arguments = table(&command.arguments)?;
        let state = self.vhost(&vhost)?;
        let owner = owner(state, &destination);
        let check = state.check_bind(&command.source, &destination, &command.routing_key, arguments, owner)?;
        let durable = is_durable(state, &command.source, &destination);
        let (binding, existed) = match check {
            BindingCheck::Existing(binding) => (binding, true),
            BindingCheck::Missing(binding) => (binding, false),
            BindingCheck::Nothing => return Ok(Vec::new()),
        };
        if !existed {
            self.topology.add_binding(&vhost, binding.clone());
        }
        Ok(vec![CatalogEvent::Bound { vhost, binding: Arc::new(binding), existed, durable }])
    }

    pub(super) fn unbind(&mut self, command: &meta::Unbind) -> Outcome {
        let vhost = VhostName::from(command.vhost.as_str());
        let destination = destination(command.destination_kind, &command.destination);
        let arguments = table(&command.arguments)?;
        let state = self.vhost(&vhost)?;
        let owner = owner(state, &destination);
        let check = state.check_unbind(&command.source, &destination, &command.routing_key, arguments, owner)?;
        let BindingCheck::Existing(binding) = check else { return Ok(Vec::new()) };
        let was_durable = is_durable(state, &command.source, &destination);
        let mut changes = Vec::new();
        self.topology.remove_binding(&vhost, &binding, &mut changes);
        let mut events: Vec<CatalogEvent> = changes.into_iter().map(consequence).collect();
        if let Some(CatalogEvent::Unbound { durable, .. }) = events.first_mut() {
            *durable = was_durable;
        }
        Ok(events)
    }

    pub(super) fn set_cluster_name(&mut self, command: &meta::SetClusterName) -> Vec<CatalogEvent> {
        self.cluster_name.clone_from(&command.name);
        vec![CatalogEvent::ClusterNamed(command.name.clone())]
    }

    pub(super) fn vhost(&self, vhost: &VhostName) -> Result<&Vhost, Refusal> {
        self.topology.vhost_or_refuse(vhost)
    }
}

pub(super) fn consequence(change: Change) -> CatalogEvent {
    match change {
        Change::QueueDeleted(record) => CatalogEvent::QueueDeleted(record),
        Change::QueueGoverned(record) => CatalogEvent::QueueSettingsChanged(record),
        Change::ExchangeDeleted(record) => CatalogEvent::ExchangeDeleted(record),
        Change::BindingDeleted(vhost, binding) => {
            CatalogEvent::Unbound { vhost: vhost.name.clone(), binding, durable: false }
        }
    }
}

fn table(octets: &[u8]) -> Result<FieldTable<'_>, Refusal> {
    FieldTable::parse(octets).map_err(|error| Refusal::Command(error.to_string()))
}

fn with_queue_type(arguments: FieldTable<'_>, queue_type: QueueType) -> Arguments {
    let mut builder = TableBuilder::default();
    for (name, value) in arguments {
        builder.push(name, value);
    }
    builder.push(b"x-queue-type", Value::LongString(queue_type.name().as_bytes()));
    builder.arguments()
}

fn destination(kind: i32, name: &str) -> Destination {
    match DestinationKind::try_from(kind) {
        Ok(DestinationKind::Exchange) => Destination::Exchange(name.into()),
        _ => Destination::Queue(name.into()),
    }
}

/// Whoever owns the queue a binding leads to: that it is theirs was checked before anyone proposed this.
fn owner(vhost: &Vhost, destination: &Destination) -> u64 {
    match destination {
        Destination::Queue(name) => vhost.queue(name).and_then(|queue| queue.exclusive_owner).unwrap_or_default(),
        Destination::Exchange(_) => 0,
    }
}

fn is_durable(vhost: &Vhost, source: &str, destination: &Destination) -> bool {
    vhost.exchange(source).is_some_and(|exchange| exchange.durable)
        && match destination {
            Destination::Queue(name) => vhost.queue(name).is_some_and(|queue| queue.durable),
            Destination::Exchange(name) => vhost.exchange(name).is_some_and(|exchange| exchange.durable),
        }
}
