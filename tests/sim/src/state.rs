//! Catalog, queues and access together under random operations, beside a model that says the same in maps and loops.
//!
//! A seed decides everything: which vhosts, users, exchanges, queues, bindings, policies and limits come and go, what is published, consumed,
//! settled and purged, and when time passes. After each operation both sides must have done the same: the same messages to the same consumers in
//! the same order, the same dead letters with the same history, the same publishes and commands refused, the same rights. What a queue leaves
//! behind that is emptied, and a broker that is emptied at the end of a life, must be nothing.
//!
//! The model (`model`, `queue_model`, `content`) shares with what it is beside the words only (reasons, outcomes, kinds of exchanges, the
//! list of what rules say) and calls nothing of it. `subject` is a queue with a store that answers it, `catalog`, `world` and `holders` do the same
//! on both sides and compare, `lives` counts and repeats.
//!
//! What is not here: which text a refusal has (`tests/access`, `tests/conformance`), limits that consumers of a channel share, transactions
//! and direct replies (`broker-amqp`, `tests/e2e`), passwords, and crashes (the module `store`).

mod catalog;
mod content;
mod holders;
mod lives;
mod model;
mod queue_model;
mod subject;
mod world;

pub use lives::{LIFE, run, run_only};
pub use world::Tally;
