//! Recent-history exchanges: like fanout, and a queue that is newly bound gets the last messages. In memory only, as in RabbitMQ.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::field_table::{FieldTable, Value};
use crate::message::Message;
use crate::name::{ExchangeName, VhostName};
use crate::refusal::Refusal;

/// Messages an exchange keeps if it does not say how many.
const LENGTH_DEFAULT: usize = 20;
/// An exchange keeps no more messages than this, whatever it says.
pub const HISTORY_MAX_MESSAGES: usize = 10_000;
/// Nor do its messages take more memory than this.
pub const HISTORY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// All exchanges together keep no more than this; beyond it the longest history gets shorter.
pub const HISTORIES_MAX_BYTES: usize = 32 * 1024 * 1024;

const LENGTH: &str = "x-recent-history-length";
const NO_STORE: &[u8] = b"x-recent-history-no-store";

/// The last messages of all recent-history exchanges of a node.
#[derive(Debug, Default)]
pub struct Histories {
    by_exchange: HashMap<Place, History, foldhash::quality::RandomState>,
    by_bytes: BTreeSet<(usize, Place)>,
    bytes: usize,
}

type Place = Arc<(VhostName, ExchangeName)>;

#[derive(Debug, Default)]
struct History {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Histories {
    /// Keeps a message that came through an exchange, of which that one keeps `length`.
    pub fn keep(&mut self, vhost: &VhostName, exchange: &ExchangeName, length: usize, message: Message) {
        let bytes = message.memory();
        if bytes > HISTORY_MAX_BYTES || length == 0 {
            return;
        }
        let place = Arc::new((vhost.clone(), exchange.clone()));
        self.change(&place, |history| {
            history.bytes += bytes;
            history.messages.push_back(message);
            while history.messages.len() > length.min(HISTORY_MAX_MESSAGES) || history.bytes > HISTORY_MAX_BYTES {
                history.shorten();
            }
        });
        while self.bytes > HISTORIES_MAX_BYTES {
            let Some((_, longest)) = self.by_bytes.last().cloned() else { return };
            self.change(&longest, History::shorten);
        }
    }

    /// What an exchange has kept, oldest first.
    pub fn recall(&self, vhost: &VhostName, exchange: &ExchangeName) -> Vec<Message> {
        let place = (vhost.clone(), exchange.clone());
        self.by_exchange.get(&place).map(|history| history.messages.iter().cloned().collect()).unwrap_or_default()
    }

    /// The exchange is gone.
    pub fn forget(&mut self, vhost: &VhostName, exchange: &ExchangeName) {
        let place = Arc::new((vhost.clone(), exchange.clone()));
        self.change(&place, |history| *history = History::default());
    }

    /// The vhost is gone.
    pub fn forget_vhost(&mut self, vhost: &VhostName) {
        let places: Vec<Place> = self.by_exchange.keys().filter(|place| place.0 == *vhost).cloned().collect();
        for place in places {
            self.change(&place, |history| *history = History::default());
        }
    }

    /// Changes one history and what is counted of all.
    fn change(&mut self, place: &Place, change: impl FnOnce(&mut History)) {
        let mut history = match self.by_exchange.remove(place) {
            Some(history) => {
                self.by_bytes.remove(&(history.bytes, place.clone()));
                history
            }
            None => History::default(),
        };
        self.bytes -= history.bytes;
        change(&mut history);
        self.bytes += history.bytes;
        if !history.messages.is_empty() {
            self.by_bytes.insert((history.bytes, place.clone()));
            self.by_exchange.insert(place.clone(), history);
        }
    }
}

impl History {
    fn shorten(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            self.bytes -= oldest.memory();
        }
    }
}

/// How many messages an exchange with these arguments keeps.
pub(crate) fn length(arguments: FieldTable<'_>) -> usize {
    let length = arguments.lookup(LENGTH.as_bytes()).and_then(|value| value.integer());
    length.map_or(LENGTH_DEFAULT, |length| usize::try_from(length).unwrap_or(HISTORY_MAX_MESSAGES))
}

/// Whether a message with these headers is kept.
pub(crate) fn is_kept(headers: Option<FieldTable<'_>>) -> bool {
    headers.and_then(|headers| headers.lookup(NO_STORE)) != Some(Value::Bool(true))
}

