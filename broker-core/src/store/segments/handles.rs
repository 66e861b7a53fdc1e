//! The few segments that are kept open. There may be many thousands of segments, but only so many file descriptors.

use std::path::Path;

use super::super::StoreError;
use super::super::disk::{Disk, DiskFile};

/// Segments kept open at most.
const OPEN_MAX: usize = 16;

/// Open segments, the most recently used last.
#[derive(Debug, Default)]
pub(super) struct Handles(Vec<(u64, Box<dyn DiskFile>)>);

impl Handles {
    /// The open file of a segment.
    pub(super) fn file(&mut self, disk: &dyn Disk, number: u64, path: &Path) -> Result<&dyn DiskFile, StoreError> {
        let opened = match self.0.iter().position(|(open, _)| *open == number) {
            Some(at) => self.0.remove(at),
            None => (number, disk.open(path).map_err(StoreError::read(path, 0))?),
        };
        self.insert(opened.0, opened.1);
        self.0.last().map(|(_, file)| &**file).ok_or_else(|| StoreError::Unknown(path.display().to_string()))
    }

    /// Keeps a file that was just created or opened.
    pub(super) fn insert(&mut self, number: u64, file: Box<dyn DiskFile>) {
        self.close(number);
        if self.0.len() >= OPEN_MAX {
            self.0.remove(0);
        }
        self.0.push((number, file));
    }

    /// Closes a segment.
    pub(super) fn close(&mut self, number: u64) {
        self.0.retain(|(open, _)| *open != number);
    }
}
