//! Each node with a part of the processors of its own, as on machines of their own.
//!
//! Without that all nodes and the generator take the same processors from each other, and a rate says what a message costs all of them together
//! rather than what the busiest node can do.

use std::io;
use std::num::NonZeroUsize;
use std::thread;

use harness::{ControlGroup, Limit};

use super::nodes::{Cluster, NODES};
use crate::usage;

/// Nodes get so many parts of twice as many: half is left for the generator.
const PARTS: usize = 2 * NODES;
/// The time within which a node may use its part, in microseconds. A short one: a node that has used its part up stops until the next begins, and
/// what the others send it meanwhile has to fit into buffers.
const PERIOD_US: usize = 3_000;
/// The least that the kernel takes, in microseconds.
const QUOTA_LEAST_US: usize = 1_000;

/// Gives each node its part, until the groups are dropped.
///
/// # Errors
/// When this machine has no control groups, or another user than root asks.
pub(super) fn give(cluster: &Cluster) -> io::Result<Vec<ControlGroup>> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let quota_us = (cores * PERIOD_US / PARTS).max(QUOTA_LEAST_US);
    let of_node = |pid| {
        let group = ControlGroup::with(Limit::Cpu { quota_us, period_us: PERIOD_US }).map_err(io::Error::other)?;
        for process in usage::process_tree(pid)? {
            group.take(process).map_err(io::Error::other)?;
        }
        Ok(group)
    };
    cluster.pids()?.into_iter().map(of_node).collect()
}
