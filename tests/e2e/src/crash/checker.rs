//! Holds a history against what a broker promises about confirmed, persistent messages.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::history::{Attempt, Delivery, Fate, History};
use super::message::MessageId;

/// An acknowledgement this much older than a fault must have taken effect.
const ACK_GRACE: Duration = Duration::from_millis(500);

/// Every broken promise, in words. Empty for a correct broker.
pub fn violations(history: &History, round: u32) -> Vec<String> {
    let index = Index::new(history);
    let mut found: Vec<String> = history.client_errors.iter().map(|error| format!("client error: {error}")).collect();
    found
        .extend(history.left_over.iter().map(|(queue, count)| format!("queue {queue} counts {count} after its drain")));
    for attempt in &history.attempts {
        check_attempt(attempt, &index, &mut found);
    }
    for delivery in &history.deliveries {
        check_delivery(delivery, round, history, &index, &mut found);
    }
    for ((id, queue), deliveries) in &index.deliveries {
        let first = deliveries.iter().filter(|delivery| !delivery.redelivered).count();
        if first > 1 {
            found.push(format!("illegal duplicate: {id} came {first} times unflagged from queue {queue}"));
        }
    }
    check_order(history, &mut found);
    found
}

/// Attempts and deliveries by what they are about.
struct Index<'a> {
    attempts: HashMap<MessageId, &'a Attempt>,
    deliveries: HashMap<(MessageId, u8), Vec<&'a Delivery>>,
}

impl<'a> Index<'a> {
    fn new(history: &'a History) -> Self {
        let attempts = history.attempts.iter().map(|attempt| (attempt.id, attempt)).collect();
        let mut deliveries: HashMap<(MessageId, u8), Vec<&Delivery>> = HashMap::new();
        for delivery in &history.deliveries {
            if let Some(id) = delivery.id {
                deliveries.entry((id, delivery.queue)).or_default().push(delivery);
            }
        }
        Index { attempts, deliveries }
    }
}

/// A confirmed message was acknowledged by us out of each of its queues: what came but was not acknowledged when the broker was
/// struck has to come again.
fn check_attempt(attempt: &Attempt, index: &Index<'_>, found: &mut Vec<String>) {
    let id = attempt.id;
    match attempt.fate {
        Fate::Refused => found.push(format!("refused: {id} was answered with basic.nack")),
        Fate::Unknown => {}
        Fate::Confirmed => {
            for queue in attempt.route.queues() {
                let deliveries = index.deliveries.get(&(id, queue)).map_or(&[][..], Vec::as_slice);
                if !deliveries.iter().any(|delivery| delivery.acknowledged) {
                    let count = deliveries.len();
                    found.push(format!(
                        "lost: {id} was confirmed; queue {queue} delivered it {count} times, none acknowledged"
                    ));
                }
            }
        }
    }
}

fn check_delivery(delivery: &Delivery, round: u32, history: &History, index: &Index<'_>, found: &mut Vec<String>) {
    let queue = delivery.queue;
    let Some(id) = delivery.id else {
        found.push(format!("corrupt: queue {queue} delivered a body that nobody published"));
        return;
    };
    match index.attempts.get(&id) {
        Some(attempt) if attempt.route.queues().contains(&queue) => {}
        Some(_) => found.push(format!("wrong queue: {id} came from queue {queue}")),
        None if id.round < round => {
            found.push(format!("resurrected: {id} was drained in its round, queue {queue} has it again"))
        }
        None => found.push(format!("unexpected: {id} was never published, queue {queue} delivered it")),
    }
    let earlier = index.deliveries.get(&(id, queue)).into_iter().flatten();
    if let Some(late) = earlier.filter_map(|other| too_late(delivery, other.settled_at?, history)).max() {
        let which = format!("{id} came again from queue {queue}");
        found.push(format!("resurrected: {which}; its acknowledgement had had {late:?} to take effect"));
    }
}

/// How long an acknowledgement read at `settled` had had to take effect, if it was long enough to make `delivery` wrong: until the
/// next fault, or for ever where there was none.
fn too_late(delivery: &Delivery, settled: Instant, history: &History) -> Option<Duration> {
    if delivery.at <= settled {
        return None;
    }
    let faults = history.faults.iter().filter(|(_, gone)| *gone > settled && *gone < delivery.at);
    match faults.map(|(begun, _)| *begun).min() {
        Some(begun) => Some(begun.saturating_duration_since(settled)).filter(|had| *had > ACK_GRACE),
        None => Some(delivery.at.duration_since(settled)),
    }
}

