//! What an operator has done from outside: definitions files imported, and the admin service.

mod caller;
mod cluster;
pub mod definitions;
mod front;
mod guard;
mod health;
pub mod here;
pub mod import;
pub mod lists;
mod login;
pub mod precheck;
mod queues;
mod remote;
pub mod rights;
mod seats;
mod server;
mod service;
mod shard;

pub use health::GoingDown;
pub use login::Logins;
pub use remote::{PROTOCOLS, RemoteDoor};
pub use server::{Node, Served, serve};
pub use shard::ShardHandle;
