//! Users, what they may do, and how they prove who they are.
//!
//! [`Access`] is an immutable snapshot like the topology. Asking for a right is a look-up and a regular expression. Checking a password is slow by
//! design, so it is split: [`Access::login`] collects what is needed, [`Login::verify`] does the work on a thread of the driver's choice, and
//! [`Login::cache_key`] lets it remember, for a while, logins that were right.

mod limits;
mod login;
mod operation;
mod password;
mod pattern;
mod topic;

use std::sync::Arc;

use imbl::OrdMap;

pub use limits::{UserLimits, VhostLimits};
pub use login::{Login, LoginRefused};
pub use operation::{Operation, Right};
pub use password::{PASSWORD_MAX_BYTES, PasswordHash, UnknownHash};
pub use pattern::{BadPattern, PATTERN_MAX_BYTES, Pattern};
pub use topic::TopicPermissions;

use crate::name::{UserName, VhostName};

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct Access {
    users: OrdMap<UserName, Arc<User>>,
    permissions: OrdMap<(UserName, VhostName), Arc<Permissions>>,
    topic_permissions: OrdMap<(UserName, VhostName), topic::OfVhost>,
    vhost_limits: OrdMap<VhostName, VhostLimits>,
    user_limits: OrdMap<UserName, UserLimits>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// What proves it is the user; none: cannot log in with a password.
    pub password: Option<PasswordHash>,
    /// `administrator`, `monitoring`, `policymaker`, `management`, `impersonator`, or whatever an operator wrote.
    pub tags: Vec<String>,
}

/// What a user may do in a vhost.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// Declaring and deleting.
    pub configure: Pattern,
    /// Publishing, binding to.
    pub write: Pattern,
    /// Consuming, purging, binding from.
    pub read: Pattern,
}

impl Access {
    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// Whether a user may publish in another's name: its tags say so.
    pub fn is_impersonator(&self, name: &str) -> bool {
        self.user(name).is_some_and(|user| user.has_tag("impersonator"))
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// What a user may do in a vhost; none: nothing, not even open it.
    pub fn permissions(&self, user: &UserName, vhost: &VhostName) -> Option<&Arc<Permissions>> {
        self.permissions.get(&(user.clone(), vhost.clone()))
    }

    /// All permissions, by user and vhost.
    pub fn all_permissions(&self) -> impl Iterator<Item = (&UserName, &VhostName, &Arc<Permissions>)> {
        self.permissions.iter().map(|((user, vhost), permissions)| (user, vhost, permissions))
    }

    /// Adds or replaces a user.
    pub fn put_user(&mut self, user: User) {
        self.users.insert(user.name.clone(), Arc::new(user));
    }

    /// Removes a user with its permissions and limits. `false` if there is none.
    pub fn remove_user(&mut self, name: &str) -> bool {
        if self.users.remove(name).is_none() {
            return false;
        }
        keep(&mut self.permissions, |(user, _)| **user != *name);
        keep(&mut self.topic_permissions, |(user, _)| **user != *name);
        self.user_limits.remove(name);
        true
    }

    /// Gives permissions in a vhost. `false` if there is no such user.
    pub fn set_permissions(&mut self, user: &UserName, vhost: &VhostName, permissions: Permissions) -> bool {
        let known = self.users.contains_key(user);
        if known {
            self.permissions.insert((user.clone(), vhost.clone()), Arc::new(permissions));
        }
        known
    }

    /// Takes all permissions in a vhost. `false` if there were none.
    pub fn clear_permissions(&mut self, user: &UserName, vhost: &VhostName) -> bool {
        self.permissions.remove(&(user.clone(), vhost.clone())).is_some()
    }

    /// Takes everyone's permissions in a vhost that goes, and its limits.
    pub fn remove_vhost(&mut self, vhost: &VhostName) {
        keep(&mut self.permissions, |(_, of)| of != vhost);
        keep(&mut self.topic_permissions, |(_, of)| of != vhost);
        self.vhost_limits.remove(vhost);
    }
}

impl User {
    /// Whether an operator gave it that tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|held| held == tag)
    }
}

impl Permissions {
    /// Permissions from three patterns.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Permissions, BadPattern> {
        Ok(Permissions { configure: Pattern::new(configure)?, write: Pattern::new(write)?, read: Pattern::new(read)? })
    }

    /// The names a right is given on.
    pub fn of(&self, right: Right) -> &Pattern {
        match right {
            Right::Configure => &self.configure,
            Right::Write => &self.write,
            Right::Read => &self.read,
        }
    }
}

/// Removes the entries whose key is not to be kept.
fn keep<V: Clone>(map: &mut OrdMap<(UserName, VhostName), V>, kept: impl Fn(&(UserName, VhostName)) -> bool) {
    let gone: Vec<_> = map.keys().filter(|key| !kept(key)).cloned().collect();
    for key in gone {
        map.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_goes_with_user_and_vhost() {
        let mut one = Access::default();
        let (user, vhost) = (UserName::from("ann"), VhostName::from("/"));
        one.put_user(User { name: user.clone(), password: None, tags: vec!["management".into()] });
        assert!(one.user("ann").unwrap().has_tag("management"));
        assert!(one.set_permissions(&user, &vhost, Permissions::new("", "", "").unwrap()));
        let topic = TopicPermissions::new(&user, &vhost, "", "").unwrap();
        assert!(one.set_topic_permissions(&user, &vhost, "x".into(), topic.clone()));
        assert!(!one.set_topic_permissions(&"eve".into(), &vhost, "x".into(), topic));
        one.set_user_limits(user, UserLimits { connections: Some(1), channels: None });
        one.set_vhost_limits(vhost.clone(), VhostLimits { connections: Some(1), queues: None });
        let count = |access: &Access| {
            [
                access.all_permissions().count(),
                access.all_topic_permissions().count(),
                access.all_user_limits().count(),
                access.all_vhost_limits().count(),
            ]
        };
        assert_eq!(count(&one), [1, 1, 1, 1]);
        let mut other = one.clone();
        one.remove_vhost(&vhost);
        assert_eq!(count(&one), [0, 0, 1, 0]);
        assert!(other.remove_user("ann") && !other.remove_user("ann"));
        assert_eq!(count(&other), [0, 0, 0, 1]);
    }
}
