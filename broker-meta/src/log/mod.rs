//! The catalog of a single node on its disk: a log of commands and a snapshot.
//!
//! [`LocalCatalog::propose`] applies commands and returns what they did once all that must survive a crash is durable: one write and one sync
//! for as many commands as were proposed together. Commands about transient things are logged too, so that the log is the whole history in
//! order, but nobody waits for them: they are written with the next durable ones.
//!
//! When the log has grown enough, and at every start, the whole catalog is written as a snapshot and the log begins anew. So what a start read
//! is written and synced afresh, and does not hang on pages that an earlier failed sync left readable but not durable.
//!
//! | file | what |
//! |---|---|
//! | `snapshot` | the catalog up to an index |
//! | `log-<base>` | commands after the snapshot of index `base` (16 hexadecimal digits) |
//! | `snapshot.new` | a snapshot being written; means nothing |
//!
//! The octets of each are drawn in `format`. A torn end of the log was never acknowledged: it is left out and reported. Damage before commands
//! that can still be read is a loss; then nothing is touched and the start is refused.

mod format;
mod recover;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::name::NodeId;
use broker_core::store::disk::Disk;
use proto::meta::Command;

pub(crate) use format::checksum;
pub use recover::{Recovery, Torn};

use crate::catalog::{Catalog, CatalogEvent};
use crate::command;
use write::LogWriter;

/// Octets of commands about transient things that may wait for a durable command to be written with.
const WAITING_MAX_BYTES: usize = 256 * 1024;
/// A log longer than this many octets, and twice the snapshot, is replaced by a snapshot. Tests see it happen sooner.
const LOG_MAX_BYTES: u64 = if cfg!(test) { 512 * 1024 } else { 16 * 1024 * 1024 };
/// Indexes of one start and those of the next are apart by at least this, so that no identity is used twice, not even one whose command about
/// a transient thing never reached the disk.
const INDEXES_OF_ONE_START: u64 = 1 << 32;

/// What can go wrong, by what the caller must do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What is on the disk is unknown. Nothing more may be acknowledged: the process must end, and the next start reads what is there.
    #[error("{}: cannot {doing}: {source}", file.display())]
    Fatal {
        /// What was attempted, as in "write".
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk is full. The commands were not applied; they may be proposed again later.
    #[error("{}: no space left", file.display())]
    Full {
        /// The file that could not grow.
        file: PathBuf,
    },
    /// An earlier error was fatal.
    #[error("the catalog's log failed before; nothing can be proposed any more")]
    Failed,
    /// A file is damaged before its end. Nothing was changed.
    #[error("{} is damaged at offset {offset}: {what}. Commands up to index {kept} can be read", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Octets from its start.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// Index of the last command before the damage.
        kept: u64,
    },
    /// A file was written by a newer version.
    #[error("{} has format version {version}; this broker reads version {known}", file.display(), known = format::VERSION)]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// The catalog of a single node. Owned by one thread, because proposing waits for the disk.
#[derive(Debug)]
pub struct LocalCatalog {
    catalog: Catalog,
    log: LogWriter,
    next_index: u64,
}

impl LocalCatalog {
    /// Opens the catalog in a directory of its own, which is created if it is missing, and lets go what was transient on `node`.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, node: NodeId) -> Result<(LocalCatalog, Recovery), LogError> {
        disk.create_dir(dir).map_err(|source| LogError::Fatal { doing: "create", file: dir.into(), source })?;
        let (mut catalog, recovery) = recover::recover(&*disk, dir)?;
        let index = (catalog.index() / INDEXES_OF_ONE_START + 1) * INDEXES_OF_ONE_START;
        catalog.apply(index, &command::node_starts(node));
        let log = LogWriter::begin(disk, dir, &catalog)?;
        Ok((LocalCatalog { catalog, log, next_index: index + 1 }, recovery))
    }

    /// The catalog as it is now.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Applies commands in order and returns what each did, when what must be durable is. On an error none of them was applied.
    pub fn propose(&mut self, commands: &[Command]) -> Result<Vec<Vec<CatalogEvent>>, LogError> {
        if self.log.has_failed() {
            return Err(LogError::Failed);
        }
        let before = self.catalog.clone();
        let mark = self.log.mark();
        let outcome = self.apply_and_log(commands);
        if outcome.is_err() {
            self.catalog = before;
            self.log.forget_after(mark);
        }
        outcome
    }

    fn apply_and_log(&mut self, commands: &[Command]) -> Result<Vec<Vec<CatalogEvent>>, LogError> {
        let mut durable = false;
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            let index = self.next_index;
            self.next_index += 1;
            let events = self.catalog.apply(index, command);
            // What changed nothing is not logged: another version might understand it differently.
            if events.iter().any(CatalogEvent::is_change) {
                self.log.push(index, command);
                durable |= events.iter().any(CatalogEvent::is_durable_change);
            }
            outcomes.push(events);
        }
        if durable || self.log.waiting_bytes() > WAITING_MAX_BYTES {
            self.log.commit()?;
        }
        self.replace_long_log();
        Ok(outcomes)
    }

    /// Writes a snapshot when the log has become long. Everything acknowledged is in the log, so a full disk only means trying again later; a
    /// fatal error shows at the next proposal.
    fn replace_long_log(&mut self) {
        if self.log.is_longer_than(LOG_MAX_BYTES) {
            self.log.replace_by_snapshot(&self.catalog);
        }
    }
}
