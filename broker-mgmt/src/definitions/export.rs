//! A snapshot of the catalog as a definitions file.

use std::collections::BTreeSet;

use proto::meta::policy_value::Kind as ValueKind;
use proto::meta::{self, DestinationKind, Snapshot, VhostState, set_limits};
use serde_json::{Map, Value, json};

use super::{ARGON2ID, ARGON2ID_KEY, CLUSTER_NAME, OPERATOR_POLICY, RABBIT_SHA256, VHOST_LIMITS, arguments};

/// The version that RabbitMQ's tools are told: the one whose definitions these are.
const RABBITMQ_VERSION: &str = "3.10.8";
/// Exchanges that every vhost has begin with this.
const PREDECLARED_PREFIX: &str = "amq.";

/// The file, as JSON. Left out is what a client or the broker brings along: exclusive queues, predeclared exchanges and their default bindings, and
/// bindings to what is left out.
pub fn export(snapshot: &Snapshot) -> Vec<u8> {
    let limits = &snapshot.limits;
    let vhosts = || snapshot.vhosts.iter();
    let document = json!({
        "rabbit_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "brokerd",
        "product_version": env!("CARGO_PKG_VERSION"),
        "users": snapshot.users.iter().map(|user| user_item(user, limits)).collect::<Vec<_>>(),
        "vhosts": vhosts().filter_map(vhost_item).collect::<Vec<_>>(),
        "permissions": snapshot.permissions.iter().map(permission_item).collect::<Vec<_>>(),
        "topic_permissions": snapshot.topic_permissions.iter().map(topic_permission_item).collect::<Vec<_>>(),
        "parameters": parameter_items(snapshot),
        "global_parameters": global_parameter_items(snapshot),
        "policies": vhosts().flat_map(|vhost| policies(vhost, false)).map(policy_item).collect::<Vec<_>>(),
        "queues": vhosts().flat_map(exported_queues).map(queue_item).collect::<Vec<_>>(),
        "exchanges": vhosts().flat_map(exported_exchanges).map(exchange_item).collect::<Vec<_>>(),
        "bindings": vhosts().flat_map(binding_items).collect::<Vec<_>>(),
    });
    document.to_string().into_bytes()
}

fn user_item(user: &meta::PutUser, limits: &[meta::SetLimits]) -> Value {
    let own = limits.iter().find(|one| one.of == Some(set_limits::Of::User(user.name.clone())));
    let mut item = json!({
        "name": user.name,
        "password_hash": user.password_hash,
        "hashing_algorithm": user.hashing_algorithm,
        "tags": user.tags,
        "limits": own.map_or_else(Map::new, limits_value),
    });
    if user.hashing_algorithm == ARGON2ID {
        item["password_hash"] = "".into();
        item[ARGON2ID_KEY] = user.password_hash.as_str().into();
    }
    if user.hashing_algorithm.is_empty() || user.hashing_algorithm == ARGON2ID {
        item["hashing_algorithm"] = RABBIT_SHA256.into();
    }
    item
}

fn limits_value(limits: &meta::SetLimits) -> Map<String, Value> {
    let all = [
        ("max-connections", limits.max_connections),
        ("max-queues", limits.max_queues),
        ("max-channels", limits.max_channels),
    ];
    all.into_iter().filter_map(|(key, limit)| Some((key.to_owned(), limit?.into()))).collect()
}

fn vhost_item(state: &VhostState) -> Option<Value> {
    let vhost = state.vhost.as_ref()?;
    let mut metadata = json!({ "description": vhost.description, "tags": vhost.tags });
    if !vhost.default_queue_type.is_empty() {
        metadata["default_queue_type"] = vhost.default_queue_type.as_str().into();
    }
    let mut item = metadata.clone();
    item["name"] = vhost.name.as_str().into();
    item["metadata"] = metadata;
    Some(item)
}

fn permission_item(one: &meta::SetPermissions) -> Value {
    json!({ "user": one.user, "vhost": one.vhost, "configure": one.configure, "write": one.write, "read": one.read })
}

fn topic_permission_item(one: &meta::SetTopicPermissions) -> Value {
    json!({ "user": one.user, "vhost": one.vhost, "exchange": one.exchange, "write": one.write, "read": one.read })
}

