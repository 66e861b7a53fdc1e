//! What the store and the catalog's log ask of a disk: positional reads and writes, synced files, and directories synced apart from them.
//!
//! [`RealDisk`] carries it out with system calls, `SimDisk` (feature `sim`) in memory with the faults a disk may have. Both keep the rules a program must
//! live with: what was written but not synced may be lost, reordered or torn at a crash, and so may a name until its directory is synced.

mod real;
#[cfg(any(test, feature = "sim"))]
mod sim;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;

pub use real::RealDisk;
#[cfg(any(test, feature = "sim"))]
pub use sim::{Crash, Fault, SimDisk};

/// A file system, or what stands in for one. Shared by threads.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file, open for reading and writing. [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file or directory, replacing a file of the new name. Durable once both directories are synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable once its directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and those above it. Not an error if it exists. Durable once the directories above are synced.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// What a directory holds, in order of names.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub directory: bool,
}

/// An open file. Positions are octets from its start.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads until `into` is full or the file ends, and returns how much was read.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `octets`.
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all of `parts`, one after the other. The slices themselves may be changed.
    fn write_vectored_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Reserves blocks, so that writes up to `len` octets cannot fail for want of space, and extends the file to it.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts or extends the file to `len` octets.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes everything written and the file's length durable. After an error nothing may be assumed of what was not yet durable, and the call
    /// must not be repeated on this file: the kernel has marked the lost pages clean.
    fn sync_data(&self) -> io::Result<()>;

    /// The file's length in octets.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
