//! Memory and disk alarms: while one is set, publishers are blocked.
//!
//! The decision is a pure comparison of a [`Sample`] with [`AlarmLimits`]; a thread takes the samples, every second and
//! every tenth of one near a limit, and tells each change. As in RabbitMQ the memory alarm is set above the watermark,
//! the disk alarm below the limit, and each is cleared as soon as that is no longer so.

mod memory;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::{AlarmConfig, DiskFreeLimit, MemoryWatermark};

pub use memory::total_memory_bytes;

const CALM_INTERVAL: Duration = Duration::from_secs(1);
const TENSE_INTERVAL: Duration = Duration::from_millis(100);

/// Which alarms are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// The process uses more memory than the watermark.
    pub memory: bool,
    /// Less disk is free than the limit.
    pub disk: bool,
}

/// When the alarms go off, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmLimits {
    /// Above this the memory alarm is set.
    pub memory_bytes: u64,
    /// Below this the disk alarm is set.
    pub disk_free_bytes: u64,
}

impl AlarmLimits {
    /// The limits of `config` on a machine with so much memory.
    #[must_use]
    pub fn new(config: &AlarmConfig, total_memory_bytes: u64) -> Self {
        let total = config.total_memory_bytes.unwrap_or(total_memory_bytes);
        let memory_bytes = match config.memory_watermark {
            MemoryWatermark::Relative(share) => share_of(total, share),
            MemoryWatermark::Absolute(bytes) => bytes,
        };
        let disk_free_bytes = match config.disk_free_limit {
            DiskFreeLimit::RelativeToMemory(factor) => share_of(total, factor),
            DiskFreeLimit::Absolute(bytes) => bytes,
        };
        Self { memory_bytes, disk_free_bytes }
    }
}

/// What was found at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Resident memory of this process.
    pub memory_bytes: u64,
    /// Space free to this process on the disk of the data directory.
    pub disk_free_bytes: u64,
}

/// The alarms that a sample means.
#[must_use]
pub fn decide(sample: Sample, limits: AlarmLimits) -> Alarms {
    Alarms { memory: sample.memory_bytes > limits.memory_bytes, disk: sample.disk_free_bytes < limits.disk_free_bytes }
}

/// How long to wait until the next sample: less from four fifths of the memory limit, or below twice the disk limit.
#[must_use]
pub fn next_interval(sample: Sample, limits: AlarmLimits) -> Duration {
    let memory_is_near = sample.memory_bytes > limits.memory_bytes / 5 * 4;
    let disk_is_near = sample.disk_free_bytes < limits.disk_free_bytes.saturating_mul(2);
    if memory_is_near || disk_is_near { TENSE_INTERVAL } else { CALM_INTERVAL }
}

/// Limits to watch for, and who is told that they are in effect.
#[derive(Debug)]
struct NewLimits {
    limits: AlarmLimits,
    in_effect: oneshot::Sender<()>,
}

/// Watches memory and disk until it is dropped.
#[derive(Debug)]
pub struct AlarmWatcher {
    latest: Arc<Latest>,
    /// New limits; dropped to end the thread.
    limits: Option<mpsc::Sender<NewLimits>>,
    thread: Option<JoinHandle<()>>,
}

impl AlarmWatcher {
    /// Takes a first sample, which `on_change` is told of if an alarm is set, and goes on on a thread of its own.
    ///
    /// # Errors
    /// Memory or disk cannot be sampled at all, or there is no thread to be had.
    pub fn start(
        limits: AlarmLimits,
        data_dir: &Path,
        on_change: impl FnMut(Alarms) + Send + 'static,
    ) -> io::Result<Self> {
        let data_dir = data_dir.to_path_buf();
        let first = Sample { memory_bytes: memory::resident_bytes()?, disk_free_bytes: free_disk_bytes(&data_dir)? };
        let latest = Arc::new(Latest::new(first));
        let (sender, changes) = mpsc::channel();
        let mut watch = Watch { limits, data_dir, on_change, alarms: Alarms::default(), is_failing: false };
        watch.see(first);
        let shared = latest.clone();
        let run = move || watch.run(first, &shared, &changes);
        let thread = thread::Builder::new().name("alarms".into()).spawn(run)?;
        Ok(Self { latest, limits: Some(sender), thread: Some(thread) })
    }

