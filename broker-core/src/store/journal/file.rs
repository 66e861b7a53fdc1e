//! One file of the journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::super::crash_point::crash_point;
use super::super::disk::{Disk, DiskFile};
use super::super::file_head::{FILE_HEAD_BYTES, FileHead, Magic};
use super::super::record::Key;
use super::super::{NUMBER_MAX, QueueId, Seq, StoreError};

/// Zeros written at a time.
const FILL_BYTES: usize = 1024 * 1024;

/// A file that commits are or were written to.
#[derive(Debug)]
pub(crate) struct JournalFile {
    pub file: Box<dyn DiskFile>,
    pub path: PathBuf,
    /// Different for every use of the file.
    pub generation: u64,
    pub salt: u64,
    /// Octets reserved for it.
    pub capacity: u64,
    /// Where the next commit goes.
    pub end: u64,
    /// Number of the first commit in it.
    pub first_commit: u64,
    /// The queues it says something about, each with the highest number enqueued.
    pub queues: HashMap<QueueId, Seq, RandomState>,
}

impl JournalFile {
    /// The key of the commits' heads.
    pub(crate) fn key(&self) -> Key {
        commit_key(&FileHead { magic: Magic::Journal, number: self.generation, salt: self.salt })
    }

    /// Whether `octets` more fit.
    pub(crate) fn has_room(&self, octets: u64) -> bool {
        self.end + octets <= self.capacity
    }

    /// Makes the file ready to be written from the start as another generation. What was in it is gone for readers as soon as this or anything
    /// written later reaches the disk; it need not be synced on its own.
    pub(crate) fn begin(&mut self, generation: u64, salt: u64) -> Result<(), StoreError> {
        crash_point!("journal.begin.before_head");
        let head = FileHead { magic: Magic::Journal, number: generation, salt };
        self.file.write_at(&head.encode(), 0).map_err(StoreError::fatal("write", &self.path, 0))?;
        crash_point!("journal.begin.after_head");
        self.generation = generation;
        self.salt = salt;
        self.end = FILE_HEAD_BYTES;
        self.queues.clear();
        Ok(())
    }

    /// A file as found at a start, to be written over.
    pub(crate) fn found(file: Box<dyn DiskFile>, path: PathBuf, capacity: u64) -> Self {
        JournalFile {
            file,
            path,
            generation: 0,
            salt: 0,
            capacity,
            end: FILE_HEAD_BYTES,
            first_commit: 0,
            queues: HashMap::default(),
        }
    }
}

/// The key of the heads of the commits in a file.
pub(crate) fn commit_key(head: &FileHead) -> Key {
    let mixed = (head.number ^ head.salt.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Key { salt: head.salt, seed: (mixed >> 32) as u32 }
}

/// The work of making a file to write to: reserve it, fill it with zeros so that later syncs have no metadata to write, sync file and name.
/// Takes a while, so it may be done on another thread than the journal's.
#[derive(Debug)]
pub struct SpareMaker {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) number: u64,
    pub(super) capacity: u64,
    pub(super) filled: bool,
}

/// A file ready to be written to.
#[derive(Debug)]
pub struct Spare(pub(super) JournalFile);

impl SpareMaker {
    /// Does the work. On [`StoreError::Full`] nothing is left behind.
    pub fn make(self) -> Result<Spare, StoreError> {
        let path = self.dir.join(file_name(self.number));
        let file = self.disk.create(&path).map_err(StoreError::space("create", &path, 0))?;
        crash_point!("journal.spare.created");
        if let Err(error) = self.reserve(&*file, &path) {
            if matches!(error, StoreError::Full { .. }) {
                self.disk.remove(&path).map_err(StoreError::fatal("remove", &path, 0))?;
            }
            return Err(error);
        }
        crash_point!("journal.spare.filled");
        file.sync_data().map_err(StoreError::fatal("sync", &path, 0))?;
        crash_point!("journal.spare.synced");
        self.disk.sync_dir(&self.dir).map_err(StoreError::fatal("sync", &self.dir, 0))?;
        crash_point!("journal.spare.named");
        Ok(Spare(JournalFile::found(file, path, self.capacity)))
    }

    fn reserve(&self, file: &dyn DiskFile, path: &Path) -> Result<(), StoreError> {
        file.allocate(self.capacity).map_err(StoreError::space("reserve", path, self.capacity))?;
        if !self.filled {
            return Ok(());
        }
        let zeros = vec![0; FILL_BYTES.min(usize::try_from(self.capacity).unwrap_or(FILL_BYTES))];
        let mut at = 0;
        while at < self.capacity {
            let len = (self.capacity - at).min(zeros.len() as u64);
            let piece = zeros.get(..len as usize).unwrap_or_default();
            file.write_at(piece, at).map_err(StoreError::space("write", path, self.capacity))?;
            at += len;
        }
        Ok(())
    }
}

/// `00000007.journal`
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:08}.journal")
}

/// The number in such a name.
pub(crate) fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".journal")?;
    let plain = digits.len() >= 8 && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok())?.filter(|number| *number <= NUMBER_MAX)
}
