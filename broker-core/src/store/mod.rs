//! The message store, and the only place of this crate that touches files.

pub mod disk;
mod error;
mod ids;

pub use error::StoreError;
pub use ids::{QueueId, RunId, Seq};
