//! What can be set about the store.

use std::path::PathBuf;

/// Size of a journal file unless set otherwise. Small enough that the files are soon all filled and used in turn, and stay in the page cache; large
/// enough for the largest commits (see [`COMMIT_MAX_BYTES`](super::COMMIT_MAX_BYTES)).
pub const JOURNAL_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// What the journal may hold before its oldest file is given up, unless set otherwise. About what the queues hold in memory: what lies longer is
/// paged out anyway.
pub const JOURNAL_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
/// Size at which a segment file is closed, unless set otherwise.
pub const SEGMENT_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// What can be set about the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The store's directory. It belongs to the store alone: what it does not know in there is moved to `orphaned`.
    pub dir: PathBuf,
    /// Size of a journal file, at least 64 KiB.
    pub journal_file_bytes: u64,
    /// What the journal's files in use may hold together; how much has to be read again at a start. At least two files.
    pub journal_budget_bytes: u64,
    /// Size at which a segment is closed.
    pub segment_file_bytes: u64,
    /// A random number, another one at every start. Must not become known to clients: it keeps bodies from looking like records.
    pub salt: u64,
}

impl StoreOptions {
    /// The usual sizes.
    pub fn new(dir: impl Into<PathBuf>, salt: u64) -> Self {
        StoreOptions {
            dir: dir.into(),
            journal_file_bytes: JOURNAL_FILE_BYTES,
            journal_budget_bytes: JOURNAL_BUDGET_BYTES,
            segment_file_bytes: SEGMENT_FILE_BYTES,
            salt,
        }
    }
}
