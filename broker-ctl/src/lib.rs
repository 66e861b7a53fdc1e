//! `brokerctl`: what an operator does with a running broker, through the admin service on its Unix socket.
//!
//! - [`args`]: nouns and verbs; [`run`] carries them out;
//! - [`compat`]: the same work in the old words of `rabbitmqctl`;
//! - [`client`]: the service; [`rows`]: its lists as tables; [`table`]: tables as text and JSON;
//! - [`cluster`]: nodes that join, leave and wait for each other;
//! - [`exit`]: exit codes.

pub mod args;
pub mod client;
pub mod cluster;
pub mod compat;
pub mod exit;
pub mod fields;
pub mod policy;
pub mod rows;
pub mod run;
pub mod table;
