//! Reading a file through a window, so that a large file costs little memory.

use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::DiskFile;
use super::record::{HEAD_BYTES, Key, Kind, Record};

/// Octets read at a time, unless said otherwise or a record is larger.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// A file to be read mostly forwards.
#[derive(Debug)]
pub(crate) struct View<'a> {
    file: &'a dyn DiskFile,
    path: PathBuf,
    len: u64,
    window_bytes: u64,
    window: Vec<u8>,
    /// Position of the window's first octet.
    start: u64,
}

impl<'a> View<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, path: &Path) -> Result<Self, StoreError> {
        let len = file.len().map_err(StoreError::read(path, 0))?;
        Ok(View::part(file, path, len, WINDOW_BYTES))
    }

    /// The file up to `len`, read in pieces of `window_bytes`.
    pub(crate) fn part(file: &'a dyn DiskFile, path: &Path, len: u64, window_bytes: u64) -> Self {
        View { file, path: path.into(), len, window_bytes, window: Vec::new(), start: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// At least `least` octets from `at` on, or as many as the file has.
    pub(crate) fn at(&mut self, at: u64, least: u64) -> Result<&[u8], StoreError> {
        let available = self.len.saturating_sub(at);
        let least = least.min(available);
        let within = at >= self.start && at + least <= self.start + self.window.len() as u64;
        if !within {
            let want = least.max(self.window_bytes).min(available);
            let want = usize::try_from(want).unwrap_or(usize::MAX);
            if want > self.window.capacity() || self.window.capacity() as u64 > self.window_bytes.max(want as u64) {
                self.window = vec![0; want];
            } else {
                self.window.resize(want, 0);
            }
            let read = self.file.read_at(&mut self.window, at);
            // Nothing of the window may be believed after an error.
            let read = read.inspect_err(|_| self.window.clear()).map_err(StoreError::read(&self.path, at))?;
            self.window.truncate(read);
            self.start = at;
        }
        Ok(self.window.get((at - self.start) as usize..).unwrap_or_default())
    }

    /// The record at a position, if there is one that ends at or before `end`.
    pub(crate) fn record(&mut self, at: u64, end: u64, key: Key) -> Result<Option<Record<'_>>, StoreError> {
        let room = end.min(self.len).saturating_sub(at);
        let len = Record::len_at(self.at(at, HEAD_BYTES as u64)?, key).map(|len| len as u64);
        let Some(len) = len.filter(|len| *len <= room) else { return Ok(None) };
        Ok(Record::decode(self.at(at, len)?, key).ok())
    }

    /// Position of the next record of a wanted kind that begins at `from` or a multiple of `step` after it and ends at or before `end`.
    pub(crate) fn find(
        &mut self,
        mut from: u64,
        end: u64,
        step: u64,
        key: Key,
        wanted: impl Fn(Kind) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let end = end.min(self.len);
        while from + HEAD_BYTES as u64 <= end {
            let octets = self.at(from, HEAD_BYTES as u64)?;
            let mut places = (0..octets.len().saturating_sub(HEAD_BYTES - 1)).step_by(step as usize);
            let passed = places.len() as u64 * step;
            let plausible = places.find(|&at| Record::len_at(octets.get(at..).unwrap_or_default(), key).is_some());
            let Some(at) = plausible else {
                from += passed.max(step);
                continue;
            };
            let at = from + at as u64;
            if self.record(at, end, key)?.is_some_and(|record| wanted(record.kind)) {
                return Ok(Some(at));
            }
            from = at + step;
        }
        Ok(None)
    }

    /// Whether everything between the two positions is zero.
    pub(crate) fn is_blank(&mut self, mut from: u64, end: u64) -> Result<bool, StoreError> {
        let end = end.min(self.len);
        while from < end {
            let octets = self.at(from, 1)?;
            let len = (octets.len() as u64).min(end - from);
            if len == 0 {
                return Ok(true);
            }
            let zeros = [0; 512];
            let octets = octets.get(..len as usize).unwrap_or(octets);
            if octets.chunks(zeros.len()).any(|chunk| zeros.get(..chunk.len()) != Some(chunk)) {
                return Ok(false);
            }
            from += len;
        }
        Ok(true)
    }
}
