//! A persistent message that was confirmed and went to a durable queue is acknowledged by a consumer once all queues have been emptied, unless a node on which
//! the queue has lived lost its disk.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for ((name, queue), message) in &history.messages {
        if !message.confirmed || message.returned || message.acknowledged {
            continue;
        }
        let homes = history.homes.get(queue);
        if homes.is_none_or(|homes| homes.is_disjoint(&history.emptied)) {
            return Err(format!("message {name} in {queue} was confirmed, and is gone"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Message;

    #[test]
    fn a_confirmed_message_that_is_gone_is_seen() {
        let confirmed = || Message { confirmed: true, ..Message::default() };
        let of = |name: &str, queue: &str| (name.to_owned(), queue.to_owned());
        let mut history = History::default();
        history.messages.insert(of("1.1", "q"), Message { acknowledged: true, ..confirmed() });
        history.messages.insert(of("1.2", "q"), Message::default());
        history.messages.insert(of("1.3", "q"), Message { returned: true, ..confirmed() });
        history.messages.insert(of("1.4", "lost"), confirmed());
        history.homes.insert("q".into(), [1].into());
        history.homes.insert("lost".into(), [1, 2].into());
        history.emptied.insert(2);
        assert_eq!(check(&history), Ok(()));
        history.messages.insert(of("1.4", "q"), confirmed());
        assert!(check(&history).is_err());
    }
}
