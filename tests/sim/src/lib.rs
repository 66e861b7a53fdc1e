//! Queues, store and catalog under seeds and faults, against an oracle.
//!
//! Everything that happens follows from a seed: the same seed gives the same trace. `cargo test -p sim` runs some hundred seeds,
//! `cargo run -p sim --release -- store --seeds N` as many as wanted.

pub mod imports;
pub use harness::random;
pub mod state;
pub mod store;
pub mod tampered;
