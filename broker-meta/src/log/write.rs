//! Writing the catalog: batches at the end of the log, and snapshots that replace it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::store::disk::{Disk, DiskFile};
use prost::Message as _;
use proto::meta::{Command, LogBatch, LogEntry};

use super::format::{self, BATCH_MAX_BYTES, LOG_HEADER_BYTES};
use super::{Catalog, LogError};

/// The snapshot's name.
pub(super) const SNAPSHOT: &str = "snapshot";
/// How names of logs begin.
pub(super) const LOG_PREFIX: &str = "log-";
const SNAPSHOT_NEW: &str = "snapshot.new";
/// Log files are extended by this many octets ahead of what is written.
const EXTENT_BYTES: u64 = 64 * 1024;

/// The end of the log.
#[derive(Debug)]
pub(super) struct LogWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Where the next batch goes.
    end: u64,
    /// How far the file was extended.
    allocated: u64,
    snapshot_bytes: u64,
    /// Commands not written yet, in order.
    waiting: Vec<LogEntry>,
    waiting_bytes: usize,
    failed: bool,
}

impl LogWriter {
    /// Writes a snapshot of the catalog, begins a log after it and removes older ones.
    pub fn begin(disk: Arc<dyn Disk>, dir: &Path, catalog: &Catalog) -> Result<LogWriter, LogError> {
        let snapshot_bytes = write_snapshot(&*disk, dir, catalog)?;
        let (path, file) = create_log(&*disk, dir, catalog.index())?;
        let mut writer = LogWriter {
            disk,
            dir: dir.into(),
            path,
            file,
            end: LOG_HEADER_BYTES as u64,
            allocated: EXTENT_BYTES,
            snapshot_bytes,
            waiting: Vec::new(),
            waiting_bytes: 0,
            failed: false,
        };
        writer.remove_old_logs()?;
        Ok(writer)
    }

    /// Adds a command that is to be written with the next [`LogWriter::commit`].
    pub fn push(&mut self, index: u64, command: &Command) {
        self.waiting_bytes += command.encoded_len();
        self.waiting.push(LogEntry { index, command: Some(command.clone()) });
    }

    /// Octets of commands that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// How many commands wait.
    pub fn mark(&self) -> usize {
        self.waiting.len()
    }

    /// Takes back the commands added since a mark, unless they were written.
    pub fn forget_after(&mut self, mark: usize) {
        self.waiting.truncate(mark);
        self.waiting_bytes = self.waiting.iter().map(encoded_len).sum();
    }

