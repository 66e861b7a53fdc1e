//! Changes of policies: each puts those queues and exchanges under other policies that the policy governed, or governs now, and no others.

use std::sync::Arc;

use super::{Change, ExchangeRecord, QueueRecord, Topology, Vhost};
use crate::policy::Policy;

impl Topology {
    /// Sets a policy in its vhost, or replaces the one of its name. `false` if the vhost is missing.
    pub fn put_policy(&mut self, policy: Policy, changes: &mut Vec<Change>) -> bool {
        let policy = Arc::new(policy);
        let Some(vhost) = self.vhost_to_change(policy.vhost()) else { return false };
        let replaced = vhost.policies.put(policy.clone());
        let queues = vhost.govern(replaced.as_ref(), Some(&policy));
        self.change_queues(policy.vhost(), queues, changes);
        true
    }

    /// Removes a policy. `false` if there is none of that name.
    pub fn remove_policy(&mut self, vhost: &str, name: &str, operator: bool, changes: &mut Vec<Change>) -> bool {
        if self.vhost(vhost).is_none_or(|vhost| vhost.policies.get(name, operator).is_none()) {
            return false;
        }
        let Some(state) = self.vhost_to_change(vhost) else { return false };
        let removed = state.policies.remove(name, operator);
        let queues = state.govern(removed.as_ref(), None);
        self.change_queues(vhost, queues, changes);
        true
    }

    /// Puts records in the place of those with the same identity.
    fn change_queues(&mut self, vhost: &str, records: Vec<Arc<QueueRecord>>, changes: &mut Vec<Change>) {
        let Some(vhost) = self.vhosts.get_mut(vhost).map(Arc::make_mut) else { return };
        for record in records {
            vhost.queues.insert(record.name.clone(), record.clone());
            self.queues.insert(record.id, record.clone());
            changes.push(Change::QueueGoverned(record));
        }
    }
}

impl Vhost {
    /// Looks again at what governs the exchanges that one of two policies, gone and come, has to do with, and returns the queues of which
    /// something is different, ordered by identity.
    fn govern(&mut self, gone: Option<&Arc<Policy>>, come: Option<&Arc<Policy>>) -> Vec<Arc<QueueRecord>> {
        let exchanges: Vec<ExchangeRecord> =
            self.exchanges().filter_map(|record| self.exchange_governed(record, gone, come)).collect();
        for record in exchanges {
            if let Some(exchange) = self.exchanges.get_mut(&record.name).map(Arc::make_mut) {
                exchange.record = Arc::new(record);
            }
        }
        let mut queues: Vec<Arc<QueueRecord>> =
            self.queues().filter_map(|record| self.queue_governed(record, gone, come)).collect();
        queues.sort_unstable_by_key(|record| record.id);
        queues
    }

    fn queue_governed(
        &self,
        record: &QueueRecord,
        gone: Option<&Arc<Policy>>,
        come: Option<&Arc<Policy>>,
    ) -> Option<Arc<QueueRecord>> {
        let queue_type = record.queue_type();
        let concerned = gone.is_some_and(|policy| record.policies.includes(policy))
            || come.is_some_and(|policy| policy.matches_queue(&record.name, queue_type));
        if !concerned {
            return None;
        }
        let policies = self.policies.of_queue(&record.name, queue_type);
        (!policies.is_same(&record.policies)).then(|| Arc::new(QueueRecord { policies, ..record.clone() }))
    }

    fn exchange_governed(
        &self,
        record: &ExchangeRecord,
        gone: Option<&Arc<Policy>>,
        come: Option<&Arc<Policy>>,
    ) -> Option<ExchangeRecord> {
        let concerned = gone.is_some_and(|policy| record.policies.includes(policy))
            || come.is_some_and(|policy| policy.matches_exchange(&record.name));
        if !concerned {
            return None;
        }
        let policies = self.policies.of_exchange(&record.name);
        (!policies.is_same(&record.policies)).then(|| ExchangeRecord { policies, ..record.clone() })
    }
}
