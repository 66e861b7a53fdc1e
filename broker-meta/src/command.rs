//! Commands: what can be asked of the catalog. They are protobuf messages, since they are kept in logs and travel between nodes; these
//! functions make them.

use broker_core::access::{PasswordHash, User};
use broker_core::arguments::QueueType;
use broker_core::name::{NodeId, QueueId};
use broker_core::policy::{Policy, PolicyValue};
use broker_core::topology::{Binding, Destination, ExchangeDeclaration, QueueDeclaration};
use proto::meta::command::Kind;
use proto::meta::{self, announcement, policy_value};
pub use proto::meta::{Announcement, Command};

use crate::catalog::ParameterKey;

/// Whether this version knows all that decides what a command does. Of a newer version's an unknown variant is read as none at all.
pub(crate) fn is_known(command: &Command) -> bool {
    let is_destination = |kind| meta::DestinationKind::try_from(kind).is_ok();
    match &command.kind {
        None => false,
        Some(Kind::SetPolicy(set)) => {
            set.definition.iter().all(|item| item.value.as_ref().is_some_and(|value| value.kind.is_some()))
        }
        Some(Kind::SetLimits(set)) => set.of.is_some(),
        Some(Kind::Bind(bind)) => is_destination(bind.destination_kind),
        Some(Kind::Unbind(unbind)) => is_destination(unbind.destination_kind),
        Some(_) => true,
    }
}

/// Creates a vhost with its predeclared exchanges.
pub fn create_vhost(name: &str, description: &str, tags: &[String]) -> Command {
    let (name, description, tags) = (name.into(), description.into(), tags.to_vec());
    of(Kind::CreateVhost(meta::CreateVhost { name, description, tags, ..meta::CreateVhost::default() }))
}

/// The same, with a type for durable, shared queues that are declared without one.
pub fn create_vhost_of_type(name: &str, description: &str, tags: &[String], default_queue_type: QueueType) -> Command {
    of(Kind::CreateVhost(meta::CreateVhost {
        name: name.into(),
        description: description.into(),
        tags: tags.to_vec(),
        default_queue_type: default_queue_type.name().into(),
        vhosts_max: 0,
    }))
}

/// What is to be changed of a vhost; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct VhostUpdate {
    /// What an operator writes about it.
    pub description: Option<String>,
    /// Tags an operator gives it.
    pub tags: Option<Vec<String>>,
    /// The type of durable, shared queues that are declared without one; inside: none is filled in.
    pub default_queue_type: Option<Option<QueueType>>,
    /// Whether messages are traced.
    pub tracing: Option<bool>,
}

/// Changes what is said of a vhost.
pub fn update_vhost(name: &str, update: VhostUpdate) -> Command {
    let type_name = |queue_type: Option<QueueType>| queue_type.map(|one| one.name().to_owned()).unwrap_or_default();
    of(Kind::UpdateVhost(meta::UpdateVhost {
        name: name.into(),
        description: update.description,
        tags: update.tags.map(|tags| meta::Tags { tags }),
        default_queue_type: update.default_queue_type.map(type_name),
        tracing: update.tracing,
    }))
}

/// Deletes a vhost with all it holds.
pub fn delete_vhost(name: &str) -> Command {
    of(Kind::DeleteVhost(meta::DeleteVhost { name: name.into() }))
}

/// Creates or changes a user.
pub fn put_user(user: &User) -> Command {
    of(Kind::PutUser(user_message(user)))
}

/// Deletes a user with its permissions.
pub fn delete_user(name: &str) -> Command {
    of(Kind::DeleteUser(meta::DeleteUser { name: name.into() }))
}

/// Gives a user permissions in a vhost.
pub fn set_permissions(user: &str, vhost: &str, configure: &str, write: &str, read: &str) -> Command {
    of(Kind::SetPermissions(meta::SetPermissions {
        user: user.into(),
        vhost: vhost.into(),
        configure: configure.into(),
        write: write.into(),
        read: read.into(),
    }))
}

/// Takes a user's permissions in a vhost.
pub fn clear_permissions(user: &str, vhost: &str) -> Command {
    of(Kind::ClearPermissions(meta::ClearPermissions { user: user.into(), vhost: vhost.into() }))
}

/// Sets a policy or an operator policy.
pub fn set_policy(policy: &Policy) -> Command {
    of(Kind::SetPolicy(policy_message(policy)))
}

/// Clears a policy or an operator policy.
pub fn clear_policy(vhost: &str, name: &str, operator: bool) -> Command {
    of(Kind::ClearPolicy(meta::ClearPolicy { vhost: vhost.into(), name: name.into(), operator }))
}

/// Sets a parameter to a value in JSON.
pub fn set_parameter(key: &ParameterKey, value: &str) -> Command {
    of(Kind::SetParameter(parameter_message(key, value)))
}

/// Clears a parameter.
pub fn clear_parameter(key: &ParameterKey) -> Command {
    let meta::SetParameter { vhost, component, name, .. } = parameter_message(key, "");
    of(Kind::ClearParameter(meta::ClearParameter { vhost, component, name }))
}

