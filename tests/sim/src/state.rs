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
//! A life that fails is lived again with fewer and fewer operations; those that are needed are told, and how to do them again.
//!
//! What is not here: which text a refusal has (`tests/access`, `tests/conformance`); what clients say on channels, as limits that consumers share,
//! transactions, hidden copies and direct replies (`broker-amqp`, `tests/e2e`); default types of queues and runtime parameters (`broker-meta`);
//! passwords (`broker-core`); crashes, and what a restart finds on the disk (the module `store`). Queues that page out have one priority and no
//! dead letters, for what they do then does not depend on when the disk answers. Where a message goes from an exchange that chooses is checked
//! against what may be: for a hash, that only changed bindings change it.

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