/// First deliveries to one consumer are in publish order per producer; a drain sees everything in that order.
fn check_order(history: &History, found: &mut Vec<String>) {
    let mut last: HashMap<(u32, u8, u32), u64> = HashMap::new();
    for delivery in &history.deliveries {
        let Some(id) = delivery.id else { continue };
        if delivery.redelivered && !history.draining_sessions.contains(&delivery.session) {
            continue;
        }
        let previous = last.insert((delivery.session, delivery.queue, id.producer), id.sequence);
        if let Some(previous) = previous.filter(|previous| *previous >= id.sequence) {
            found.push(format!("order: {id} came from queue {} after message {previous}", delivery.queue));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Route;
    use super::*;

    /// A round in which message 0 and 1 go to queue 0, are confirmed, delivered and acknowledged.
    fn sound() -> History {
        let start = Instant::now();
        let id = |sequence| MessageId { round: 1, producer: 0, sequence };
        let attempt = |sequence| Attempt { id: id(sequence), route: Route::Queue(0), fate: Fate::Confirmed };
        let delivery = |sequence| Delivery {
            queue: 0,
            session: 0,
            id: Some(id(sequence)),
            redelivered: false,
            at: start + Duration::from_millis(sequence),
            acknowledged: true,
            settled_at: Some(start + Duration::from_millis(10)),
        };
        History {
            attempts: vec![attempt(0), attempt(1)],
            deliveries: vec![delivery(0), delivery(1)],
            faults: vec![(start + Duration::from_secs(5), start + Duration::from_millis(5_500))],
            ..History::default()
        }
    }

    fn one_violation(beginning: &str, change: impl FnOnce(&mut History)) {
        let mut history = sound();
        change(&mut history);
        let found = violations(&history, 1);
        assert!(found.len() == 1 && found[0].starts_with(beginning), "{beginning}: {found:?}");
    }

    /// Message 0 again, `after_seconds` later.
    fn again(history: &History, after_seconds: u64, redelivered: bool) -> Delivery {
        let first = history.deliveries[0];
        Delivery {
            at: first.at + Duration::from_secs(after_seconds),
            redelivered,
            session: 1,
            settled_at: None,
            ..first
        }
    }

    #[test]
    fn a_sound_history_passes() {
        assert_eq!(violations(&sound(), 1), Vec::<String>::new());
    }

    #[test]
    fn a_flagged_duplicate_whose_ack_was_not_settled_passes() {
        let mut history = sound();
        history.deliveries[0].settled_at = None;
        history.deliveries.push(again(&history, 6, true));
        assert_eq!(violations(&history, 1), Vec::<String>::new());
    }

    #[test]
    fn an_acknowledgement_read_while_the_broker_was_being_struck_may_be_lost() {
        let mut history = sound();
        history.deliveries[0].settled_at = Some(history.faults[0].0 + Duration::from_millis(100));
        history.deliveries.push(again(&history, 6, true));
        assert_eq!(violations(&history, 1), Vec::<String>::new());
    }

    #[test]
    fn an_answer_that_was_read_after_the_broker_was_gone_had_been_sent_before() {
        let mut history = sound();
        let (begun, gone) = history.faults[0];
        let mut read = std::mem::take(&mut history.deliveries);
        for delivery in &mut read {
            delivery.at = begun + Duration::from_millis(20) + delivery.at.duration_since(begun);
            delivery.settled_at = Some(gone + Duration::from_millis(5));
        }
        history.add_struck(read);
        assert_eq!(history.deliveries[0].settled_at, Some(begun));
        history.deliveries.push(again(&history, 7, true));
        assert_eq!(violations(&history, 1), Vec::<String>::new());
    }

    #[test]
    fn each_broken_promise_is_found() {
        one_violation("lost", |history| history.deliveries.truncate(1));
        one_violation("lost", |history| history.deliveries[1].acknowledged = false);
        one_violation("refused", |history| history.attempts[0].fate = Fate::Refused);
        one_violation("order", |history| history.deliveries.swap(0, 1));
        one_violation("client error", |history| history.client_errors.push("closed".into()));
        one_violation("queue 3", |history| history.left_over.push((3, 1)));
        one_violation("corrupt", |history| {
            let nobody = Delivery { id: None, ..again(history, 6, true) };
            history.deliveries.push(nobody);
        });
        one_violation("illegal duplicate", |history| {
            history.deliveries[0].settled_at = None;
            history.deliveries.push(again(history, 6, false));
        });
        one_violation("resurrected", |history| history.deliveries.push(again(history, 6, true)));
        one_violation("resurrected", |history| history.deliveries.push(again(history, 1, true)));
        one_violation("unexpected", |history| {
            let id = MessageId { round: 1, producer: 7, sequence: 0 };
            history.deliveries.push(Delivery { id: Some(id), ..again(history, 6, false) });
        });
        one_violation("resurrected", |history| {
            let id = MessageId { round: 0, producer: 0, sequence: 0 };
            history.deliveries.push(Delivery { id: Some(id), ..again(history, 6, true) });
        });
    }

    #[test]
    fn a_message_in_a_queue_it_was_not_sent_to_is_found() {
        let mut history = sound();
        history.deliveries.push(Delivery { queue: 2, ..again(&history, 6, false) });
        assert!(violations(&history, 1).iter().any(|one| one.starts_with("wrong queue")));
    }
}