fn parameter_items(snapshot: &Snapshot) -> Vec<Value> {
    let of_vhosts = snapshot.parameters.iter().filter(|one| !one.component.is_empty());
    let plain = of_vhosts.map(|one| parameter_item(&one.vhost, &one.component, &one.name, parsed(&one.value)));
    let limits = snapshot.limits.iter().filter_map(|limits| match &limits.of {
        Some(set_limits::Of::Vhost(vhost)) => {
            Some(parameter_item(vhost, VHOST_LIMITS, "limits", limits_value(limits).into()))
        }
        _ => None,
    });
    let policies = snapshot.vhosts.iter().flat_map(|vhost| policies(vhost, true));
    let policies = policies.map(|policy| {
        let mut value = policy_item(policy);
        if let Value::Object(fields) = &mut value {
            fields.remove("vhost");
            fields.remove("name");
        }
        parameter_item(&policy.vhost, OPERATOR_POLICY, &policy.name, value)
    });
    plain.chain(limits).chain(policies).collect()
}

fn parameter_item(vhost: &str, component: &str, name: &str, value: Value) -> Value {
    json!({ "vhost": vhost, "component": component, "name": name, "value": value })
}

fn global_parameter_items(snapshot: &Snapshot) -> Vec<Value> {
    let cluster = Some(&snapshot.cluster_name).filter(|name| !name.is_empty());
    let cluster = cluster.map(|name| json!({ "name": CLUSTER_NAME, "value": name }));
    let global = snapshot.parameters.iter().filter(|one| one.component.is_empty() && one.name != CLUSTER_NAME);
    let global = global.map(|one| json!({ "name": one.name, "value": parsed(&one.value) }));
    cluster.into_iter().chain(global).collect()
}

/// Kept as JSON; what somebody put there that is none becomes text.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| json.into())
}

fn policies(state: &VhostState, operator: bool) -> impl Iterator<Item = &meta::SetPolicy> {
    state.policies.iter().filter(move |policy| policy.operator == operator)
}

fn policy_item(policy: &meta::SetPolicy) -> Value {
    let definition: Map<String, Value> = policy
        .definition
        .iter()
        .map(|item| {
            let value = match item.value.as_ref().and_then(|value| value.kind.as_ref()) {
                Some(ValueKind::Number(number)) => (*number).into(),
                Some(ValueKind::Text(text)) => text.as_str().into(),
                Some(ValueKind::Flag(flag)) => (*flag).into(),
                Some(ValueKind::List(list)) => list.items.clone().into(),
                None => Value::Null,
            };
            (item.key.clone(), value)
        })
        .collect();
    json!({
        "vhost": policy.vhost,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "definition": definition,
        "priority": policy.priority,
    })
}

fn exported_queues(state: &VhostState) -> impl Iterator<Item = &meta::DeclareQueue> {
    state.queues.iter().filter_map(|queue| queue.queue.as_ref()).filter(|queue| queue.exclusive_owner.is_none())
}

fn queue_item(queue: &meta::DeclareQueue) -> Value {
    let arguments = arguments::decode(&queue.arguments);
    let kind = arguments.get("x-queue-type").and_then(Value::as_str).unwrap_or("classic").to_owned();
    json!({
        "name": queue.name,
        "vhost": queue.vhost,
        "type": kind,
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "arguments": arguments,
    })
}

fn exported_exchanges(state: &VhostState) -> impl Iterator<Item = &meta::DeclareExchange> {
    state.exchanges.iter().filter(|exchange| !is_predeclared(&exchange.name))
}

fn is_predeclared(name: &str) -> bool {
    name.is_empty() || name.starts_with(PREDECLARED_PREFIX)
}

fn exchange_item(exchange: &meta::DeclareExchange) -> Value {
    json!({
        "name": exchange.name,
        "vhost": exchange.vhost,
        "type": exchange.r#type,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": arguments::decode(&exchange.arguments),
    })
}

fn binding_items(state: &VhostState) -> Vec<Value> {
    let exchanges: BTreeSet<&str> = exported_exchanges(state).map(|exchange| exchange.name.as_str()).collect();
    let queues: BTreeSet<&str> = exported_queues(state).map(|queue| queue.name.as_str()).collect();
    // Predeclared exchanges are there wherever the file is imported.
    let has_exchange = |name: &str| name.starts_with(PREDECLARED_PREFIX) || exchanges.contains(name);
    let is_exported = |binding: &&meta::Bind| {
        has_exchange(&binding.source)
            && match binding.destination_kind() {
                DestinationKind::Queue => queues.contains(binding.destination.as_str()),
                DestinationKind::Exchange => has_exchange(&binding.destination),
            }
    };
    state.bindings.iter().filter(is_exported).map(binding_item).collect()
}

fn binding_item(binding: &meta::Bind) -> Value {
    json!({
        "source": binding.source,
        "vhost": binding.vhost,
        "destination": binding.destination,
        "destination_type": match binding.destination_kind() {
            DestinationKind::Queue => "queue",
            DestinationKind::Exchange => "exchange",
        },
        "routing_key": arguments::text_of(&binding.routing_key),
        "arguments": arguments::decode(&binding.arguments),
    })
}
