//! A start on a catalog of which the snapshot or the log says anything. The first octet chooses: any octets as the file, or any octets as
//! the content behind a right header and checksum.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use broker_core::name::NodeId;
use broker_core::store::disk::{Disk, SimDisk};
use broker_meta::LocalCatalog;
use crc_fast::crc32_iscsi;
use libfuzzer_sys::fuzz_target;

const DIR: &str = "/data/catalog";

fuzz_target!(|octets: &[u8]| {
    let Some((&choice, octets)) = octets.split_first() else { return };
    let (name, content) = match choice % 4 {
        0 => ("snapshot", octets.to_vec()),
        1 => ("snapshot", snapshot(octets)),
        2 => ("log-0000000000000000", octets.to_vec()),
        _ => ("log-0000000000000000", log(octets)),
    };
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join(name);
    let file = disk.create(&path).unwrap();
    file.allocate(content.len() as u64).unwrap();
    file.write_at(&content, 0).unwrap();
    let open = || LocalCatalog::open(Arc::new(disk.clone()), Path::new(DIR), NodeId(1));
    match open() {
        // What was accepted is written anew, and that is read back as well.
        Ok(_) => assert!(open().is_ok()),
        Err(error) => assert!(error.to_string().contains(name), "{error}"),
    }
});

/// The file that `broker-meta/src/log/format.rs` draws, with any content.
fn snapshot(content: &[u8]) -> Vec<u8> {
    let checked = [&(content.len() as u64).to_le_bytes()[..], content].concat();
    [&b"BRKCATSN\x01\0\0\0"[..], &crc32_iscsi(&checked).to_le_bytes(), &checked].concat()
}

/// The same of a log with one batch; the first eight octets are the index of its first command.
fn log(octets: &[u8]) -> Vec<u8> {
    let head = [&b"BRKCATLG\x01\0\0\0\0\0\0\0"[..], &[0; 8]].concat();
    let (index, content) = octets.split_first_chunk::<8>().unwrap_or((&[1; 8], octets));
    let len = (content.len() as u32).to_le_bytes();
    let batch = crc32_iscsi(&[&len[..], index, content].concat());
    [&head[..], &crc32_iscsi(&head).to_le_bytes(), b"BtCh", &len, &batch.to_le_bytes(), index, content].concat()
}
