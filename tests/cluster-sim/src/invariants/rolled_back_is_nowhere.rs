//! What was published in a transaction comes to nobody unless its commit was asked for. (What was committed counts as confirmed.)

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for delivery in &history.deliveries {
        let (publisher, count) = delivery.message;
        if history.withheld.contains(&format!("{publisher}.{count}")) {
            let (consumer, queue) = (delivery.consumer, &delivery.queue);
            return Err(format!(
                "client {consumer} had message {count} of client {publisher} from {queue}, which was not committed"
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
    fn a_message_that_was_not_committed_is_seen() {
        let delivery = |message| Delivery { consumer: 7, queue: "s1".into(), message, redelivered: false };
        let mut history = History::default();
        history.withheld.insert("1.2".into());
        history.deliveries.extend([delivery((1, 1)), delivery((12, 2))]);
        assert_eq!(check(&history), Ok(()));
        history.deliveries.push(delivery((1, 2)));
        assert!(check(&history).is_err());
    }
}
