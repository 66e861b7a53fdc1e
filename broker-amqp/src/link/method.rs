//! Numbers of the methods on a link, and the flags of those that carry a message.

pub(super) const PUBLISH: u16 = 10;
pub(super) const CONSUME: u16 = 20;
pub(super) const CANCEL: u16 = 21;
pub(super) const SETTLE: u16 = 22;
pub(super) const ROOM: u16 = 23;
pub(super) const GET: u16 = 24;
pub(super) const PURGE: u16 = 25;
pub(super) const COUNT: u16 = 26;
pub(super) const DELIVER: u16 = 30;
pub(super) const GOT: u16 = 31;
pub(super) const GOT_NOTHING: u16 = 32;
pub(super) const CONFIRMED: u16 = 33;
pub(super) const REFUSED: u16 = 34;
pub(super) const ANSWER: u16 = 35;
pub(super) const REFUSAL: u16 = 36;
pub(super) const CREDIT: u16 = 40;
pub(super) const APPLIED: u16 = 41;
pub(super) const ANNOUNCE: u16 = 42;
pub(super) const TALLY: u16 = 43;
pub(super) const KEPT: u16 = 44;
pub(super) const REPLY: u16 = 45;
pub(super) const REQUESTER: u16 = 46;

/// The message was published with delivery-mode 2.
pub(super) const PERSISTENT: u8 = 1;
/// Behind exchange and routing key come keys that nobody who receives the message may see.
pub(super) const HIDDEN_KEYS: u8 = 2;
/// The message may have been delivered before.
pub(super) const REDELIVERED: u8 = 4;
