//! Files of the store with other numbers in them and right checksums all the same, for tests: chance hardly ever brings a decoder
//! what lies behind a checksum.

use super::file_head::{COPY_AT, FILE_HEAD_BYTES, FileHead, Found, MAGIC_BYTES, Magic, OPEN};
use super::journal::commit_key;
use super::record::{HEAD_BYTES, Key, Kind, Record, reseal, take_u64};
use super::segments::BLOCK_HEAD_BYTES;

/// Octets of an order: what to do, which record (2), where in it (2), with which number (8).
const ORDER_BYTES: usize = 13;

/// Changes a journal or segment file as `orders` say: each overwrites something in one record, and the record gets the checksum that
/// makes it pass. What is no whole order is left out.
pub fn tamper(file: &mut Vec<u8>, orders: &[u8]) {
    let records = records(file);
    for order in orders.chunks_exact(ORDER_BYTES) {
        let &[what, record_low, record_high, place_low, place_high, ref number @ ..] = order else { continue };
        let record = usize::from(u16::from_le_bytes([record_low, record_high]));
        let place = usize::from(u16::from_le_bytes([place_low, place_high]));
        let Some(&(at, key)) = records.get(record.checked_rem(records.len()).unwrap_or(0)) else { return };
        match what % 8 {
            0 => put(file, at + HEAD_BYTES + place, number.get(..1)),
            1 | 2 => put(file, at + HEAD_BYTES + place / 8 * 8, Some(number)),
            3 => put(file, at + 4, number.get(..4)),
            4 => put(file, at + 8, number.get(..1)),
            5 => put(file, at + 9, number.get(..1)),
            6 => file.truncate(at + place),
            _ => {
                // Not sealed: what rot looks like.
                put(file, at + place, number.get(..1));
                continue;
            }
        }
        reseal(file, at, key);
    }
}

/// Where the file's records are, each with the key it was sealed with.
fn records(file: &[u8]) -> Vec<(usize, Key)> {
    let mut records = vec![(MAGIC_BYTES, OPEN), (COPY_AT + MAGIC_BYTES, OPEN)];
    let page = file.get(..FILE_HEAD_BYTES as usize).unwrap_or(file);
    let head = [Magic::Journal, Magic::Segment].into_iter().find_map(|magic| match FileHead::decode(page, magic) {
        Found::Head(head) => Some(head),
        _ => None,
    });
    let Some(key) = head.as_ref().map(commit_key) else { return records };
    let mut at = FILE_HEAD_BYTES as usize;
    while at < file.len() {
        let Ok(record) = Record::decode(file.get(at..).unwrap_or_default(), key) else {
            at += 8;
            continue;
        };
        records.push((at, key));
        let words = words(record.payload);
        let (mut next, seeds) = match record.kind {
            Kind::Commit => (at + record.len(), words.get(4..).unwrap_or_default().iter().step_by(2).collect()),
            _ => (at + BLOCK_HEAD_BYTES as usize, words.get(2).into_iter().collect::<Vec<_>>()),
        };
        for seed in seeds {
            let key = Key { seed: *seed as u32, ..key };
            while let Ok(record) = Record::decode(file.get(next..).unwrap_or_default(), key) {
                records.push((next, key));
                next += record.len();
            }
        }
        at = next.next_multiple_of(8);
    }
    records
}

fn words(mut octets: &[u8]) -> Vec<u64> {
    let mut words = Vec::new();
    while let Some((word, rest)) = take_u64(octets) {
        words.push(word);
        octets = rest;
    }
    words
}

/// Overwrites what is there of the file.
fn put(file: &mut [u8], at: usize, octets: Option<&[u8]>) {
    let there = file.get_mut(at..).unwrap_or_default().iter_mut();
    there.zip(octets.unwrap_or_default()).for_each(|(to, from)| *to = *from);
}
