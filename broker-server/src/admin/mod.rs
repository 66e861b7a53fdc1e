//! What an operator has done from outside: definitions files imported, and the admin service.

mod cluster;
pub mod definitions;
pub mod here;
pub mod import;
pub mod lists;
pub mod precheck;
mod queues;
mod server;
mod service;
mod shard;

pub use server::{Node, serve};
pub use shard::ShardHandle;
