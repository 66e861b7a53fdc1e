//! The octets of the catalog's files. Numbers are little-endian.
//!
//! Log file, a header and then batches, each what was made durable by one sync:
//!
//! | octets | header | | octets | batch |
//! |---|---|---|---|---|
//! | 8 | `BRKCATLG` | | 4 | `BtCh` |
//! | 4 | format version, 1 | | 4 | length `n` of the content |
//! | 4 | reserved, 0 | | 4 | CRC-32C of the length, the index and the content |
//! | 8 | index of the snapshot it follows | | 8 | index of the first command in it |
//! | 4 | CRC-32C of the 24 octets before | | n | content: a protobuf `LogBatch` |
//!
//! After the last batch come zeros: files are extended ahead of what is written, because a sync of a file that grows costs more.
//!
//! Snapshot file:
//!
//! | octets | what |
//! |---|---|
//! | 8 | `BRKCATSN` |
//! | 4 | format version, 1 |
//! | 4 | CRC-32C of the length and the content |
//! | 8 | length `n` of the content |
//! | n | content: a protobuf `Snapshot` |

use crc_fast::{CrcAlgorithm, Digest};
use prost::Message as _;
use proto::meta::{LogBatch, Snapshot};

/// The format version this code writes and reads.
pub const VERSION: u32 = 1;
pub const LOG_HEADER_BYTES: usize = 28;
pub const BATCH_HEADER_BYTES: usize = 20;
/// A batch's content is at most about this long: commands are split over several.
pub const BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// No catalog ever gets to a greater index; a file that says so is not believed, so that counting on never overflows.
pub const INDEX_MAX: u64 = 1 << 62;
const SNAPSHOT_HEADER_BYTES: usize = 24;
const LOG_MAGIC: &[u8; 8] = b"BRKCATLG";
const BATCH_MAGIC: &[u8; 4] = b"BtCh";
const SNAPSHOT_MAGIC: &[u8; 8] = b"BRKCATSN";

const INDEX_TOO_GREAT: &str = "an index in it is greater than any can be";

/// What octets at some place are.
#[derive(Debug, PartialEq)]
pub enum Read<T> {
    /// Good, and this many octets long.
    Good(T, usize),
    /// Written by a newer version.
    Newer(u32),
    /// Not what they should be.
    Bad(&'static str),
}

pub fn log_header(base: u64) -> [u8; LOG_HEADER_BYTES] {
    let mut header = [0; LOG_HEADER_BYTES];
    header[..8].copy_from_slice(LOG_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&base.to_le_bytes());
    let crc = checksum(&[&header[..24]]);
    header[24..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads a log's header: the index of the snapshot it follows.
pub fn read_log_header(octets: &[u8]) -> Read<u64> {
    let Some(header) = octets.first_chunk::<LOG_HEADER_BYTES>() else { return Read::Bad("the header is cut short") };
    if &header[..8] != LOG_MAGIC {
        return Read::Bad("it does not begin as a log of the catalog");
    }
    match u32_at(header, 8) {
        VERSION => {}
        newer if newer > VERSION => return Read::Newer(newer),
        _ => return Read::Bad("the header has no format version"),
    }
    if checksum(&[&header[..24]]) != u32_at(header, 24) {
        return Read::Bad("the header's checksum is wrong");
    }
    Read::Good(u64_at(header, 16), LOG_HEADER_BYTES)
}

/// Appends a batch whose first command has that index.
pub fn write_batch(first_index: u64, batch: &LogBatch, out: &mut Vec<u8>) {
    let content = batch.encode_to_vec();
    let len = (content.len() as u32).to_le_bytes();
    let index = first_index.to_le_bytes();
    out.extend_from_slice(BATCH_MAGIC);
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(&[&len, &index, &content]).to_le_bytes());
    out.extend_from_slice(&index);
    out.extend_from_slice(&content);
}

/// Reads the batch that octets begin with, if its commands come after `after`.
pub fn read_batch(octets: &[u8], after: u64) -> Read<LogBatch> {
    let Some(header) = octets.first_chunk::<BATCH_HEADER_BYTES>() else { return Read::Bad("a batch is cut short") };
    if &header[..4] != BATCH_MAGIC {
        return Read::Bad("no batch begins here");
    }
    let len = u32_at(header, 4) as usize;
    let Some(content) = octets.get(BATCH_HEADER_BYTES..).and_then(|rest| rest.get(..len)) else {
        return Read::Bad("a batch is cut short");
    };
    if checksum(&[&header[4..8], &header[12..20], content]) != u32_at(header, 8) {
        return Read::Bad("a batch's checksum is wrong");
    }
    if u64_at(header, 12) <= after {
        return Read::Bad("a batch is older than the one before it");
    }
    match LogBatch::decode(content) {
        Ok(batch) if batch.entries.iter().any(|entry| entry.index > INDEX_MAX) => Read::Bad(INDEX_TOO_GREAT),
        Ok(batch) => Read::Good(batch, BATCH_HEADER_BYTES + len),
        Err(_) => Read::Bad("a batch cannot be decoded"),
    }
}

/// Where, at or after `from`, the next readable batch begins that holds commands after `after`, if there is one.
pub fn find_batch(octets: &[u8], from: usize, after: u64) -> Option<usize> {
    let mut at = from;
    while let Some(rest) = octets.get(at..).filter(|rest| rest.len() >= BATCH_HEADER_BYTES) {
        at += rest.windows(BATCH_MAGIC.len()).position(|window| window == BATCH_MAGIC)?;
        if let Read::Good(batch, _) = read_batch(&octets[at..], 0)
            && batch.entries.last().is_some_and(|entry| entry.index > after)
        {
            return Some(at);
        }
        at += 1;
    }
    None
}

pub fn write_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let content = snapshot.encode_to_vec();
    let len = (content.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + content.len());
    out.extend_from_slice(SNAPSHOT_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&checksum(&[&len, &content]).to_le_bytes());
    out.extend_from_slice(&len);
    out.extend_from_slice(&content);
    out
}

pub fn read_snapshot(octets: &[u8]) -> Read<Snapshot> {
    let Some(header) = octets.first_chunk::<SNAPSHOT_HEADER_BYTES>() else {
        return Read::Bad("the header is cut short");
    };
    if &header[..8] != SNAPSHOT_MAGIC {
        return Read::Bad("it does not begin as a snapshot of the catalog");
    }
    match u32_at(header, 8) {
        VERSION => {}
        newer if newer > VERSION => return Read::Newer(newer),
        _ => return Read::Bad("the header has no format version"),
    }
    let content = &octets[SNAPSHOT_HEADER_BYTES..];
    if content.len() as u64 != u64_at(header, 16) {
        return Read::Bad("its length is not what the header says");
    }
    if checksum(&[&header[16..24], content]) != u32_at(header, 12) {
        return Read::Bad("its checksum is wrong");
    }
    match Snapshot::decode(content) {
        Ok(snapshot) if snapshot.index > INDEX_MAX => Read::Bad(INDEX_TOO_GREAT),
        Ok(snapshot) => Read::Good(snapshot, octets.len()),
        Err(_) => Read::Bad("it cannot be decoded"),
    }
}

/// CRC-32C of the parts one behind the other.
pub(crate) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

fn u32_at<const N: usize>(octets: &[u8; N], at: usize) -> u32 {
    octets[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at<const N: usize>(octets: &[u8; N], at: usize) -> u64 {
    octets[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}
