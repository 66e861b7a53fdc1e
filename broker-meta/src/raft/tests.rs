//! The log under openraft's own suite, and clusters in one process whose network is cut, slow and lossy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod cluster_of_nodes;
mod faults;
mod forced;
mod log;
mod octets;
mod senseless;
