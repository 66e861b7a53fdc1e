//! Proving who one is with a password.

use std::fmt;

use super::{Access, PasswordHash, password};
use crate::name::UserName;

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
    /// The user or its password changed while the password was being checked.
    #[error("the user was changed or deleted meanwhile")]
    Changed,
}

impl Access {
    /// Prepares the check of a name and a password. `loopback_only` says whether this user is one that may only come from the machine itself
    /// (configuration's `loopback_users`), `peer_is_loopback` whether it does.
    pub fn login(&self, user: &str, password: &[u8], loopback_only: bool, peer_is_loopback: bool) -> Login {
        let found = self.user(user);
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

    /// Whether what a login was checked against is still so.
    pub fn is_current(&self, login: &Login) -> bool {
        self.user(&login.user).is_some_and(|user| user.password == login.stored)
    }
}

impl Login {
    /// Who wants to log in.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Checks the password. Takes tens of milliseconds and 19 MiB of memory for new hashes, and as long for every refusal: how long it takes does
    /// not tell whether there is such a user, nor what is stored of it.
    pub fn verify(&self) -> Result<(), LoginRefused> {
        let right = self.stored.as_ref().is_some_and(|stored| stored.matches(&self.password));
        match self.refused {
            None if right => return Ok(()),
            _ if self.stored.as_ref().is_none_or(|stored| !stored.takes_time(&self.password)) => {
                password::spend_time(&self.password);
            }
            _ => {}
        }
        Err(self.refused.unwrap_or(LoginRefused::WrongPassword))
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
    use crate::access::User;

    fn access() -> Access {
        let mut access = Access::default();
        let hash = PasswordHash::argon2id(b"secret", &[7; 16]).unwrap();
        access.put_user(User { name: "ann".into(), password: Some(hash), tags: Vec::new() });
        access.put_user(User { name: "bob".into(), password: None, tags: Vec::new() });
        let imported = PasswordHash::rabbit_sha256(b"secret", [1, 2, 3, 4]);
        access.put_user(User { name: "old".into(), password: Some(imported), tags: Vec::new() });
        access
    }

    #[test]
    fn logins_are_right_only_with_everything_right() {
        let access = access();
        let login = |user, password: &[u8], only, loopback| access.login(user, password, only, loopback).verify();
        for user in ["ann", "old"] {
            assert_eq!(login(user, b"secret", false, false), Ok(()));
            assert_eq!(login(user, b"secret", true, true), Ok(()));
            assert_eq!(login(user, b"secret", true, false), Err(LoginRefused::NotLoopback));
            assert_eq!(login(user, b"Secret", false, true), Err(LoginRefused::WrongPassword));
        }
        assert_eq!(login("bob", b"", false, true), Err(LoginRefused::NoPassword));
        assert_eq!(login("eve", b"secret", false, true), Err(LoginRefused::NoSuchUser));
    }

    /// Hashing is what takes time; the rest is lost in the noise of the network.
    #[test]
    fn every_refusal_takes_one_slow_hash_whoever_it_is() {
        let access = access();
        let long = vec![b'a'; crate::access::PASSWORD_MAX_BYTES + 1];
        for (user, password, loopback_only) in [
            ("eve", &b"wrong"[..], false),
            ("ann", b"wrong", false),
            ("old", b"wrong", false),
            ("bob", b"wrong", false),
            ("ann", &long, false),
            ("old", &long, false),
            ("eve", &long, false),
            ("ann", b"secret", true),
            ("old", b"secret", true),
        ] {
            let before = password::RUNS.get();
            assert!(access.login(user, password, loopback_only, false).verify().is_err());
            assert_eq!(password::RUNS.get() - before, 1, "{user}");
        }
    }

    #[test]
    fn a_cached_login_misses_after_a_change_of_password() {
        let mut access = access();
        let key = |access: &Access, password: &[u8]| access.login("ann", password, false, true).cache_key(&[1; 32]);
        let before = key(&access, b"secret");
        assert_eq!(before, key(&access, b"secret"));
        assert_ne!(before, key(&access, b"secreT"));
        let login = access.login("ann", b"secret", false, true);
        assert!(access.is_current(&login));
        let hash = PasswordHash::argon2id(b"secret", &[8; 16]).unwrap();
        access.put_user(User { name: "ann".into(), password: Some(hash), tags: Vec::new() });
        assert_ne!(before, key(&access, b"secret"));
        assert!(!access.is_current(&login));
        assert!(access.remove_user("ann") && !access.is_current(&login));
        assert_eq!(access.login("eve", b"x", false, true).cache_key(&[1; 32]), None);
    }
}