/// Gives a user topic permissions on an exchange.
pub fn set_topic_permissions(user: &str, vhost: &str, exchange: &str, write: &str, read: &str) -> Command {
    of(Kind::SetTopicPermissions(meta::SetTopicPermissions {
        user: user.into(),
        vhost: vhost.into(),
        exchange: exchange.into(),
        write: write.into(),
        read: read.into(),
    }))
}

/// Takes a user's topic permissions on an exchange, or all of a vhost.
pub fn clear_topic_permissions(user: &str, vhost: &str, exchange: Option<&str>) -> Command {
    let exchange = exchange.map(str::to_owned);
    let (user, vhost) = (user.into(), vhost.into());
    of(Kind::ClearTopicPermissions(meta::ClearTopicPermissions { user, vhost, exchange }))
}

/// Replaces the limits of a vhost; negative or none: no limit.
pub fn set_vhost_limits(vhost: &str, max_connections: Option<i64>, max_queues: Option<i64>) -> Command {
    let of_vhost = Some(meta::set_limits::Of::Vhost(vhost.into()));
    of(Kind::SetLimits(meta::SetLimits { of: of_vhost, max_connections, max_queues, max_channels: None }))
}

/// Replaces the limits of a user; negative or none: no limit.
pub fn set_user_limits(user: &str, max_connections: Option<i64>, max_channels: Option<i64>) -> Command {
    let of_user = Some(meta::set_limits::Of::User(user.into()));
    of(Kind::SetLimits(meta::SetLimits { of: of_user, max_connections, max_queues: None, max_channels }))
}

/// Declares an exchange.
pub fn declare_exchange(vhost: &str, declaration: &ExchangeDeclaration<'_>) -> Command {
    of(Kind::DeclareExchange(meta::DeclareExchange {
        vhost: vhost.into(),
        name: declaration.name.into(),
        r#type: declaration.kind.name().into(),
        durable: declaration.durable,
        auto_delete: declaration.auto_delete,
        internal: declaration.internal,
        arguments: declaration.arguments.octets().to_vec(),
        holder: 0,
    }))
}

/// Deletes an exchange.
pub fn delete_exchange(vhost: &str, name: &str, if_unused: bool) -> Command {
    of(Kind::DeleteExchange(meta::DeleteExchange { vhost: vhost.into(), name: name.into(), if_unused }))
}

/// Declares a queue that is to live on a node.
pub fn declare_queue(vhost: &str, declaration: &QueueDeclaration<'_>, node: NodeId) -> Command {
    of(Kind::DeclareQueue(meta::DeclareQueue {
        vhost: vhost.into(),
        name: declaration.name.into(),
        durable: declaration.durable,
        auto_delete: declaration.auto_delete,
        exclusive_owner: declaration.exclusive.then_some(declaration.connection),
        arguments: declaration.arguments.octets().to_vec(),
        node: node.0,
    }))
}

/// Deletes a queue; with an identity only if it is still the same queue.
pub fn delete_queue(vhost: &str, name: &str, id: Option<QueueId>) -> Command {
    of(Kind::DeleteQueue(meta::DeleteQueue { vhost: vhost.into(), name: name.into(), id: id.map_or(0, |id| id.0) }))
}

/// Deletes as many of these queues as still exist.
pub fn delete_queues(ids: impl IntoIterator<Item = QueueId>) -> Command {
    of(Kind::DeleteQueues(meta::DeleteQueues { ids: ids.into_iter().map(|id| id.0).collect() }))
}

/// Binds.
pub fn bind(vhost: &str, binding: &Binding) -> Command {
    of(Kind::Bind(binding_message(vhost, binding)))
}

/// Unbinds.
pub fn unbind(vhost: &str, binding: &Binding) -> Command {
    let meta::Bind { vhost, source, destination_kind, destination, routing_key, arguments } =
        binding_message(vhost, binding);
    of(Kind::Unbind(meta::Unbind { vhost, source, destination_kind, destination, routing_key, arguments }))
}

/// Names the cluster.
pub fn set_cluster_name(name: &str) -> Command {
    of(Kind::SetClusterName(meta::SetClusterName { name: name.into() }))
}

/// Says that a node starts: what is not durable there is gone.
pub fn node_starts(node: NodeId) -> Command {
    of(Kind::EndTransient(meta::EndTransient { node: node.0, starts: true }))
}

/// Says that a node is down: what is not durable there is gone.
pub fn node_is_down(node: NodeId) -> Command {
    of(Kind::EndTransient(meta::EndTransient { node: node.0, starts: false }))
}

/// Adds a node to the cluster, which gives it a number.
pub fn add_member(name: &str, address: &str) -> Command {
    of(Kind::AddMember(meta::AddMember { name: name.into(), address: address.into() }))
}

/// Takes a node out of the cluster for good, with its queues.
pub fn remove_member(node: NodeId) -> Command {
    of(Kind::RemoveMember(meta::RemoveMember { node: node.0 }))
}

