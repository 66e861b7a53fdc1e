//! Reading the catalog back.

use std::path::{Path, PathBuf};

use broker_core::store::disk::Disk;

use super::format::{self, Read};
use super::write::{LOG_PREFIX, SNAPSHOT};
use super::{Catalog, LogError};

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Index of the last command in the snapshot; 0 without one.
    pub snapshot_index: u64,
    /// Commands read from the log after it.
    pub commands: u64,
    /// An end of the log that was being written when the node went down. Nothing in it was acknowledged.
    pub torn: Option<Torn>,
}

/// Octets that were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub file: PathBuf,
    /// Where they begin.
    pub offset: u64,
    /// How many octets follow that are not zero, at least.
    pub octets: u64,
}

/// Snapshot and logs, in order.
pub(super) fn recover(disk: &dyn Disk, dir: &Path) -> Result<(Catalog, Recovery), LogError> {
    let mut logs = Vec::new();
    let mut catalog = Catalog::default();
    for entry in disk.list(dir).map_err(failed("list", dir))? {
        let file = dir.join(&entry.name);
        if entry.name == SNAPSHOT {
            catalog = read_snapshot(disk, &file)?;
        } else if entry.name.starts_with(LOG_PREFIX) {
            logs.push(LogFile { octets: read_file(disk, &file)?, file });
        }
    }
    let mut recovery = Recovery { snapshot_index: catalog.index(), ..Recovery::default() };
    for (at, log) in logs.iter().enumerate() {
        log.replay(&logs[at + 1..], &mut catalog, &mut recovery)?;
    }
    Ok((catalog, recovery))
}

struct LogFile {
    file: PathBuf,
    octets: Vec<u8>,
}

impl LogFile {
    fn replay(&self, later: &[LogFile], catalog: &mut Catalog, recovery: &mut Recovery) -> Result<(), LogError> {
        let mut at = match format::read_log_header(&self.octets) {
            Read::Good(base, len) if base <= catalog.index() => len,
            Read::Good(base, _) => {
                let what = format!("it follows a snapshot of index {base}, which is not there");
                return Err(self.damaged(0, what, catalog));
            }
            Read::Newer(version) => return Err(LogError::Newer { file: self.file.clone(), version }),
            Read::Bad(what) => return self.end(0, what, later, catalog, recovery),
        };
        // Batches before the snapshot are read too: what they hold is known, but that they can be read tells an end from damage.
        let mut last = 0;
        while at < self.octets.len() {
            match format::read_batch(&self.octets[at..], last) {
                Read::Good(batch, len) => {
                    for entry in &batch.entries {
                        last = last.max(entry.index);
                        if entry.index > catalog.index() {
                            catalog.apply(entry.index, &entry.command.clone().unwrap_or_default());
                            recovery.commands += 1;
                        }
                    }
                    at += len;
                }
                Read::Newer(version) => return Err(LogError::Newer { file: self.file.clone(), version }),
                Read::Bad(what) => return self.end(at, what, later, catalog, recovery),
            }
        }
        Ok(())
    }

    /// What cannot be read from `at` on is the log's end, unless something that can be read comes after it.
    fn end(
        &self,
        at: usize,
        what: &str,
        later: &[LogFile],
        catalog: &Catalog,
        recovery: &mut Recovery,
    ) -> Result<(), LogError> {
        let rest = &self.octets[at..];
        let Some(octets) = rest.iter().rposition(|&octet| octet != 0) else { return Ok(()) };
        let after = catalog.index();
        let found = format::find_batch(&self.octets, at + 1, after).is_some()
            || later.iter().any(|log| format::find_batch(&log.octets, 0, after).is_some());
        if found {
            return Err(self.damaged(at, what.to_owned(), catalog));
        }
        recovery.torn = Some(Torn { file: self.file.clone(), offset: at as u64, octets: octets as u64 + 1 });
        Ok(())
    }

    fn damaged(&self, at: usize, what: String, catalog: &Catalog) -> LogError {
        LogError::Damaged { file: self.file.clone(), offset: at as u64, what, kept: catalog.index() }
    }
}

fn read_snapshot(disk: &dyn Disk, file: &Path) -> Result<Catalog, LogError> {
    let damaged = |what: String| LogError::Damaged { file: file.into(), offset: 0, what, kept: 0 };
    match format::read_snapshot(&read_file(disk, file)?) {
        Read::Good(snapshot, _) => Catalog::from_snapshot(&snapshot).map_err(|bad| damaged(bad.to_string())),
        Read::Newer(version) => Err(LogError::Newer { file: file.into(), version }),
        Read::Bad(what) => Err(damaged(what.into())),
    }
}

fn read_file(disk: &dyn Disk, file: &Path) -> Result<Vec<u8>, LogError> {
    let read = || {
        let open = disk.open(file)?;
        let mut octets = vec![0; usize::try_from(open.len()?).map_err(std::io::Error::other)?];
        let read = open.read_at(&mut octets, 0)?;
        octets.truncate(read);
        Ok(octets)
    };
    read().map_err(failed("read", file))
}

fn failed(doing: &'static str, file: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    move |source| LogError::Fatal { doing, file: file.into(), source }
}
