//! The first page of every file of the store.
//!
//! | offset | octets | what |
//! |---|---|---|
//! | 0 | 8 | magic: `BRKJRNL1` or `BRKSEGM1` |
//! | 8 | 36 | a [`Kind::FileHead`] record with salt and seed 0: format version (8), number of the file (8), salt of its records (8) |
//! | 2048 | 44 | the same again, for when a sector rots |
//! | 4096 | | the file's records |

use std::io;

use super::NUMBER_MAX;
use super::disk::DiskFile;
use super::record::{Encoder, Key, Kind, Record, take_u64};

/// Octets before a file's first record.
pub(crate) const FILE_HEAD_BYTES: u64 = 4096;
pub(crate) const COPY_AT: usize = 2048;
pub(crate) const MAGIC_BYTES: usize = 8;
/// Since version 2 records may say when a message expires, and indexes of which lane a run is; files of version 1 are read like others.
const VERSION: u64 = 2;
const OLDEST_VERSION: u64 = 1;
pub(crate) const OPEN: Key = Key { salt: 0, seed: 0 };

/// Which kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Magic {
    Journal,
    Segment,
}

impl Magic {
    fn octets(self) -> &'static [u8; MAGIC_BYTES] {
        match self {
            Magic::Journal => b"BRKJRNL1",
            Magic::Segment => b"BRKSEGM1",
        }
    }
}

/// What the first page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub magic: Magic,
    /// Different for every use of a journal file and for every segment.
    pub number: u64,
    /// What the checks of the file's records are mixed with.
    pub salt: u64,
}

/// What the first page turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Head(FileHead),
    /// Written by a newer broker.
    Newer(u64),
    /// Nothing was ever written: the file was just created.
    Blank,
    /// Something else.
    Damaged,
}

impl FileHead {
    /// The page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut one = Encoder::default();
        one.record(Kind::FileHead, 0, OPEN, |out| {
            for number in [VERSION, self.number, self.salt] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        });
        let mut page = vec![0; FILE_HEAD_BYTES as usize];
        for copy in page.chunks_mut(COPY_AT) {
            let content = self.magic.octets().iter().chain(one.parts().flatten());
            for (to, from) in copy.iter_mut().zip(content) {
                *to = *from;
            }
        }
        page
    }

    /// Reads the page of a file.
    pub(crate) fn read(file: &dyn DiskFile, magic: Magic) -> io::Result<Found> {
        let mut page = vec![0; FILE_HEAD_BYTES as usize];
        let len = file.read_at(&mut page, 0)?;
        page.truncate(len);
        Ok(FileHead::decode(&page, magic))
    }

    pub(crate) fn decode(page: &[u8], magic: Magic) -> Found {
        let found = page.chunks(COPY_AT).map(|copy| FileHead::decode_copy(copy, magic)).find_map(|found| found);
        match found {
            Some(found) => found,
            None if page.iter().all(|octet| *octet == 0) => Found::Blank,
            None => Found::Damaged,
        }
    }

    fn decode_copy(copy: &[u8], magic: Magic) -> Option<Found> {
        let record = copy.strip_prefix(magic.octets())?;
        let record = Record::decode(record, OPEN).ok().filter(|record| record.kind == Kind::FileHead)?;
        let (version, rest) = take_u64(record.payload)?;
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Some(Found::Newer(version));
        }
        let (number, rest) = take_u64(rest)?;
        let (salt, _) = take_u64(rest)?;
        (number <= NUMBER_MAX).then_some(Found::Head(FileHead { magic, number, salt }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rotten_copy_does_no_harm() {
        let head = FileHead { magic: Magic::Segment, number: 7, salt: 9 };
        let mut page = head.encode();
        assert_eq!(FileHead::decode(&page, Magic::Segment), Found::Head(head));
        assert_eq!(FileHead::decode(&page, Magic::Journal), Found::Damaged);
        page[20] ^= 4;
        assert_eq!(FileHead::decode(&page, Magic::Segment), Found::Head(head));
        page[COPY_AT + 20] ^= 4;
        assert_eq!(FileHead::decode(&page, Magic::Segment), Found::Damaged);
        assert_eq!(FileHead::decode(&[0; 100], Magic::Segment), Found::Blank);
        assert_eq!(FileHead::decode(&[], Magic::Segment), Found::Blank);
    }
}
