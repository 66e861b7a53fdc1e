//! Whole nodes of a cluster under seeds: what brokerd's nodes have to do with each other, unchanged, in one thread, in simulated time and over a simulated network.
//!
//! See docs/internals/cluster-simulation.md. Everything random in the process follows from the seed, so a process lives through one seed only.

pub mod broken;
pub mod history;
pub mod invariants;
mod links;
mod net;
mod node;
mod random;
pub mod world;
