//! A process is killed at every named crash point of the store, and what it leaves behind must start again with every promise kept.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use broker_core::store::disk::RealDisk;
use broker_core::store::{Seq, recover};
use sim::store::child::{body_len, options};
use sim::store::oracle::{expires_ms, lanes, message};

const LEAST_NAMES: usize = 40;
const SIGKILL: i32 = 9;

/// The names as they stand in the sources.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../broker-core/src/store")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let source = std::fs::read_to_string(path).unwrap();
            for part in source.split("crash_point!(\"").skip(1) {
                names.insert(part.split('"').next().unwrap().to_owned());
            }
        }
    }
    names
}

/// A process is killed, not the machine: memory is as good as a disk here and does not wait for syncs.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs the child until it is killed; what it said. `None` if it did not get to the place.
fn kill_at(point: &str, dir: &Path) -> Option<Vec<(String, u64, Seq)>> {
    let store = dir.join("store");
    for stray in ["journal", "segments"] {
        std::fs::create_dir_all(store.join(stray)).unwrap();
        std::fs::write(store.join(stray).join("stray"), b"?").unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args([Path::new("store-child"), &store])
        .env("BROKER_CRASH_POINT", point)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    match output.status.signal() {
        Some(SIGKILL) => {}
        None if output.status.success() => return None,
        other => panic!("{point}: ended with {other:?}: {told}"),
    }
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[0].to_owned(), words[1].parse().unwrap(), words[2].parse().unwrap())
    });
    Some(lines.collect())
}

fn check(point: &str, dir: &Path, said: &[(String, u64, Seq)]) {
    let of = |what: &str| -> BTreeSet<(u64, Seq)> {
        said.iter().filter(|(word, ..)| word == what).map(|(_, queue, seq)| (*queue, *seq)).collect()
    };
    let (stored, settling, settled) = (of("stored"), of("settling"), of("settled"));
    for start in 0..2 {
        let options = options(&dir.join("store"), 99 + start);
        let (_, mut segments, recovered) = recover(Arc::new(RealDisk), &options, &|queue| Some(lanes(queue))).unwrap();
        assert!(!recovered.report.iter().any(|line| line.contains("damaged")), "{point}: {:?}", recovered.report);
        let mut found: BTreeMap<(u64, Seq), u64> = BTreeMap::new();
        for queue in &recovered.queues {
            for part in &queue.runs {
                let mut from = Some(part.first);
                while let Some(at) = from {
                    let loaded = segments.read(part.run, at, 50_000).unwrap();
                    for entry in loaded.entries.iter().filter(|entry| entry.seq <= part.last) {
                        assert_eq!(entry.message, message(queue.queue, entry.seq, body_len(entry.seq)), "{point}");
                        assert_eq!((entry.expires_ms, entry.lane), (expires_ms(entry.seq), part.lane), "{point}");
                        *found.entry((queue.queue.0, entry.seq)).or_default() += 1;
                    }
                    from = loaded.next.filter(|next| *next <= part.last);
                }
            }
        }
        let lost: Vec<_> = stored.difference(&settling).filter(|place| !found.contains_key(*place)).collect();
        assert!(lost.is_empty(), "{point}, start {start}: lost {lost:?}");
        let back: Vec<_> = settled.iter().filter(|place| found.contains_key(*place)).collect();
        assert!(back.is_empty(), "{point}, start {start}: settled and back {back:?}");
        assert!(found.values().all(|count| *count == 1), "{point}: something is there twice");
    }
}

#[test]
fn killed_at_any_crash_point_the_store_starts_again_with_every_promise_kept() {
    let names = names();
    assert!(names.len() >= LEAST_NAMES, "only {} crash points", names.len());
    let mut never: BTreeSet<&String> = names.iter().collect();
    let mut kills = 0;
    for name in &names {
        // Early, and when there is something to lose.
        for nth in [1, 4] {
            let dir = directory();
            let point = format!("{name}:{nth}");
            if let Some(said) = kill_at(&point, dir.path()) {
                check(&point, dir.path(), &said);
                never.remove(name);
                kills += 1;
            }
        }
    }
    assert!(never.is_empty(), "these crash points were never reached: {never:?}");
    assert!(kills * 2 >= names.len() * 3, "{kills} kills");
}

#[test]
fn left_alone_the_child_ends_well() {
    let dir = directory();
    assert_eq!(kill_at("no.such.place", dir.path()), None);
    let orphaned: Vec<PathBuf> =
        std::fs::read_dir(dir.path().join("store/orphaned")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(orphaned.len(), 2);
}
