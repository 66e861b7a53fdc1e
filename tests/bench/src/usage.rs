//! What a broker used, from the kernel's accounting: CPU time and resident memory of a process and its children.

use std::fs;
use std::io;
use std::time::Duration;

/// The use of a broker at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time so far.
    pub cpu: Duration,
    /// Resident octets.
    pub resident: u64,
    /// The highest resident octets since the last [`reset_peak`].
    pub peak: u64,
}

impl Usage {
    /// The use of `root` and all its descendants.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(root: u32) -> io::Result<Self> {
        let mut usage = Self::default();
        for pid in process_tree(root)? {
            match of_process(pid) {
                Ok(one) => {
                    usage.cpu += one.cpu;
                    usage.resident += one.resident;
                    usage.peak += one.peak;
                }
                // A child may end between the listing and the look at it.
                Err(_) if pid != root => {}
                Err(error) => return Err(error),
            }
        }
        Ok(usage)
    }
}

/// The time that the threads of a process have run so far, finer than [`Usage::cpu`]. Threads that have ended are not counted.
///
/// # Errors
/// When the process is gone.
pub fn run_time(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look at it.
        let Ok(times) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += times.split_whitespace().next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Makes the kernel count the peak of resident memory anew.
///
/// # Errors
/// When the process is gone or another user's.
pub fn reset_peak(root: u32) -> io::Result<()> {
    fs::write(format!("/proc/{root}/clear_refs"), "5")
}

fn of_process(pid: u32) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kibibytes = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok(Usage {
        // The first is exact but forgets threads that ended, the second counts them but in whole clock ticks.
        cpu: threads_cpu(pid)?.max(process_cpu(pid)?),
        resident: kibibytes("VmRSS:") * 1024,
        peak: kibibytes("VmHWM:") * 1024,
    })
}

fn threads_cpu(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
            nanoseconds += text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn process_cpu(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks: u64 = fields_after_name(&stat).skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())))
}

/// The fields of a stat line from the state on; the name before may hold spaces and brackets.
fn fields_after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// A process and all its descendants.
pub(crate) fn process_tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some(parent) = fields_after_name(&stat).nth(1).and_then(|field| field.parse::<u32>().ok())
        {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut looked_at = 0;
    while let Some(&parent) = tree.get(looked_at) {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_time_of_this_process_grows_with_its_work() {
        let before = Usage::of(std::process::id()).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(100);
        while std::time::Instant::now() < until || run_time(std::process::id()).unwrap() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.cpu > before.cpu, "{before:?} {after:?}");
        assert!(after.resident > 0 && after.peak >= after.resident);
        assert!(run_time(std::process::id()).unwrap() >= Duration::from_millis(100));
    }
}
