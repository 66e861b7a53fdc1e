//! Lists of the admin service as tables with all their columns.

use proto::admin::v1::catalog_item::Kind;
use proto::admin::v1::{Channel, Connection, Consumer, Queue};
use proto::meta::{DestinationKind, set_limits};
use serde_json::Value;

use crate::table::Table;
use crate::{fields, policy};

/// Where a connection or channel is named as an Erlang process would be: `<rabbit@host.1.NUMBER.0>`.
pub fn pid(node: &str, number: u64) -> String {
    format!("<{node}.1.{number}.0>")
}

/// The connection's number in such a name.
pub fn number_of_pid(pid: &str) -> Option<u64> {
    let inner = pid.trim().strip_prefix('<')?.strip_suffix('>')?;
    let mut parts = inner.rsplit('.');
    parts.next()?;
    parts.next()?.parse().ok()
}

/// Queues.
pub fn queues(queues: &[Queue]) -> Table {
    let rows = queues.iter().map(|queue| {
        let node = &*queue.node;
        let known = |count: u64| if queue.unknown { Value::Null } else { count.into() };
        let declared = queue.declared.clone().unwrap_or_default();
        let arguments = fields::json(&declared.arguments);
        let kind = arguments.get("x-queue-type").and_then(Value::as_str).unwrap_or("classic").to_owned();
        let owner = declared.exclusive_owner.map(|number| pid(node, number));
        vec![
            declared.vhost.into(),
            declared.name.into(),
            known(queue.messages_ready + queue.messages_unacknowledged),
            known(queue.messages_ready),
            known(queue.messages_unacknowledged),
            known(queue.consumers),
            kind.into(),
            declared.durable.into(),
            declared.auto_delete.into(),
            declared.exclusive_owner.is_some().into(),
            owner.into(),
            arguments.into(),
            queue.policy.clone().into(),
            queue.operator_policy.clone().into(),
            policy::definition_json(&queue.effective_policy_definition).to_string().into(),
            if queue.unknown { "down" } else { "running" }.into(),
            known(queue.resident_bytes),
            pid(node, queue.id).into(),
            node.into(),
        ]
    });
    let columns = [
        "vhost",
        "name",
        "messages",
        "messages_ready",
        "messages_unacknowledged",
        "consumers",
        "type",
        "durable",
        "auto_delete",
        "exclusive",
        "owner_pid",
        "arguments",
        "policy",
        "operator_policy",
        "effective_policy_definition",
        "state",
        "memory",
        "pid",
        "node",
    ];
    Table::new(&columns, rows.collect())
}