    /// Watches for these limits from now on. What is returned comes once a sample was held against them and `on_change` was told.
    pub fn set_limits(&self, limits: AlarmLimits) -> oneshot::Receiver<()> {
        let (in_effect, told) = oneshot::channel();
        if let Some(Err(_)) = self.limits.as_ref().map(|sender| sender.send(NewLimits { limits, in_effect })) {
            tracing::error!("the alarm thread has ended");
        }
        told
    }

    /// The latest sample.
    #[must_use]
    pub fn latest(&self) -> Sample {
        self.latest.load()
    }
}

impl Drop for AlarmWatcher {
    fn drop(&mut self) {
        drop(self.limits.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the alarm thread panicked");
        }
    }
}

/// A sample that another thread may read. The two numbers need not be of the same moment.
#[derive(Debug)]
struct Latest {
    memory_bytes: AtomicU64,
    disk_free_bytes: AtomicU64,
}

impl Latest {
    fn new(sample: Sample) -> Self {
        Self { memory_bytes: sample.memory_bytes.into(), disk_free_bytes: sample.disk_free_bytes.into() }
    }

    fn store(&self, sample: Sample) {
        self.memory_bytes.store(sample.memory_bytes, Ordering::Relaxed);
        self.disk_free_bytes.store(sample.disk_free_bytes, Ordering::Relaxed);
    }

    fn load(&self) -> Sample {
        Sample {
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            disk_free_bytes: self.disk_free_bytes.load(Ordering::Relaxed),
        }
    }
}

/// The watching thread's own.
struct Watch<F> {
    limits: AlarmLimits,
    data_dir: PathBuf,
    on_change: F,
    alarms: Alarms,
    /// The last sample could not be taken; said once.
    is_failing: bool,
}

impl<F: FnMut(Alarms)> Watch<F> {
    fn run(&mut self, mut sample: Sample, latest: &Latest, changes: &mpsc::Receiver<NewLimits>) {
        loop {
            let changed = match changes.recv_timeout(next_interval(sample, self.limits)) {
                Ok(changed) => Some(changed),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            if let Some(changed) = &changed {
                self.limits = changed.limits;
            }
            sample = self.sample_after(sample);
            latest.store(sample);
            self.see(sample);
            if let Some(changed) = changed {
                // Who asked may have gone.
                let _ = changed.in_effect.send(());
            }
        }
    }

    /// The next sample; what cannot be found out stays as it was.
    fn sample_after(&mut self, last: Sample) -> Sample {
        let memory = memory::resident_bytes();
        let disk = free_disk_bytes(&self.data_dir);
        let error = memory.as_ref().err().or(disk.as_ref().err());
        if let Some(error) = error.filter(|_| !self.is_failing) {
            tracing::error!(%error, "cannot sample memory or disk; the alarms stay as they are until it works again");
        }
        self.is_failing = error.is_some();
        Sample {
            memory_bytes: memory.unwrap_or(last.memory_bytes),
            disk_free_bytes: disk.unwrap_or(last.disk_free_bytes),
        }
    }

    fn see(&mut self, sample: Sample) {
        let alarms = decide(sample, self.limits);
        if alarms == self.alarms {
            return;
        }
        if alarms.memory != self.alarms.memory {
            let (used, limit) = (Bytes(sample.memory_bytes), Bytes(self.limits.memory_bytes));
            say("memory", alarms.memory, format_args!("{used} used, watermark {limit}"));
        }
        if alarms.disk != self.alarms.disk {
            let (free, limit) = (Bytes(sample.disk_free_bytes), Bytes(self.limits.disk_free_bytes));
            say("disk", alarms.disk, format_args!("{free} free, limit {limit}"));
        }
        self.alarms = alarms;
        (self.on_change)(alarms);
    }
}

fn say(resource: &str, is_set: bool, numbers: fmt::Arguments<'_>) {
    if is_set {
        tracing::warn!("{resource} alarm set: publishers are blocked ({numbers})");
    } else {
        tracing::info!("{resource} alarm cleared: publishers go on ({numbers})");
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} MiB", self.0 >> 20)
    }
}

