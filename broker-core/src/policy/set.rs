//! The policies of a vhost, and which of them govern a queue or an exchange.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Policy;
use crate::arguments::QueueType;

/// A vhost may have this many policies, and as many operator policies.
pub const POLICIES_MAX: usize = 1_000;

/// All policies of a vhost. A copy costs two pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    ordinary: Ranked,
    operator: Ranked,
}

/// The policies that govern a queue or an exchange. They are shared with the vhost and with all others they govern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Governing {
    /// Of the policies that match, the one of highest priority.
    pub policy: Option<Arc<Policy>>,
    /// The same of the operator policies.
    pub operator: Option<Arc<Policy>>,
}

/// Policies in the order in which they are tried: by priority, highest first, then by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranked(Arc<Vec<Arc<Policy>>>);

impl Policies {
    /// The policy of that name.
    pub fn get(&self, name: &str, operator: bool) -> Option<&Arc<Policy>> {
        self.ranked(operator).0.iter().find(|policy| policy.name() == name)
    }

    /// Policies, then operator policies, each in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.ordinary.0.iter().chain(self.operator.0.iter())
    }

    /// Whether there is room for a policy: it replaces one of its name, or there are fewer than [`POLICIES_MAX`] of its kind.
    pub fn has_room_for(&self, policy: &Policy) -> bool {
        self.ranked(policy.operator()).0.len() < POLICIES_MAX || self.get(policy.name(), policy.operator()).is_some()
    }

    /// What governs a queue.
    pub fn of_queue(&self, name: &str, queue_type: QueueType) -> Governing {
        self.first(|policy| policy.matches_queue(name, queue_type))
    }

    /// What governs an exchange.
    pub fn of_exchange(&self, name: &str) -> Governing {
        self.first(|policy| policy.matches_exchange(name))
    }

    /// Adds a policy, or replaces the one of its name, which is returned.
    pub(crate) fn put(&mut self, policy: Arc<Policy>) -> Option<Arc<Policy>> {
        let replaced = self.remove(policy.name(), policy.operator());
        let ranked = Arc::make_mut(&mut self.ranked_mut(policy.operator()).0);
        let place = ranked.partition_point(|other| rank(other) < rank(&policy));
        ranked.insert(place, policy);
        replaced
    }

    /// Removes a policy.
    pub(crate) fn remove(&mut self, name: &str, operator: bool) -> Option<Arc<Policy>> {
        let ranked = self.ranked_mut(operator);
        let place = ranked.0.iter().position(|policy| policy.name() == name)?;
        Some(Arc::make_mut(&mut ranked.0).remove(place))
    }

    fn first(&self, matches: impl Fn(&Policy) -> bool) -> Governing {
        let first = |ranked: &Ranked| ranked.0.iter().find(|policy| matches(policy)).cloned();
        Governing { policy: first(&self.ordinary), operator: first(&self.operator) }
    }

    fn ranked(&self, operator: bool) -> &Ranked {
        if operator { &self.operator } else { &self.ordinary }
    }

    fn ranked_mut(&mut self, operator: bool) -> &mut Ranked {
        if operator { &mut self.operator } else { &mut self.ordinary }
    }
}

impl Governing {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.policy.is_none() && self.operator.is_none()
    }

    /// Whether this very policy is one of them.
    pub(crate) fn includes(&self, policy: &Arc<Policy>) -> bool {
        [&self.policy, &self.operator].into_iter().flatten().any(|held| Arc::ptr_eq(held, policy))
    }

    /// Whether the same policies govern, without a look inside.
    pub(crate) fn is_same(&self, other: &Governing) -> bool {
        let same = |one: &Option<Arc<Policy>>, other: &Option<Arc<Policy>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same(&self.policy, &other.policy) && same(&self.operator, &other.operator)
    }
}

fn rank(policy: &Policy) -> (Reverse<i64>, &str) {
    (Reverse(policy.priority()), policy.name())
}
