//! Crashes under load: what was confirmed must be there afterwards, once, in order, and nothing else.
//!
//! One [`Campaign`] keeps one data directory over many rounds. A round loads the broker, strikes at a random moment, starts it again
//! (sometimes to strike a second time while it drains), drains every queue and hands the [`history`](History) to the checker.

mod campaign;
mod checker;
mod fault;
mod history;
mod load;
mod message;

pub use campaign::{Campaign, Outcome, RoundReport};
pub use fault::{Fault, KillNine, PowerCut};
pub use history::History;
