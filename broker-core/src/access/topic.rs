//! Topic permissions: what a user may publish with and bind to, by routing key.
//!
//! They narrow what permissions allow, on exchanges of type topic that have some for the user. Where there are none, nothing is asked.

use std::sync::Arc;

use imbl::OrdMap;

use super::{Access, BadPattern, Pattern, Right};
use crate::name::{ExchangeName, UserName, VhostName};

/// A user's in a vhost, by exchange.
pub(super) type OfVhost = OrdMap<ExchangeName, Arc<TopicPermissions>>;

/// What a user may do with one topic exchange.
#[derive(Clone, Debug)]
pub struct TopicPermissions {
    /// Routing keys it may publish with.
    pub write: Pattern,
    /// Binding keys it may bind and unbind with.
    pub read: Pattern,
}

impl TopicPermissions {
    /// From two patterns, in which `{username}` and `{vhost}` stand for these names.
    pub fn new(user: &UserName, vhost: &VhostName, write: &str, read: &str) -> Result<TopicPermissions, BadPattern> {
        let variables = [("username", user.as_str()), ("vhost", vhost.as_str())];
        Ok(TopicPermissions {
            write: Pattern::expanded(write, &variables)?,
            read: Pattern::expanded(read, &variables)?,
        })
    }
}

impl Access {
    /// All topic permissions, by user, vhost and exchange.
    pub fn all_topic_permissions(
        &self,
    ) -> impl Iterator<Item = (&UserName, &VhostName, &ExchangeName, &Arc<TopicPermissions>)> {
        self.topic_permissions.iter().flat_map(|((user, vhost), exchanges)| {
            exchanges.iter().map(move |(exchange, permissions)| (user, vhost, exchange, permissions))
        })
    }

    /// Gives topic permissions on an exchange, which need not exist. `false` if there is no such user.
    pub fn set_topic_permissions(
        &mut self,
        user: &UserName,
        vhost: &VhostName,
        exchange: ExchangeName,
        permissions: TopicPermissions,
    ) -> bool {
        let known = self.user(user).is_some();
        if known {
            let exchanges = self.topic_permissions.entry((user.clone(), vhost.clone())).or_default();
            exchanges.insert(exchange, Arc::new(permissions));
        }
        known
    }

    /// Takes topic permissions: those on one exchange, or all of the vhost. `false` if there were none.
    pub fn clear_topic_permissions(&mut self, user: &UserName, vhost: &VhostName, exchange: Option<&str>) -> bool {
        let key = (user.clone(), vhost.clone());
        let Some(exchange) = exchange else { return self.topic_permissions.remove(&key).is_some() };
        let Some(exchanges) = self.topic_permissions.get_mut(&key) else { return false };
        let cleared = exchanges.remove(exchange).is_some();
        if exchanges.is_empty() {
            self.topic_permissions.remove(&key);
        }
        cleared
    }

    /// Whether a user has topic permissions in a vhost.
    pub fn has_topic_permissions(&self, user: &UserName, vhost: &VhostName) -> bool {
        !self.topic_permissions.is_empty() && self.topic_permissions.contains_key(&(user.clone(), vhost.clone()))
    }

    pub(super) fn allows_topic(
        &self,
        user: &UserName,
        vhost: &VhostName,
        exchange: &str,
        right: Right,
        key: &[u8],
    ) -> bool {
        if self.topic_permissions.is_empty() {
            return true;
        }
        let exchanges = self.topic_permissions.get(&(user.clone(), vhost.clone()));
        exchanges.and_then(|exchanges| exchanges.get(exchange)).is_none_or(|permissions| match right {
            Right::Configure => true,
            Right::Write => permissions.write.matches_octets(key),
            Right::Read => permissions.read.matches_octets(key),
        })
    }
}
