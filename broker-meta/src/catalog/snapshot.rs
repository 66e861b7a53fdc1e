//! The whole catalog as one message, and back.

use std::sync::Arc;

use broker_core::access::{Access, TopicPermissions};
use broker_core::name::{ExchangeName, UserName, VhostName};
use broker_core::refusal::Refusal;
use broker_core::topology::{ExchangeRecord, PREDECLARED_EXCHANGES, QueueRecord, Vhost, VhostRecord};
use proto::meta::set_limits::Of;
use proto::meta::{self, Snapshot};

use super::{Catalog, CatalogEvent, Members};
use crate::command::{binding_message, parameter_message, policy_message, user_message};

/// The message contradicts itself: it is not what [`Catalog::to_snapshot`] made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of the catalog makes no sense: {0}")]
pub struct BadSnapshot(String);

impl Catalog {
    /// All of it, in an order that depends on the content only.
    pub fn to_snapshot(&self) -> Snapshot {
        let (members, numbers_given) = self.members.to_messages();
        Snapshot {
            members,
            numbers_given,
            index: self.index,
            cluster_name: self.cluster_name.clone(),
            vhosts: self.topology.vhosts().map(vhost_message).collect(),
            users: self.access.users().map(|user| user_message(user)).collect(),
            permissions: self
                .access
                .all_permissions()
                .map(|(user, vhost, held)| permission_message(user, vhost, held))
                .collect(),
            parameters: self.parameters.iter().map(|(key, value)| parameter_message(key, value)).collect(),
            topic_permissions: topic_permission_messages(&self.access),
            limits: limit_messages(&self.access),
        }
    }

    /// The catalog a snapshot was made of.
    pub fn from_snapshot(snapshot: &Snapshot) -> Result<Catalog, BadSnapshot> {
        let members = Members::from_messages(&snapshot.members, snapshot.numbers_given);
        let mut catalog = Catalog { index: snapshot.index, members, ..Catalog::default() };
        catalog.set_cluster_name(&meta::SetClusterName { name: snapshot.cluster_name.clone() });
        for vhost in &snapshot.vhosts {
            catalog.add_vhost(vhost)?;
        }
        for user in &snapshot.users {
            accepted(catalog.put_user(user))?;
        }
        for permissions in &snapshot.permissions {
            accepted(catalog.set_permissions(permissions))?;
        }
        for parameter in &snapshot.parameters {
            accepted(catalog.set_parameter(parameter))?;
        }
        for permissions in &snapshot.topic_permissions {
            accepted(catalog.set_topic_permissions(permissions))?;
        }
        for limits in &snapshot.limits {
            accepted(catalog.set_limits(limits))?;
        }
        Ok(catalog)
    }

    fn add_vhost(&mut self, state: &meta::VhostState) -> Result<(), BadSnapshot> {
        let vhost = state.vhost.as_ref().ok_or_else(|| BadSnapshot("a vhost without a name".into()))?;
        self.topology.add_vhost(VhostRecord {
            name: vhost.name.as_str().into(),
            description: vhost.description.clone(),
            tags: vhost.tags.clone(),
            tracing: state.tracing,
            // Known queues say their type themselves: nothing is to be filled in before they are there.
            default_queue_type: None,
        });
        for policy in &state.policies {
            accepted(self.set_policy(policy))?;
        }
        for exchange in &state.exchanges {
            accepted(self.declare_exchange(exchange.holder, exchange))?;
        }
        for queue in &state.queues {
            let declaration = queue.queue.as_ref().ok_or_else(|| BadSnapshot("a queue without a name".into()))?;
            accepted(self.put_queue(queue.id, declaration))?;
        }
        for binding in &state.bindings {
            accepted(self.bind(binding))?;
        }
        accepted(self.update_vhost(&meta::UpdateVhost {
            name: vhost.name.clone(),
            default_queue_type: Some(vhost.default_queue_type.clone()),
            ..meta::UpdateVhost::default()
        }))
    }
}

