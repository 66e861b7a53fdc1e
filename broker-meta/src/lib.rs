//! The catalog: every change of metadata is a command applied by a pure function.
//!
//! - [`Catalog`]: the state and [`Catalog::apply`], the only way it changes;
//! - [`command`]: what can be asked of it;
//! - [`log`]: where commands are kept on a single node, so that the catalog comes back after a restart;
//! - [`raft`]: where they are kept in a cluster, in one order on all its nodes;
//! - [`peer`]: who another node is, before anything else is said to it;
//! - [`membership`]: which nodes answer, and what they say of themselves..
//!
//! Whoever routes, checks or authorizes reads the immutable snapshots [`Catalog::topology`] and [`Catalog::access`].

pub mod catalog;
pub mod command;
pub mod log;
pub mod membership;
pub mod peer;
pub mod raft;

pub use catalog::{Catalog, CatalogEvent, ParameterKey, Parameters};
pub use command::Command;
pub use log::{LocalCatalog, LogError, Recovery};
