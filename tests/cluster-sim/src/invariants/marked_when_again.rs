//! A message that a client has had from a queue is marked as redelivered when a client has it again, whoever the two are and wherever. It is marked at other
//! times, too.

use std::collections::BTreeMap;

use crate::history::History;

/// See the module's page. What comes without a mark is there for the first time, so it comes once; it may come behind what was marked, for another had it on
/// its way.
pub fn check(history: &History) -> Result<(), String> {
    let mut first = BTreeMap::new();
    for delivery in history.deliveries.iter().filter(|delivery| !delivery.redelivered) {
        let consumer = delivery.consumer;
        if let Some(before) = first.insert((&delivery.queue, delivery.message), consumer) {
            let ((publisher, count), queue) = (delivery.message, &delivery.queue);
            return Err(format!(
                "client {consumer} had message {count} of client {publisher} from {queue} without a mark, after client {before}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Delivery;

    #[test]
    fn a_message_that_comes_twice_without_a_mark_is_seen() {
        let delivery = |queue: &str, consumer, redelivered| Delivery {
            consumer,
            queue: queue.into(),
            message: (1, 1),
            redelivered,
        };
        let mut history = History::default();
        history.deliveries.extend([delivery("s1", 7, false), delivery("s2", 7, false), delivery("s1", 8, true)]);
        assert_eq!(check(&history), Ok(()));
        history.deliveries.push(delivery("s1", 7, false));
        assert!(check(&history).is_err());
    }
}
