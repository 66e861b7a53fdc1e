//! Limits of vhosts and users. Who is at a limit is counted elsewhere; here is what it is, and what is told to who comes too many.

use super::Access;
use crate::name::{UserName, VhostName};
use crate::refusal::Refusal;
use crate::topology::Vhost;

/// What a vhost is limited to; none: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    /// Connections at the same time.
    pub connections: Option<u64>,
    /// Queues.
    pub queues: Option<u64>,
}

/// What a user is limited to; none: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Connections at the same time.
    pub connections: Option<u64>,
    /// Channels at the same time, over all its connections.
    pub channels: Option<u64>,
}

impl Access {
    /// The limits of a vhost.
    pub fn vhost_limits(&self, vhost: &str) -> VhostLimits {
        self.vhost_limits.get(vhost).copied().unwrap_or_default()
    }

    /// The limits of a user.
    pub fn user_limits(&self, user: &str) -> UserLimits {
        self.user_limits.get(user).copied().unwrap_or_default()
    }

    /// All vhosts that have limits, by name.
    pub fn all_vhost_limits(&self) -> impl Iterator<Item = (&VhostName, VhostLimits)> {
        self.vhost_limits.iter().map(|(vhost, limits)| (vhost, *limits))
    }

    /// All users that have limits, by name.
    pub fn all_user_limits(&self) -> impl Iterator<Item = (&UserName, UserLimits)> {
        self.user_limits.iter().map(|(user, limits)| (user, *limits))
    }

    /// Replaces the limits of a vhost. `false` if they were the same before.
    pub fn set_vhost_limits(&mut self, vhost: VhostName, limits: VhostLimits) -> bool {
        let before = self.vhost_limits(&vhost);
        if limits == VhostLimits::default() {
            self.vhost_limits.remove(&vhost);
        } else {
            self.vhost_limits.insert(vhost, limits);
        }
        before != limits
    }

    /// Replaces the limits of a user. `false` if they were the same before.
    pub fn set_user_limits(&mut self, user: UserName, limits: UserLimits) -> bool {
        let before = self.user_limits(&user);
        if limits == UserLimits::default() {
            self.user_limits.remove(&user);
        } else {
            self.user_limits.insert(user, limits);
        }
        before != limits
    }

    /// Whether one more connection may be opened, where the vhost and the user have so many.
    pub fn may_connect(
        &self,
        user: &UserName,
        vhost: &VhostName,
        of_vhost: usize,
        of_user: usize,
    ) -> Result<(), Refusal> {
        if let Some(limit) = self.vhost_limits(vhost).connections.filter(|&limit| of_vhost as u64 >= limit) {
            return Err(Refusal::VhostFull { vhost: vhost.clone(), user: user.clone(), limit });
        }
        if let Some(limit) = self.user_limits(user).connections.filter(|&limit| of_user as u64 >= limit) {
            return Err(Refusal::UserFull { user: user.clone(), limit });
        }
        Ok(())
    }

    /// Whether one more queue may be declared in a vhost, `leaving` of whose queues are on their way out.
    pub fn may_add_queue(&self, vhost: &Vhost, queue: &str, leaving: usize) -> Result<(), Refusal> {
        let count = vhost.queue_count().saturating_sub(leaving) as u64;
        match self.vhost_limits(vhost.name()).queues.filter(|&limit| count >= limit) {
            None => Ok(()),
            Some(limit) => Err(Refusal::QueueLimit { queue: queue.into(), vhost: vhost.name().clone(), limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_many_is_told_which_limit() {
        let mut access = Access::default();
        let (user, vhost) = (UserName::from("u"), VhostName::from("v"));
        assert!(access.may_connect(&user, &vhost, 1_000_000, 1_000_000).is_ok());
        let of_vhost = VhostLimits { connections: Some(2), queues: None };
        let of_user = UserLimits { connections: Some(0), channels: None };
        assert!(access.set_vhost_limits(vhost.clone(), of_vhost) && !access.set_vhost_limits(vhost.clone(), of_vhost));
        assert!(access.may_connect(&user, &vhost, 1, 0).is_ok());
        assert!(access.set_user_limits(user.clone(), of_user));
        let text = |of_vhost| access.may_connect(&user, &vhost, of_vhost, 0).unwrap_err().reply().text;
        assert_eq!(text(2), "NOT_ALLOWED - access to vhost 'v' refused for user 'u': connection limit (2) is reached");
        assert_eq!(text(1), "NOT_ALLOWED - connection refused for user 'u': user connection limit (0) is reached");
    }

    #[test]
    fn limits_that_limit_nothing_are_not_kept() {
        let mut access = Access::default();
        access.set_vhost_limits("v".into(), VhostLimits { connections: Some(1), queues: None });
        assert_eq!(access.all_vhost_limits().count(), 1);
        assert!(access.set_vhost_limits("v".into(), VhostLimits::default()));
        assert_eq!(access.all_vhost_limits().count(), 0);
    }
}
