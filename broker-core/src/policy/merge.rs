//! What arguments, policy and operator policy come to together: of numbers the lowest counts, of everything else the argument before the
//! policy. An operator policy has numbers only.

use std::collections::BTreeMap;

use super::{Governing, PolicyValue};
use crate::arguments::{ALTERNATE_EXCHANGE, Overflow, QueueArguments};
use crate::field_table::FieldTable;

impl Governing {
    /// The settings of a queue with these arguments. `declared` is what they were read to.
    pub(crate) fn settings(&self, arguments: FieldTable<'_>, declared: QueueArguments) -> QueueArguments {
        if self.is_empty() {
            return declared;
        }
        let said = |argument: &str| arguments.lookup(argument.as_bytes()).is_some();
        QueueArguments {
            message_ttl_ms: self.lowest(declared.message_ttl_ms, "message-ttl"),
            expires_ms: self.lowest(declared.expires_ms, "expires"),
            max_length: self.lowest(declared.max_length, "max-length"),
            max_length_bytes: self.lowest(declared.max_length_bytes, "max-length-bytes"),
            delivery_limit: self.lowest(declared.delivery_limit, "delivery-limit"),
            dead_letter_exchange: declared
                .dead_letter_exchange
                .or_else(|| self.text("dead-letter-exchange").map(Into::into)),
            dead_letter_routing_key: declared
                .dead_letter_routing_key
                .or_else(|| self.text("dead-letter-routing-key").map(|key| key.as_bytes().to_vec())),
            overflow: match self.text("overflow") {
                Some(name) if !said("x-overflow") => Overflow::parse(name.as_bytes()).unwrap_or_default(),
                _ => declared.overflow,
            },
            lazy: match self.text("queue-mode") {
                Some(mode) if !said("x-queue-mode") => mode == "lazy",
                _ => declared.lazy,
            },
            queue_type: declared.queue_type,
            max_priority: declared.max_priority,
            single_active_consumer: declared.single_active_consumer,
        }
    }

    /// What both policies say together, sorted by key: where both name a number, the lower one.
    pub fn effective(&self) -> Vec<(&str, PolicyValue)> {
        let mut said: BTreeMap<&str, PolicyValue> = BTreeMap::new();
        for (key, value) in
            [&self.policy, &self.operator].into_iter().flatten().flat_map(|policy| policy.definition().iter())
        {
            let lower = match (said.get(key), value) {
                (Some(PolicyValue::Number(held)), PolicyValue::Number(number)) => {
                    PolicyValue::Number(*held.min(number))
                }
                _ => value.clone(),
            };
            said.insert(key, lower);
        }
        said.into_iter().collect()
    }

    /// The exchange that shall get what another could not route.
    pub(crate) fn alternate_exchange(&self) -> Option<&str> {
        self.text(ALTERNATE_EXCHANGE)
    }

    fn lowest(&self, argument: Option<u64>, key: &str) -> Option<u64> {
        let policies = [&self.policy, &self.operator].into_iter().flatten();
        argument.into_iter().chain(policies.filter_map(|policy| policy.definition().number(key))).min()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.policy.as_ref()?.definition().text(key)
    }
}
