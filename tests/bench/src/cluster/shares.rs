//! Each node with a part of the processors of its own, as on machines of their own: control groups of the kernel.
//!
//! Without them all nodes and the generator take the same processors from each other, and a rate says what a message costs all of them together
//! rather than what the busiest node can do.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use super::nodes::{Cluster, NODES};
use crate::usage;

/// Nodes get so many parts of twice as many: half is left for the generator.
const PARTS: usize = 2 * NODES;
/// The time within which a node may use its part, in microseconds. A short one: a node that has used its part up stops until the next begins, and
/// what the others send it meanwhile has to fit into buffers.
const PERIOD_US: usize = 3_000;
/// The least that the kernel takes, in microseconds.
const QUOTA_LEAST_US: usize = 1_000;

/// The groups. They go, and their processes run as before, when this is dropped.
pub(super) struct Shares {
    root: PathBuf,
    groups: Vec<PathBuf>,
}

impl Shares {
    /// Gives each node its part.
    ///
    /// # Errors
    /// When this machine has no such groups, or another user than root asks.
    pub fn give(cluster: &Cluster) -> io::Result<Self> {
        let (root, unified) = root()?;
        let mut shares = Self { root, groups: Vec::new() };
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let quota = (cores * PERIOD_US / PARTS).max(QUOTA_LEAST_US);
        for (number, pid) in cluster.pids()?.into_iter().enumerate() {
            let group = shares.root.join(format!("bench-{}-{number}", std::process::id()));
            let at = |error| of(&group, error);
            fs::create_dir(&group).map_err(at)?;
            shares.groups.push(group.clone());
            if unified {
                fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_US}")).map_err(at)?;
            } else {
                fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string()).map_err(at)?;
                fs::write(group.join("cpu.cfs_quota_us"), quota.to_string()).map_err(at)?;
            }
            for process in usage::process_tree(pid)? {
                fs::write(group.join("cgroup.procs"), process.to_string()).map_err(at)?;
            }
        }
        Ok(shares)
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        for group in &self.groups {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for process in processes.lines() {
                // One that has ended need not be moved.
                let _ = fs::write(self.root.join("cgroup.procs"), process);
            }
            if let Err(error) = fs::remove_dir(group) {
                eprintln!("{} stays: {error}", group.display());
            }
        }
    }
}

/// Where groups are made, and whether they are those of version 2.
fn root() -> io::Result<(PathBuf, bool)> {
    let unified = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|controller| controller == "cpu") {
        fs::write(unified.join("cgroup.subtree_control"), "+cpu").map_err(|error| of(unified, error))?;
        return Ok((unified.to_owned(), true));
    }
    let first = unified.join("cpu");
    if first.join("cgroup.procs").exists() {
        return Ok((first, false));
    }
    Err(io::Error::other("the kernel's control groups for the processor are not at /sys/fs/cgroup"))
}

fn of(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