/// What `list` knows of the catalog, as a table; an empty one of the first item's kind otherwise.
pub fn catalog(columns: &[&'static str], items: Vec<Kind>) -> Table {
    Table::new(columns, items.into_iter().filter_map(catalog_row).collect())
}

/// Columns of vhosts.
pub const VHOSTS: &[&str] = &["name", "tracing", "description", "tags", "default_queue_type"];
/// Columns of users.
pub const USERS: &[&str] = &["user", "tags"];
/// Columns of permissions.
pub const PERMISSIONS: &[&str] = &["vhost", "user", "configure", "write", "read"];
/// Columns of topic permissions.
pub const TOPIC_PERMISSIONS: &[&str] = &["vhost", "user", "exchange", "write", "read"];
/// Columns of limits.
pub const LIMITS: &[&str] = &["vhost", "user", "limits"];
/// Columns of parameters.
pub const PARAMETERS: &[&str] = &["vhost", "component", "name", "value"];
/// Columns of policies.
pub const POLICIES: &[&str] = &["vhost", "name", "pattern", "apply-to", "definition", "priority", "operator"];
/// Columns of exchanges.
pub const EXCHANGES: &[&str] = &["vhost", "name", "type", "durable", "auto_delete", "internal", "arguments"];
/// Columns of bindings.
pub const BINDINGS: &[&str] =
    &["vhost", "source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"];

fn catalog_row(item: Kind) -> Option<Vec<Value>> {
    Some(match item {
        Kind::Vhost(one) => {
            let vhost = one.vhost?;
            vec![
                vhost.name.into(),
                one.tracing.into(),
                vhost.description.into(),
                vhost.tags.into(),
                vhost.default_queue_type.into(),
            ]
        }
        Kind::User(one) => vec![one.name.into(), one.tags.into()],
        Kind::Permissions(one) => {
            vec![one.vhost.into(), one.user.into(), one.configure.into(), one.write.into(), one.read.into()]
        }
        Kind::TopicPermissions(one) => {
            vec![one.vhost.into(), one.user.into(), one.exchange.into(), one.write.into(), one.read.into()]
        }
        Kind::Limits(one) => {
            let limits = policy::limits_json(&one).to_string();
            match one.of? {
                set_limits::Of::Vhost(name) => vec![name.into(), Value::Null, limits.into()],
                set_limits::Of::User(name) => vec![Value::Null, name.into(), limits.into()],
            }
        }
        Kind::Parameter(one) => vec![one.vhost.into(), one.component.into(), one.name.into(), one.value.into()],
        Kind::Policy(one) => vec![
            one.vhost.into(),
            one.name.into(),
            one.pattern.into(),
            one.apply_to.into(),
            policy::definition_json(&one.definition).to_string().into(),
            one.priority.into(),
            one.operator.into(),
        ],
        Kind::Exchange(one) => vec![
            one.vhost.into(),
            one.name.into(),
            one.r#type.into(),
            one.durable.into(),
            one.auto_delete.into(),
            one.internal.into(),
            fields::json(&one.arguments).into(),
        ],
        Kind::Binding(one) => {
            let kind = match one.destination_kind() {
                DestinationKind::Queue => "queue",
                DestinationKind::Exchange => "exchange",
            };
            vec![
                one.vhost.into(),
                one.source.into(),
                "exchange".into(),
                one.destination.into(),
                kind.into(),
                fields::text(&one.routing_key).into(),
                fields::json(&one.arguments).into(),
            ]
        }
    })
}

/// Connections.
pub fn connections(connections: &[Connection]) -> Table {
    let rows = connections.iter().map(|one| {
        vec![
            pid(&one.node, one.number).into(),
            name_of(one).into(),
            one.user.clone().into(),
            one.vhost.clone().into(),
            one.peer_host.clone().into(),
            one.peer_port.into(),
            one.host.clone().into(),
            one.port.into(),
            one.state.clone().into(),
            one.channels.into(),
            "{0,9,1}".into(),
            one.auth_mechanism.clone().into(),
            one.user_provided_name.clone().into(),
            one.frame_max.into(),
            one.channel_max.into(),
            one.heartbeat.into(),
            fields::json(&one.client_properties).into(),
            one.number.into(),
            false.into(),
            one.node.clone().into(),
        ]
    });
    let columns = [
        "pid",
        "name",
        "user",
        "vhost",
        "peer_host",
        "peer_port",
        "host",
        "port",
        "state",
        "channels",
        "protocol",
        "auth_mechanism",
        "user_provided_name",
        "frame_max",
        "channel_max",
        "timeout",
        "client_properties",
        "number",
        "ssl",
        "node",
    ];
    Table::new(&columns, rows.collect())
}

fn name_of(one: &Connection) -> String {
    format!("{}:{} -> {}:{}", one.peer_host, one.peer_port, one.host, one.port)
}

/// Channels.
pub fn channels(channels: &[Channel]) -> Table {
    let rows = channels.iter().map(|one| {
        let connection = one.connection.clone().unwrap_or_default();
        let node = &*connection.node;
        vec![
            // The connection's own process has 0 at the end, its channels their numbers.
            format!("<{node}.1.{}.{}>", connection.number, one.number).into(),
            format!("{} ({})", name_of(&connection), one.number).into(),
            pid(node, connection.number).into(),
            one.number.into(),
            connection.user.clone().into(),
            connection.vhost.clone().into(),
            one.confirm.into(),
            one.transactional.into(),
            one.consumers.into(),
            one.messages_unacknowledged.into(),
            one.messages_unconfirmed.into(),
            one.prefetch_count.into(),
            one.global_prefetch_count.into(),
            "running".into(),
            node.into(),
        ]
    });
    let columns = [
        "pid",
        "name",
        "connection",
        "number",
        "user",
        "vhost",
        "confirm",
        "transactional",
        "consumer_count",
        "messages_unacknowledged",
        "messages_unconfirmed",
        "prefetch_count",
        "global_prefetch_count",
        "state",
        "node",
    ];
    Table::new(&columns, rows.collect())
}

/// Consumers.
pub fn consumers(consumers: &[Consumer]) -> Table {
    let rows = consumers.iter().map(|one| {
        let node = &*one.node;
        vec![
            one.queue.clone().into(),
            format!("<{node}.1.{}.{}>", one.connection, one.channel).into(),
            one.consumer_tag.clone().into(),
            one.ack_required.into(),
            one.vhost.clone().into(),
            one.user.clone().into(),
            pid(node, one.connection).into(),
            one.channel.into(),
            node.into(),
        ]
    });
    let columns =
        ["queue_name", "channel_pid", "consumer_tag", "ack_required", "vhost", "user", "connection", "channel", "node"];
    Table::new(&columns, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_what_stands_for_its_process() {
        assert_eq!(number_of_pid(&pid("rabbit@host.example.org", 16777216)), Some(16777216));
        assert_eq!(number_of_pid("<x.1.2.3>"), Some(2));
        for wrong in ["", "<>", "12", "<a.b.c.d>"] {
            assert_eq!(number_of_pid(wrong), None, "{wrong}");
        }
    }
}