fn free_disk_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// `factor` times `bytes`. Fractions of a byte do not matter.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn share_of(bytes: u64, factor: f64) -> u64 {
    (bytes as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::*;
    use crate::config::Config;

    const LIMITS: AlarmLimits = AlarmLimits { memory_bytes: 1_000, disk_free_bytes: 500 };

    fn sample(memory_bytes: u64, disk_free_bytes: u64) -> Sample {
        Sample { memory_bytes, disk_free_bytes }
    }

    #[test]
    fn alarms_are_set_beyond_the_limits_and_not_at_them() {
        let alarms = |memory, disk| Alarms { memory, disk };
        assert_eq!(decide(sample(1_000, 500), LIMITS), alarms(false, false));
        assert_eq!(decide(sample(1_001, 500), LIMITS), alarms(true, false));
        assert_eq!(decide(sample(0, 499), LIMITS), alarms(false, true));
        let blocked = AlarmLimits { memory_bytes: 0, disk_free_bytes: 0 };
        assert_eq!(decide(sample(1, 0), blocked), alarms(true, false));
    }

    #[test]
    fn samples_come_faster_near_a_limit() {
        assert_eq!(next_interval(sample(100, 5_000), LIMITS), CALM_INTERVAL);
        assert_eq!(next_interval(sample(900, 5_000), LIMITS), TENSE_INTERVAL);
        assert_eq!(next_interval(sample(100, 900), LIMITS), TENSE_INTERVAL);
    }

    #[test]
    fn limits_are_shares_of_the_memory_or_bytes() {
        let mut config = Config::default().alarm;
        assert_eq!(AlarmLimits::new(&config, 1_000), AlarmLimits { memory_bytes: 400, disk_free_bytes: 50_000_000 });
        config.total_memory_bytes = Some(2_000);
        config.disk_free_limit = DiskFreeLimit::RelativeToMemory(1.5);
        assert_eq!(AlarmLimits::new(&config, 1_000), AlarmLimits { memory_bytes: 800, disk_free_bytes: 3_000 });
        config.memory_watermark = MemoryWatermark::Absolute(7);
        assert_eq!(AlarmLimits::new(&config, 1_000).memory_bytes, 7);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut told = Vec::new();
        let on_change = |alarms: Alarms| told.push((alarms.memory, alarms.disk));
        let data_dir = PathBuf::from(".");
        let mut watch = Watch { limits: LIMITS, data_dir, on_change, alarms: Alarms::default(), is_failing: false };
        for (memory, disk) in [(1, 600), (2_000, 600), (3_000, 600), (3_000, 1), (1, 1), (1, 600)] {
            watch.see(sample(memory, disk));
        }
        assert_eq!(told, [(true, false), (true, true), (false, true), (false, false)]);
    }

    #[test]
    fn what_cannot_be_sampled_stays() {
        let data_dir = PathBuf::from("/nowhere/at/all");
        let mut watch =
            Watch { limits: LIMITS, data_dir, on_change: |_| {}, alarms: Alarms::default(), is_failing: false };
        let next = watch.sample_after(sample(1, 42));
        assert_eq!(next.disk_free_bytes, 42);
        assert!(next.memory_bytes > 1 && watch.is_failing);
    }

    #[test]
    fn a_watcher_tells_of_an_alarm_and_ends() {
        let directory = TempDir::new().unwrap();
        let (sender, receiver) = mpsc::channel();
        let limits = AlarmLimits { memory_bytes: 1, disk_free_bytes: 0 };
        let watcher =
            AlarmWatcher::start(limits, directory.path(), move |alarms| sender.send(alarms).unwrap()).unwrap();
        assert_eq!(receiver.recv(), Ok(Alarms { memory: true, disk: false }));
        let told = watcher.set_limits(AlarmLimits { memory_bytes: u64::MAX, disk_free_bytes: u64::MAX });
        assert_eq!(told.blocking_recv(), Ok(()));
        // It was told of before the answer came.
        assert_eq!(receiver.try_recv(), Ok(Alarms { memory: false, disk: true }));
        assert!(watcher.latest().memory_bytes > 100_000 && watcher.latest().disk_free_bytes > 0);
        drop(watcher);
        assert!(receiver.recv().is_err());
    }
}
