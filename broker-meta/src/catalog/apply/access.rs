//! Topic permissions and limits.

use broker_core::access::{TopicPermissions, UserLimits, VhostLimits};
use broker_core::name::{UserName, VhostName};
use broker_core::refusal::Refusal;
use proto::meta;
use proto::meta::set_limits::Of;

use super::{Catalog, CatalogEvent, Outcome};

impl Catalog {
    pub(in super::super) fn set_topic_permissions(&mut self, command: &meta::SetTopicPermissions) -> Outcome {
        let (user, vhost) = (UserName::from(command.user.as_str()), VhostName::from(command.vhost.as_str()));
        self.topology.vhost_or_refuse(&vhost)?;
        let permissions = TopicPermissions::new(&user, &vhost, &command.write, &command.read)
            .map_err(|bad| Refusal::Command(bad.to_string()))?;
        if !self.access.set_topic_permissions(&user, &vhost, command.exchange.as_str().into(), permissions) {
            return Err(Refusal::Command(format!("user '{user}' does not exist")));
        }
        Ok(vec![CatalogEvent::TopicPermissionsChanged(user, vhost)])
    }

    pub(super) fn clear_topic_permissions(&mut self, command: &meta::ClearTopicPermissions) -> Vec<CatalogEvent> {
        let (user, vhost) = (UserName::from(command.user.as_str()), VhostName::from(command.vhost.as_str()));
        let cleared = self.access.clear_topic_permissions(&user, &vhost, command.exchange.as_deref());
        cleared.then_some(CatalogEvent::TopicPermissionsChanged(user, vhost)).into_iter().collect()
    }

    /// What the command does not say is lifted.
    pub(in super::super) fn set_limits(&mut self, command: &meta::SetLimits) -> Outcome {
        let meta::SetLimits { of, max_connections, max_queues, max_channels } = command;
        let misplaced = |what: &str| Err(Refusal::Command(format!("{what} is no limit of that kind of thing")));
        let changed = match of {
            Some(Of::Vhost(vhost)) => {
                let vhost = VhostName::from(vhost.as_str());
                self.topology.vhost_or_refuse(&vhost)?;
                if max_channels.is_some() {
                    return misplaced("max-channels");
                }
                let limits = VhostLimits { connections: limit(*max_connections), queues: limit(*max_queues) };
                let changed = self.access.set_vhost_limits(vhost.clone(), limits);
                changed.then_some(CatalogEvent::VhostLimitsChanged(vhost))
            }
            Some(Of::User(user)) => {
                let user = UserName::from(user.as_str());
                if self.access.user(&user).is_none() {
                    return Err(Refusal::Command(format!("user '{user}' does not exist")));
                }
                if max_queues.is_some() {
                    return misplaced("max-queues");
                }
                let limits = UserLimits { connections: limit(*max_connections), channels: limit(*max_channels) };
                let changed = self.access.set_user_limits(user.clone(), limits);
                changed.then_some(CatalogEvent::UserLimitsChanged(user))
            }
            None => return Err(Refusal::Command("limits of neither a vhost nor a user".into())),
        };
        Ok(changed.into_iter().collect())
    }
}

/// Negative: no limit.
fn limit(said: Option<i64>) -> Option<u64> {
    said.and_then(|count| u64::try_from(count).ok())
}