/// The refusal for arguments a recent-history exchange is declared with.
pub(super) fn check_arguments(arguments: FieldTable<'_>) -> Result<(), Refusal> {
    match arguments.lookup(LENGTH.as_bytes()) {
        Some(value) if value.integer().is_none_or(|length| length < 1) => Err(Refusal::OfExchangeType(format!(
            "Invalid argument {}, '{LENGTH}' must be a positive integer",
            value.as_erlang()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::field_table::TableBuilder;

    fn message(number: u8, size: usize) -> Message {
        Message::new(b"\x01x\x01k", &[0; 14], &vec![number; size], false, &mut Vec::new()).unwrap()
    }

    fn first_octets(messages: &[Message]) -> Vec<u8> {
        messages.iter().map(|message| message.body().next().unwrap()[0]).collect()
    }

    #[test]
    fn the_last_messages_are_kept_in_order() {
        let (vhost, one, two) = ("/".into(), "one".into(), "two".into());
        let mut histories = Histories::default();
        for number in 0..5 {
            histories.keep(&vhost, &one, 3, message(number, 1));
        }
        histories.keep(&vhost, &two, 3, message(9, 1));
        assert_eq!(first_octets(&histories.recall(&vhost, &one)), [2, 3, 4]);
        assert_eq!(first_octets(&histories.recall(&vhost, &two)), [9]);
        histories.forget(&vhost, &one);
        assert!(histories.recall(&vhost, &one).is_empty());
        assert_eq!(first_octets(&histories.recall(&vhost, &two)), [9]);
        histories.forget_vhost(&"other".into());
        assert_eq!(histories.by_exchange.len(), 1);
        histories.forget_vhost(&vhost);
        assert!(histories.by_exchange.is_empty() && histories.by_bytes.is_empty() && histories.bytes == 0);
    }

    #[test]
    fn memory_is_bounded_for_one_and_for_all() {
        const MIB: usize = 1024 * 1024;
        let vhost = "/".into();
        let mut histories = Histories::default();
        for number in 0..20 {
            histories.keep(&vhost, &"large".into(), 1000, message(number, MIB));
        }
        histories.keep(&vhost, &"large".into(), 1000, message(99, HISTORY_MAX_BYTES));
        let kept = histories.recall(&vhost, &"large".into());
        assert_eq!(first_octets(&kept), [13, 14, 15, 16, 17, 18, 19]);
        for exchange in 0..100 {
            histories.keep(&vhost, &format!("x{exchange}").as_str().into(), 5, message(exchange, MIB));
            assert!(histories.bytes <= HISTORIES_MAX_BYTES);
        }
        // The longest gave way to the others, each of which is left one.
        assert!(histories.recall(&vhost, &"large".into()).len() <= 1);
        for number in 0..200 {
            histories.keep(&vhost, &"many".into(), usize::MAX, message(number, 0));
        }
        assert_eq!(histories.recall(&vhost, &"many".into()).len(), 200);
    }

    #[test]
    fn lengths_are_positive_integers() {
        let table = |value| TableBuilder::default().with(LENGTH, value).arguments();
        assert_eq!(length(FieldTable::EMPTY), 20);
        assert_eq!(length(table(Value::UInt8(3)).table()), 3);
        assert_eq!(check_arguments(table(Value::Int64(1 << 40)).table()), Ok(()));
        for (value, shown) in [
            (Value::Int8(0), "0"),
            (Value::Int64(-1), "-1"),
            (Value::LongString(b"5"), "<<\"5\">>"),
            (Value::Void, "undefined"),
            (Value::Bool(true), "true"),
            (Value::Timestamp(7), "7"),
        ] {
            let text = check_arguments(table(value).table()).unwrap_err().reply().text;
            let expected = format!("Invalid argument {shown}, 'x-recent-history-length' must be a positive integer");
            assert_eq!(text, format!("PRECONDITION_FAILED - {expected}"));
        }
    }

    #[test]
    fn only_true_keeps_a_message_out() {
        let kept =
            |value| is_kept(Some(TableBuilder::default().with("x-recent-history-no-store", value).arguments().table()));
        assert!(!kept(Value::Bool(true)));
        assert!(kept(Value::Bool(false)) && kept(Value::Int8(1)) && kept(Value::LongString(b"true")) && is_kept(None));
    }

    proptest! {
        #[test]
        fn counts_stay_right(steps in prop::collection::vec((0..4_u8, 0..6_usize, 0..50_usize), 0..60)) {
            let vhost = "/".into();
            let mut histories = Histories::default();
            for (exchange, length, size) in steps {
                let exchange = ExchangeName::from(format!("x{exchange}"));
                match size {
                    0 => histories.forget(&vhost, &exchange),
                    _ => histories.keep(&vhost, &exchange, length, message(1, size)),
                }
                prop_assert!(length == 0 || size == 0 || histories.recall(&vhost, &exchange).len() <= length);
                let total: usize = histories.by_exchange.values().map(|history| history.bytes).sum();
                let recounted: usize =
                    histories.by_exchange.values().flat_map(|history| &history.messages).map(Message::memory).sum();
                prop_assert_eq!((histories.bytes, recounted), (total, total));
                prop_assert_eq!(histories.by_bytes.len(), histories.by_exchange.len());
            }
        }
    }
}
