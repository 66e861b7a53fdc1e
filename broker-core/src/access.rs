//! Users, what they may do, and how they prove who they are.
//!
//! [`Access`] is an immutable snapshot like the topology. Asking for a right is a look-up and a regular expression. Checking a password is slow by
//! design, so it is split: [`Access::login`] collects what is needed, [`Login::verify`] does the work on a thread of the driver's choice, and
//! [`Login::cache_key`] lets it remember, for a while, logins that were right.

mod password;

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use regex::{Regex, RegexBuilder};

pub use password::{PASSWORD_MAX_BYTES, PasswordHash, UnknownHash};

use crate::name::{UserName, VhostName};
use crate::refusal::{Refusal, Resource};

/// A permission's pattern may be this long, in octets.
pub const PATTERN_MAX_BYTES: usize = 4 * 1024;
/// A compiled pattern may take this much memory, in octets.
const COMPILED_MAX_BYTES: usize = 1 << 20;
/// What permissions call the default exchange.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub struct Access {
    users: OrdMap<UserName, Arc<User>>,
    permissions: OrdMap<(UserName, VhostName), Arc<Permissions>>,
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

/// A regular expression over names; matches anywhere in a name. The empty one matches no name.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    /// None: matches nothing.
    compiled: Option<Regex>,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Longer than [`PATTERN_MAX_BYTES`].
    #[error("the pattern is longer than {PATTERN_MAX_BYTES} octets")]
    TooLong,
    /// Not a regular expression, or one that would take too much memory.
    #[error("{0}")]
    Syntax(String),
}

/// What someone wants to do with an exchange or a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Declare or delete.
    Configure,
    /// Publish, or bind to.
    Write,
    /// Consume, get, purge, or bind from.
    Read,
}

/// A login to be checked. Owns all it needs, so that it can be checked on another thread.
pub struct Login {
    user: UserName,
    password: Vec<u8>,
    stored: Option<PasswordHash>,
    /// Why it is refused, whatever the password.
    refused: Option<LoginRefused>,
}

/// Why a login is refused. The client is told the same whatever it was; the log is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// There is no such user.
    #[error("no such user")]
    NoSuchUser,
    /// The password is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// The user has no password.
    #[error("the user has no password and cannot log in with one")]
    NoPassword,
    /// The user may only come from the machine itself.
    #[error("user can only connect via localhost")]
    NotLoopback,
}

impl Access {
    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
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

    /// Whether a user may open a vhost.
    pub fn may_open(&self, user: &UserName, vhost: &VhostName) -> Result<(), Refusal> {
        match self.permissions(user, vhost) {
            Some(_) => Ok(()),
            None => Err(Refusal::VhostRefused { vhost: vhost.clone(), user: user.clone() }),
        }
    }

    /// Whether a user may do something with an exchange or a queue.
    pub fn authorize(&self, user: &UserName, operation: Operation, resource: &Resource) -> Result<(), Refusal> {
        let name = match resource {
            Resource::Exchange(_, name) if name.is_empty() => DEFAULT_EXCHANGE,
            other => other.name(),
        };
        let permissions = self.permissions(user, resource.vhost());
        if permissions.is_some_and(|permissions| permissions.of(operation).matches(name)) {
            return Ok(());
        }
        Err(Refusal::AccessRefused { resource: resource.clone(), user: user.clone() })
    }

    /// Prepares the check of a name and a password. `loopback_only` says whether this user is one that may only come from the machine itself
    /// (configuration's `loopback_users`), `peer_is_loopback` whether it does.
    pub fn login(&self, user: &str, password: &[u8], loopback_only: bool, peer_is_loopback: bool) -> Login {
        let found = self.users.get(user);
        let refused = match found {
            None => Some(LoginRefused::NoSuchUser),
            Some(user) if user.password.is_none() => Some(LoginRefused::NoPassword),
            Some(_) if loopback_only && !peer_is_loopback => Some(LoginRefused::NotLoopback),
            Some(_) => None,
        };
        Login {
            user: found.map_or_else(|| UserName::from(user), |found| found.name.clone()),
            password: password.to_vec(),
            stored: found.and_then(|found| found.password.clone()),
            refused,
        }
    }

    /// Adds or replaces a user.
    pub fn put_user(&mut self, user: User) {
        self.users.insert(user.name.clone(), Arc::new(user));
    }