    /// Whether an error left it unknown what is on the disk.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Makes all that waits durable.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        let batches = self.batches();
        self.reserve(batches.iter().map(|batch| batch.len() as u64).sum())?;
        for batch in batches {
            // Never two batches without a sync between them: so a batch that cannot be read is the last one, or was damaged later.
            self.write_synced(&batch)?;
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Whether the log is longer than that, and than twice the snapshot.
    pub fn is_longer_than(&self, octets: u64) -> bool {
        self.end > octets.max(2 * self.snapshot_bytes)
    }

    /// Writes a snapshot and begins a new log after it. On an error the old log goes on, if it can.
    pub fn replace_by_snapshot(&mut self, catalog: &Catalog) {
        if self.failed {
            return;
        }
        match LogWriter::begin(self.disk.clone(), &self.dir, catalog) {
            Ok(next) => *self = next,
            Err(LogError::Full { .. }) => {}
            Err(_) => self.failed = true,
        }
    }

    /// What waits, as few batches of bounded length.
    fn batches(&self) -> Vec<Vec<u8>> {
        let mut batches = Vec::new();
        let mut batch = LogBatch::default();
        let mut len = 0;
        for entry in &self.waiting {
            if len + encoded_len(entry) > BATCH_MAX_BYTES && !batch.entries.is_empty() {
                batches.push(octets(&std::mem::take(&mut batch)));
                len = 0;
            }
            len += encoded_len(entry);
            batch.entries.push(entry.clone());
        }
        if !batch.entries.is_empty() {
            batches.push(octets(&batch));
        }
        batches
    }

    /// Extends the file, so that the writes that follow cannot meet a full disk.
    fn reserve(&mut self, octets: u64) -> Result<(), LogError> {
        let needed = self.end + octets;
        if needed <= self.allocated {
            return Ok(());
        }
        let wanted = needed.next_multiple_of(EXTENT_BYTES);
        let outcome = self.file.allocate(wanted).map_err(|source| failed("extend", &self.path, source));
        match outcome {
            Ok(()) => self.allocated = wanted,
            Err(LogError::Full { .. }) => {}
            Err(_) => self.failed = true,
        }
        outcome
    }

    fn write_synced(&mut self, octets: &[u8]) -> Result<(), LogError> {
        let fatal = |doing, source| LogError::Fatal { doing, file: self.path.clone(), source };
        let written = self
            .file
            .write_at(octets, self.end)
            .map_err(|source| fatal("write", source))
            .and_then(|()| self.file.sync_data().map_err(|source| fatal("sync", source)));
        match &written {
            Ok(()) => self.end += octets.len() as u64,
            Err(_) => self.failed = true,
        }
        written
    }

    fn remove_old_logs(&mut self) -> Result<(), LogError> {
        let fatal = |doing, file: &Path, source| LogError::Fatal { doing, file: file.into(), source };
        let entries = self.disk.list(&self.dir).map_err(|source| fatal("list", &self.dir, source))?;
        for entry in entries.iter().filter(|entry| entry.name.starts_with(LOG_PREFIX)) {
            let file = self.dir.join(&entry.name);
            if file != self.path {
                self.disk.remove(&file).map_err(|source| fatal("remove", &file, source))?;
            }
        }
        self.disk.sync_dir(&self.dir).map_err(|source| fatal("sync", &self.dir, source))
    }
}

/// Writes and syncs a snapshot under another name and renames it. Returns its length.
fn write_snapshot(disk: &dyn Disk, dir: &Path, catalog: &Catalog) -> Result<u64, LogError> {
    let octets = format::write_snapshot(&catalog.to_snapshot());
    let (new, place) = (dir.join(SNAPSHOT_NEW), dir.join(SNAPSHOT));
    let file = create_anew(disk, &new)?;
    file.allocate(octets.len() as u64).map_err(|source| failed("extend", &new, source))?;
    file.write_at(&octets, 0).map_err(|source| failed("write", &new, source))?;
    file.sync_data().map_err(|source| failed("sync", &new, source))?;
    disk.rename(&new, &place).map_err(|source| failed("rename", &new, source))?;
    disk.sync_dir(dir).map_err(|source| failed("sync", dir, source))?;
    Ok(octets.len() as u64)
}

/// Creates a log that follows the snapshot of that index.
fn create_log(disk: &dyn Disk, dir: &Path, base: u64) -> Result<(PathBuf, Box<dyn DiskFile>), LogError> {
    let path = dir.join(format!("{LOG_PREFIX}{base:016x}"));
    let file = create_anew(disk, &path)?;
    file.allocate(EXTENT_BYTES).map_err(|source| failed("extend", &path, source))?;
    file.write_at(&format::log_header(base), 0).map_err(|source| failed("write", &path, source))?;
    file.sync_data().map_err(|source| failed("sync", &path, source))?;
    disk.sync_dir(dir).map_err(|source| failed("sync", dir, source))?;
    Ok((path, file))
}

/// Creates a file, after removing what an interrupted attempt may have left of it.
fn create_anew(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, LogError> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path).map_err(|source| failed("remove", path, source))?;
            disk.create(path).map_err(|source| failed("create", path, source))
        }
        created => created.map_err(|source| failed("create", path, source)),
    }
}

fn failed(doing: &'static str, file: &Path, source: io::Error) -> LogError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Full { file: file.into() },
        _ => LogError::Fatal { doing, file: file.into(), source },
    }
}

fn encoded_len(entry: &LogEntry) -> usize {
    entry.command.as_ref().map_or(0, Command::encoded_len)
}

fn octets(batch: &LogBatch) -> Vec<u8> {
    let mut octets = Vec::new();
    let first = batch.entries.first().map_or(0, |entry| entry.index);
    format::write_batch(first, batch, &mut octets);
    octets
}
