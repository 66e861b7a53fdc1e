//! Names, messages, exchanges, topology, queues and the message store: what every other floor stands on.
//!
//! Everything outside [`store`] is pure: no I/O, no clock, no randomness. A driver hands in the time and the inputs and carries out the outputs.

pub mod access;
pub mod arguments;
pub mod dead_letter;
pub mod exchange;
pub mod field_table;
pub mod message;
pub mod name;
pub mod policy;
pub mod properties;
pub mod queue;
pub mod refusal;
pub mod secret;
pub mod store;
pub mod topology;
pub mod window;
