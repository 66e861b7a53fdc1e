//! What one channel publishes to a queue comes in that order to a consumer, wherever the three of them are; what is delivered again may come later.
//!
//! Of a queue that several take from it is not asked: what was on its way to one that is gone comes back without a mark, behind what another has had.

use std::collections::BTreeMap;

use crate::history::History;

/// See the module's page. A publisher here has one channel.
pub fn check(history: &History) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for delivery in
        history.deliveries.iter().filter(|delivery| !delivery.redelivered && has_one_consumer(&delivery.queue))
    {
        let (publisher, count) = delivery.message;
        let before = last.insert((delivery.consumer, publisher), count).unwrap_or(0);
        if before >= count {
            let consumer = delivery.consumer;
            return Err(format!("client {consumer} had message {count} of client {publisher} after message {before}"));
        }
    }
    Ok(())
}

/// Whether one client at a time takes from a queue.
fn has_one_consumer(queue: &str) -> bool {
    queue.starts_with('q')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Delivery;

    #[test]
    fn a_message_that_overtakes_another_is_seen() {
        let of = |queue: &str, consumer, count, redelivered| Delivery {
            consumer,
            queue: queue.into(),
            message: (1, count),
            redelivered,
        };
        let delivery = |consumer, count, redelivered| of("q1", consumer, count, redelivered);
        let mut history = History::default();
        history.deliveries.extend([delivery(7, 1, false), delivery(7, 4, false), delivery(7, 2, true)]);
        history.deliveries.extend([delivery(8, 3, false), delivery(8, 5, false)]);
        history.deliveries.extend([of("s1", 9, 2, false), of("s1", 9, 1, false)]);
        assert_eq!(check(&history), Ok(()));
        history.deliveries.push(delivery(7, 3, false));
        assert!(check(&history).is_err());
    }
}