/// Makes the catalog of a node that was alone that of a new cluster.
pub fn import(snapshot: meta::Snapshot) -> Command {
    of(Kind::Import(Box::new(meta::Import { snapshot: Some(snapshot) })))
}

/// Announces an exclusive queue of a node under a number of its own.
pub fn announce_queue(vhost: &str, declaration: &QueueDeclaration<'_>, node: NodeId, id: QueueId) -> Announcement {
    let Some(Kind::DeclareQueue(queue)) = declare_queue(vhost, declaration, node).kind else {
        return Announcement::default();
    };
    announcement(announcement::Kind::Declare(meta::QueueState { id: id.0, queue: Some(queue) }))
}

/// Announces a binding to an exclusive queue.
pub fn announce_binding(vhost: &str, binding: &Binding) -> Announcement {
    announcement(announcement::Kind::Bind(binding_message(vhost, binding)))
}

/// Announces that a binding to an exclusive queue is gone.
pub fn announce_unbinding(vhost: &str, binding: &Binding) -> Announcement {
    let meta::Bind { vhost, source, destination_kind, destination, routing_key, arguments } =
        binding_message(vhost, binding);
    let unbind = meta::Unbind { vhost, source, destination_kind, destination, routing_key, arguments };
    announcement(announcement::Kind::Unbind(unbind))
}

/// The queue that an announcement declares, if that is what it does.
pub fn announced_queue(announcement: &Announcement) -> Option<QueueId> {
    match &announcement.kind {
        Some(announcement::Kind::Declare(state)) => Some(QueueId(state.id)),
        _ => None,
    }
}

/// Announces that exclusive queues are gone.
pub fn announce_deletion(ids: impl IntoIterator<Item = QueueId>) -> Announcement {
    let ids = ids.into_iter().map(|id| id.0).collect();
    announcement(announcement::Kind::Delete(meta::DeleteQueues { ids }))
}

fn announcement(kind: announcement::Kind) -> Announcement {
    Announcement { kind: Some(kind) }
}

/// What the first boot asks for: a vhost, and an administrator who may do everything in it.
pub fn first_boot(vhost: &str, user: &User, configure: &str, write: &str, read: &str) -> Vec<Command> {
    vec![
        create_vhost(vhost, "Default virtual host", &[]),
        put_user(user),
        set_permissions(&user.name, vhost, configure, write, read),
    ]
}

/// The command that makes a user as it is.
pub fn user_message(user: &User) -> meta::PutUser {
    meta::PutUser {
        name: user.name.as_str().into(),
        password_hash: user.password.as_ref().map(PasswordHash::text).unwrap_or_default(),
        hashing_algorithm: user.password.as_ref().map(|hash| hash.algorithm().into()).unwrap_or_default(),
        tags: user.tags.clone(),
    }
}

pub(crate) fn policy_message(policy: &Policy) -> meta::SetPolicy {
    meta::SetPolicy {
        vhost: policy.vhost().as_str().into(),
        name: policy.name().into(),
        operator: policy.operator(),
        pattern: policy.pattern().into(),
        apply_to: policy.apply_to().name().into(),
        priority: policy.priority(),
        definition: policy.definition().iter().map(|(key, value)| policy_item(key, value)).collect(),
    }
}

pub(crate) fn parameter_message(key: &ParameterKey, value: &str) -> meta::SetParameter {
    meta::SetParameter {
        vhost: key.vhost.as_ref().map(|vhost| vhost.as_str().into()).unwrap_or_default(),
        component: key.component.clone(),
        name: key.name.clone(),
        value: value.into(),
    }
}

pub(crate) fn binding_message(vhost: &str, binding: &Binding) -> meta::Bind {
    let (kind, destination) = match &binding.destination {
        Destination::Queue(name) => (meta::DestinationKind::Queue, name.as_str()),
        Destination::Exchange(name) => (meta::DestinationKind::Exchange, name.as_str()),
    };
    meta::Bind {
        vhost: vhost.into(),
        source: binding.source.as_str().into(),
        destination_kind: kind.into(),
        destination: destination.into(),
        routing_key: binding.routing_key.to_vec(),
        arguments: binding.arguments.octets().to_vec(),
    }
}

/// A key of a policy and its value.
pub fn policy_item(key: &str, value: &PolicyValue) -> meta::PolicyItem {
    meta::PolicyItem { key: key.into(), value: Some(value_message(value)) }
}

fn value_message(value: &PolicyValue) -> meta::PolicyValue {
    let kind = match value {
        PolicyValue::Number(number) => policy_value::Kind::Number(*number),
        PolicyValue::Text(text) => policy_value::Kind::Text(text.clone()),
        PolicyValue::Flag(flag) => policy_value::Kind::Flag(*flag),
        PolicyValue::List(items) => policy_value::Kind::List(meta::TextList { items: items.clone() }),
    };
    meta::PolicyValue { kind: Some(kind) }
}

fn of(kind: Kind) -> Command {
    Command { kind: Some(kind) }
}
