//! Whole nodes of a cluster under seeds: what brokerd's nodes have to do with each other, unchanged, in one thread, in simulated time and over a simulated network.
//!
//! See docs/internals/cluster-simulation.md. Everything random in the process follows from the seed, so a process lives through one seed only.

use std::path::PathBuf;

pub mod broken;
pub mod history;
pub mod invariants;
mod links;
mod net;
mod node;
pub mod world;

/// Where the nodes of a process have their disks: in memory, if there is such a place. Whoever started the process removes it, for brokerd's code may end it.
pub fn disks_of(process: u32) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let root = if memory.is_dir() { memory } else { std::env::temp_dir() };
    root.join(format!("cluster-sim-{process}"))
}
