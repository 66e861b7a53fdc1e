//! Whole nodes of a cluster under seeds: what brokerd's nodes have to do with each other, unchanged, in one thread, in simulated time and over a simulated network.
//!
//! See docs/internals/cluster-simulation.md. Everything random in the process follows from the seed, so a process lives through one seed only.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, io};

pub mod broken;
mod client;
mod crowd;
pub mod history;
pub mod invariants;
mod net;
mod node;
mod role;
mod serving;
mod socket;
pub mod world;

/// Has the program of this crate live through a seed, in a process of its own; with more arguments of `one`, if any.
///
/// # Errors
/// It could not be started.
pub fn in_a_process(program: &Path, seed: u64, more: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg("one").arg(seed.to_string()).args(more).env("RUST_BACKTRACE", "0");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let disks = disks_of(child.id());
    let output = child.wait_with_output()?;
    drop(fs::remove_dir_all(disks));
    Ok(output)
}

/// Where the nodes of a process have their disks: in memory, if there is such a place. Whoever started the process removes it, for brokerd's code may end it.
pub fn disks_of(process: u32) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let root = if memory.is_dir() { memory } else { std::env::temp_dir() };
    root.join(format!("cluster-sim-{process}"))
}
