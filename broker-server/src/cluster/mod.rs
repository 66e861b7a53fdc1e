//! The part of a node that has to do with other nodes. Not used yet.

pub mod secret;
