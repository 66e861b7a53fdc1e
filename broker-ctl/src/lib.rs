//! `brokerctl`: what an operator does with a running broker, through its admin service.
//!
//! - [`args`]: nouns and verbs; [`run`] carries them out;
//! - [`compat`]: the same work in the old words of `rabbitmqctl`;
//! - [`target`]: which broker is meant, by [`contexts`] too, whose verbs are in [`context`]; [`remote`]: brokers elsewhere;
//! - [`client`]: the service; [`rows`]: its lists as tables; [`table`]: tables as text and JSON;
//! - [`check`]: whether a node is as it should be;
//! - [`cluster`]: nodes that join, leave and wait for each other;
//! - [`exit`]: exit codes.

pub mod args;
pub mod check;
pub mod client;
pub mod cluster;
pub mod compat;
pub mod context;
pub mod contexts;
pub mod exit;
pub mod fields;
pub mod policy;
pub mod remote;
pub mod rows;
pub mod run;
pub mod table;
pub mod target;
