//! Control groups of the kernel, of version 1 or 2: a limit for the processes in it together. They need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::Error;

/// Where the groups of version 2 are, and the controllers of version 1 below.
const ROOT: &str = "/sys/fs/cgroup";
/// A group is busy until the last process in it is reaped: it is removed within a hundred of these, or stays.
const BUSY: Duration = Duration::from_millis(50);

/// Groups that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// What the processes of a group may take.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Memory, in octets.
    Memory(u64),
    /// Time on processors, in microseconds.
    Cpu {
        /// So much...
        quota_us: usize,
        /// ...of each time so long; the kernel takes no less than 1,000 for either.
        period_us: usize,
    },
}

/// A group. It goes, and the processes in it run without its limit, when this is dropped.
#[derive(Debug)]
pub struct ControlGroup {
    root: PathBuf,
    directory: PathBuf,
}

impl ControlGroup {
    /// Makes an empty group.
    pub fn with(limit: Limit) -> Result<Self, Error> {
        let unified = Path::new(ROOT);
        let (root, settings) = limit.of_version_1();
        let (root, settings) = match root.join("cgroup.procs").exists() {
            true => (root, settings),
            false => {
                let (controller, settings) = limit.of_version_2();
                write(&unified.join("cgroup.subtree_control"), controller)?;
                (unified.to_owned(), settings)
            }
        };
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = root.join(format!("brokerd-test-{}-{number}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| Error::io(format!("making {}", directory.display()), error))?;
        let group = Self { root, directory };
        for (file, value) in settings {
            write(&group.directory.join(file), &value)?;
        }
        Ok(group)
    }

    /// A process moves into it, whose children then begin in it.
    pub fn take(&self, process: u32) -> Result<(), Error> {
        write(&self.processes(), &process.to_string())
    }

    /// The file to which the number of a process is written that moves into it.
    pub fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }
}

impl Limit {
    /// Where its controller's groups are, and what is written into which file of a group, in that order.
    fn of_version_1(self) -> (PathBuf, Vec<(&'static str, String)>) {
        let (controller, settings) = match self {
            Limit::Memory(octets) => ("memory", vec![("memory.limit_in_bytes", octets.to_string())]),
            Limit::Cpu { quota_us, period_us } => {
                ("cpu", vec![("cpu.cfs_period_us", period_us.to_string()), ("cpu.cfs_quota_us", quota_us.to_string())])
            }
        };
        (Path::new(ROOT).join(controller), settings)
    }

    /// What lets groups have its controller, and the same.
    fn of_version_2(self) -> (&'static str, Vec<(&'static str, String)>) {
        match self {
            Limit::Memory(octets) => ("+memory", vec![("memory.max", octets.to_string())]),
            Limit::Cpu { quota_us, period_us } => ("+cpu", vec![("cpu.max", format!("{quota_us} {period_us}"))]),
        }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            for process in fs::read_to_string(self.processes()).unwrap_or_default().lines() {
                // One that has ended meanwhile need not be moved.
                let _ = fs::write(self.root.join("cgroup.procs"), process);
            }
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            thread::sleep(BUSY);
        }
        eprintln!("{} could not be removed", self.directory.display());
    }
}

fn write(file: &Path, value: &str) -> Result<(), Error> {
    fs::write(file, value).map_err(|error| Error::io(format!("writing {value:?} to {}", file.display()), error))
}