fn accepted(outcome: Result<Vec<CatalogEvent>, Refusal>) -> Result<(), BadSnapshot> {
    match outcome {
        Ok(_) => Ok(()),
        Err(refusal) => Err(BadSnapshot(refusal.to_string())),
    }
}

fn permission_message(user: &str, vhost: &str, permissions: &broker_core::access::Permissions) -> meta::SetPermissions {
    meta::SetPermissions {
        user: user.into(),
        vhost: vhost.into(),
        configure: permissions.configure.as_str().into(),
        write: permissions.write.as_str().into(),
        read: permissions.read.as_str().into(),
    }
}

fn topic_permission_messages(access: &Access) -> Vec<meta::SetTopicPermissions> {
    let all = access.all_topic_permissions();
    let message = |(user, vhost, exchange, held): (&UserName, &VhostName, &ExchangeName, &Arc<TopicPermissions>)| {
        meta::SetTopicPermissions {
            user: user.as_str().into(),
            vhost: vhost.as_str().into(),
            exchange: exchange.as_str().into(),
            write: held.write.as_str().into(),
            read: held.read.as_str().into(),
        }
    };
    all.map(message).collect()
}

fn limit_messages(access: &Access) -> Vec<meta::SetLimits> {
    let limit = |limit: Option<u64>| limit.and_then(|limit| i64::try_from(limit).ok());
    let vhosts = access.all_vhost_limits().map(|(vhost, limits)| meta::SetLimits {
        of: Some(Of::Vhost(vhost.as_str().into())),
        max_connections: limit(limits.connections),
        max_queues: limit(limits.queues),
        max_channels: None,
    });
    let users = access.all_user_limits().map(|(user, limits)| meta::SetLimits {
        of: Some(Of::User(user.as_str().into())),
        max_connections: limit(limits.connections),
        max_queues: None,
        max_channels: limit(limits.channels),
    });
    vhosts.chain(users).collect()
}

fn vhost_message(vhost: &Vhost) -> meta::VhostState {
    let record = vhost.record();
    let mut exchanges: Vec<_> = vhost.exchanges().filter(|exchange| !is_predeclared(exchange)).collect();
    exchanges.sort_by_key(|exchange| &exchange.name);
    let mut queues: Vec<_> = vhost.queues().collect();
    queues.sort_by_key(|queue| queue.id);
    meta::VhostState {
        vhost: Some(meta::CreateVhost {
            name: record.name.as_str().into(),
            description: record.description.clone(),
            tags: record.tags.clone(),
            default_queue_type: record
                .default_queue_type
                .map(|queue_type| queue_type.name().into())
                .unwrap_or_default(),
            vhosts_max: 0,
        }),
        tracing: record.tracing,
        exchanges: exchanges.into_iter().map(|exchange| exchange_message(exchange)).collect(),
        queues: queues.into_iter().map(|queue| queue_message(queue)).collect(),
        bindings: vhost.bindings().map(|binding| binding_message(&record.name, binding)).collect(),
        policies: vhost.policies().iter().map(|policy| policy_message(policy)).collect(),
    }
}

fn is_predeclared(exchange: &ExchangeRecord) -> bool {
    PREDECLARED_EXCHANGES.iter().any(|(name, ..)| **name == *exchange.name)
}

fn exchange_message(exchange: &ExchangeRecord) -> meta::DeclareExchange {
    meta::DeclareExchange {
        vhost: exchange.vhost.as_str().into(),
        name: exchange.name.as_str().into(),
        r#type: exchange.kind.name().into(),
        durable: exchange.durable,
        auto_delete: exchange.auto_delete,
        internal: exchange.internal,
        arguments: exchange.arguments.octets().to_vec(),
        holder: exchange.holder.map_or(0, |holder| holder.0),
    }
}

pub(super) fn queue_message(queue: &QueueRecord) -> meta::QueueState {
    let declaration = meta::DeclareQueue {
        vhost: queue.vhost.as_str().into(),
        name: queue.name.as_str().into(),
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        exclusive_owner: queue.exclusive_owner,
        arguments: queue.arguments.octets().to_vec(),
        node: queue.node.0,
    };
    meta::QueueState { id: queue.id.0, queue: Some(declaration) }
}