    /// Removes a user and its permissions. `false` if there is none.
    pub fn remove_user(&mut self, name: &str) -> bool {
        if self.users.remove(name).is_none() {
            return false;
        }
        let vhosts: Vec<_> = self.permissions.keys().filter(|(user, _)| **user == *name).cloned().collect();
        for key in vhosts {
            self.permissions.remove(&key);
        }
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

    /// Takes everyone's permissions in a vhost that goes.
    pub fn remove_vhost(&mut self, vhost: &VhostName) {
        let users: Vec<_> = self.permissions.keys().filter(|(_, of)| of == vhost).cloned().collect();
        for key in users {
            self.permissions.remove(&key);
        }
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

    fn of(&self, operation: Operation) -> &Pattern {
        match operation {
            Operation::Configure => &self.configure,
            Operation::Write => &self.write,
            Operation::Read => &self.read,
        }
    }
}

impl Pattern {
    /// Compiles a pattern. Matching is linear in the name, whatever the pattern.
    pub fn new(text: &str) -> Result<Pattern, BadPattern> {
        if text.len() > PATTERN_MAX_BYTES {
            return Err(BadPattern::TooLong);
        }
        let compile = || {
            RegexBuilder::new(text)
                .size_limit(COMPILED_MAX_BYTES)
                .dfa_size_limit(COMPILED_MAX_BYTES)
                .build()
                .map_err(|error| BadPattern::Syntax(error.to_string()))
        };
        let compiled = if text.is_empty() { None } else { Some(compile()?) };
        Ok(Pattern { text: text.to_owned(), compiled })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches a name. The empty pattern matches the empty name only, and no resource has that.
    pub fn matches(&self, name: &str) -> bool {
        match &self.compiled {
            Some(regex) => regex.is_match(name),
            None => name.is_empty(),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Login {
    /// Who wants to log in.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Checks the password. Takes tens of milliseconds and 19 MiB of memory for new hashes; as long for a user that does not exist.
    pub fn verify(&self) -> Result<(), LoginRefused> {
        let right = match &self.stored {
            Some(stored) => stored.matches(&self.password),
            None => {
                password::spend_time(&self.password);
                false
            }
        };
        match self.refused {
            Some(refused) => Err(refused),
            None if right => Ok(()),
            None => Err(LoginRefused::WrongPassword),
        }
    }

    /// A name for this login under which its being right may be remembered: it depends on the stored hash, so a changed password misses.
    /// `key` is random and secret to the process. None if the login is refused whatever the password.
    pub fn cache_key(&self, key: &[u8; 32]) -> Option<[u8; 32]> {
        match (&self.stored, self.refused) {
            (Some(stored), None) => Some(stored.cache_key(key, &self.user, &self.password)),
            _ => None,
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let mut access = Access::default();
        let hash = PasswordHash::argon2id(b"secret", &[7; 16]).unwrap();
        access.put_user(User { name: "ann".into(), password: Some(hash), tags: vec!["management".into()] });
        access.put_user(User { name: "bob".into(), password: None, tags: Vec::new() });
        let permissions = Permissions::new("^ann-", "", "amq\\.default|queue").unwrap();
        assert!(access.set_permissions(&"ann".into(), &"/".into(), permissions));
        access
    }

    fn queue(name: &str) -> Resource {
        Resource::Queue("/".into(), name.into())
    }

    #[test]
    fn patterns_match_anywhere_and_the_empty_one_nowhere() {
        let access = access();
        let may = |operation, resource: &Resource| access.authorize(&"ann".into(), operation, resource).is_ok();
        assert!(may(Operation::Configure, &queue("ann-1")) && !may(Operation::Configure, &queue("x-ann-1")));
        assert!(!may(Operation::Write, &queue("ann-1")));
        assert!(may(Operation::Read, &queue("my-queue-1")));
        assert!(may(Operation::Read, &Resource::Exchange("/".into(), "".into())));
        assert!(!may(Operation::Read, &Resource::Exchange("other".into(), "".into())));
        assert_eq!(
            access.authorize(&"bob".into(), Operation::Read, &queue("q")).unwrap_err().reply().text,
            "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'bob'"
        );
    }

    #[test]
    fn permissions_go_with_user_and_vhost() {
        let mut one = access();
        assert!(one.may_open(&"ann".into(), &"/".into()).is_ok());
        one.remove_vhost(&"/".into());
        assert_eq!(
            one.may_open(&"ann".into(), &"/".into()).unwrap_err().reply().text,
            "NOT_ALLOWED - access to vhost '/' refused for user 'ann'"
        );
        let mut other = access();
        assert!(other.remove_user("ann") && !other.remove_user("ann"));
        assert_eq!(other.all_permissions().count(), 0);
    }

    #[test]
    fn hostile_patterns_are_refused_or_linear() {
        assert!(Pattern::new(&"a".repeat(PATTERN_MAX_BYTES + 1)).is_err());
        assert!(Pattern::new("(((a{1000}){1000}){1000})").is_err());
        assert!(Pattern::new("(").is_err());
        assert!(!Pattern::new("(a+)+$").unwrap().matches(&format!("{}b", "a".repeat(250))));
    }

    #[test]
    fn logins_are_right_only_with_everything_right() {
        let access = access();
        let login = |user, password: &[u8], only, loopback| access.login(user, password, only, loopback).verify();
        assert_eq!(login("ann", b"secret", false, false), Ok(()));
        assert_eq!(login("ann", b"secret", true, true), Ok(()));
        assert_eq!(login("ann", b"secret", true, false), Err(LoginRefused::NotLoopback));
        assert_eq!(login("ann", b"Secret", false, true), Err(LoginRefused::WrongPassword));
        assert_eq!(login("bob", b"", false, true), Err(LoginRefused::NoPassword));
        assert_eq!(login("eve", b"secret", false, true), Err(LoginRefused::NoSuchUser));
    }

    #[test]
    fn a_cached_login_misses_after_a_change_of_password() {
        let mut access = access();
        let key = |access: &Access, password: &[u8]| access.login("ann", password, false, true).cache_key(&[1; 32]);
        let before = key(&access, b"secret");
        assert_eq!(before, key(&access, b"secret"));
        assert_ne!(before, key(&access, b"secreT"));
        let hash = PasswordHash::argon2id(b"secret", &[8; 16]).unwrap();
        access.put_user(User { name: "ann".into(), password: Some(hash), tags: Vec::new() });
        assert_ne!(before, key(&access, b"secret"));
        assert_eq!(access.login("eve", b"x", false, true).cache_key(&[1; 32]), None);
    }
}
