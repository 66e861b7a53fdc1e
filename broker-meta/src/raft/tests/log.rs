//! The log alone: openraft's suite, and what is there after a crash.

use std::path::Path;

use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, RaftSnapshotBuilder, StorageError};
use prost::Message;
use proto::cluster;
use tempfile::TempDir;

use super::super::machine::{Machine, meta_of};
use super::super::starts::{Starts, count_of};
use super::super::store::{Begun, Identity, LogStore, OpenError, Writing};
use super::super::types::{EntryOf, TypeConfig, take_entry, take_vote};

const IDENTITY: Identity = Identity { cluster: [7; 16], node: 1 };

/// The log in a directory, which is made at first.
fn open(directory: &Path) -> LogStore {
    if !directory.join("raft.redb").exists() {
        LogStore::create(directory, &IDENTITY).unwrap();
    }
    opened(directory).unwrap().0
}

fn opened(directory: &Path) -> Result<(LogStore, Begun), OpenError> {
    LogStore::open(directory, Writing::Thread, 9)
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let directory = TempDir::new().unwrap();
        let store = open(directory.path());
        let machine = Machine::open(directory.path(), Box::new(|_| {})).unwrap();
        Ok((directory, store, machine))
    }
}

#[tokio::test]
async fn openraft_is_content() {
    Suite::<TypeConfig, LogStore, Machine, Builder, TempDir>::test_all(Builder).await.unwrap();
}

fn entry(term: u64, index: u64) -> EntryOf {
    let origin = cluster::Origin { node: 1, incarnation: 1, number: index };
    let batch = cluster::Batch { origin: Some(origin), commands: Vec::new() };
    let payload = Some(cluster::entry::Payload::Batch(batch));
    take_entry(cluster::Entry { id: Some(cluster::LogId { term, index }), payload }).unwrap()
}

/// What another process would find if this one ended now.
async fn after_a_crash(directory: &Path) -> Vec<EntryOf> {
    let copy = TempDir::new().unwrap();
    std::fs::copy(directory.join("raft.redb"), copy.path().join("raft.redb")).unwrap();
    let mut store = open(copy.path());
    let entries = store.try_get_log_entries(..).await.unwrap();
    store.close();
    entries
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let directory = TempDir::new().unwrap();
    let mut store = open(directory.path());
    let mut expected: Vec<EntryOf> = Vec::new();
    for round in 0..20_u64 {
        if round % 5 == 4 {
            // A new leader replaces the last two.
            expected.truncate(expected.len() - 2);
            store.truncate_after(expected.last().map(|entry| entry.log_id)).await.unwrap();
            assert_eq!(after_a_crash(directory.path()).await, expected);
        }
        let from = expected.last().map_or(1, |entry| entry.log_id.index + 1);
        let new: Vec<EntryOf> = (from..from + 3).map(|index| entry(1 + round / 5, index)).collect();
        expected.extend(new.iter().cloned());
        // Readable at once, durable when it is answered.
        let (done, flushed) = TypeConfig::oneshot();
        store.append(new, IOFlushed::signal(done)).await.unwrap();
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), expected);
        flushed.await.unwrap().unwrap();
        assert_eq!(after_a_crash(directory.path()).await, expected);
    }
    let purged = expected[9].log_id;
    store.purge(purged).await.unwrap();
    let vote = take_vote(Some(cluster::Vote { term: 9, voted_for: 3, committed: true })).unwrap();
    store.save_vote(&vote).await.unwrap();
    store.close();
    let error = store.blocking_append([entry(9, 100)]).await.unwrap_err();
    assert!(error.to_string().contains("is closed"), "{error}");
    assert!(store.read_vote().await.is_err());
    // A handle that is left, as Raft's tasks may have one for a moment, does not matter.
    let mut again = open(directory.path());
    assert_eq!(again.try_get_log_entries(..).await.unwrap(), expected[10..]);
    assert_eq!(again.read_vote().await.unwrap(), Some(vote));
    let state = again.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(purged), expected.last().map(|entry| entry.log_id))
    );
    again.close();
}

#[tokio::test]
async fn a_log_is_made_once_and_says_whose_it_is() {
    let directory = TempDir::new().unwrap();
    // What a crash left of a log being made means nothing.
    std::fs::write(directory.path().join("raft.redb.new"), "half").unwrap();
    assert!(matches!(opened(directory.path()), Err(OpenError::Missing(_))));
    for start in 1..4 {
        open(directory.path()).close();
        let (store, Begun { identity, starts, .. }) = opened(directory.path()).unwrap();
        store.close();
        let counts: Vec<u64> = starts.iter().map(|start| count_of(*start)).collect();
        assert_eq!((identity, counts), (IDENTITY, (1..=2 * start).collect()), "each start counts");
    }
    let other = Identity { node: 2, ..IDENTITY };
    assert!(matches!(LogStore::create(directory.path(), &other), Err(OpenError::Exists(_))));
    let (store, Begun { identity, .. }) = opened(directory.path()).unwrap();
    store.close();
    assert_eq!(identity, IDENTITY);
}

#[tokio::test]
async fn what_was_heard_of_starts_is_on_the_disk() {
    let directory = TempDir::new().unwrap();
    let start = || {
        LogStore::create(directory.path(), &IDENTITY).unwrap_or_default();
        let (store, Begun { starts, heard, is_outdated, .. }) = opened(directory.path()).unwrap();
        (Starts::new(store.clone(), starts, heard), store, is_outdated)
    };
    let (starts, store, is_outdated) = start();
    let theirs = |count: u64, chance: u64| count << 32 | chance;
    assert!(!is_outdated && starts.may_be(2, theirs(1, 5)));
    starts.hear(2, theirs(3, 5)).await.unwrap();
    starts.hear(3, theirs(1, 1)).await.unwrap();
    store.close();
    let (starts, store, _) = start();
    assert_eq!((starts.known(2), starts.known(3), starts.known(4)), (theirs(3, 5), theirs(1, 1), 0));
    assert!(starts.may_be(2, theirs(3, 5)) && starts.may_be(2, theirs(4, 1)));
    assert!(!starts.may_be(2, theirs(3, 6)), "the same count from a copy of its disk");
    assert!(!starts.may_be(2, theirs(2, 5)));
    // What others may know of this node: nothing, its starts, and none of a copy however high it counts.
    let own = starts.this();
    assert!(starts.has_seen(0) && starts.has_seen(own) && starts.has_seen(own - (1 << 32)));
    assert!(!starts.has_seen(own + 1) && !starts.has_seen(own - 1) && !starts.has_seen(own + (1 << 32)));
    starts.bar(2).await.unwrap();
    assert!(!starts.may_be(2, theirs(3, 5)) && starts.may_be(2, theirs(4, 1)), "only a later start may come");
    starts.give_up().await.unwrap();
    store.close();
    let (_, store, is_outdated) = start();
    assert!(is_outdated, "whatever it counts up to, it stays an older copy");
    store.close();
}

#[tokio::test]
async fn an_older_snapshot_does_not_replace_a_newer_one() {
    let directory = TempDir::new().unwrap();
    let mut machine = Machine::open(directory.path(), Box::new(|_| {})).unwrap();
    let on_disk = async || {
        let mut again = Machine::open(directory.path(), Box::new(|_| {})).unwrap();
        let snapshot = again.get_current_snapshot().await.unwrap().map(|snapshot| snapshot.meta);
        let applied = again.applied_state().await.unwrap().0;
        assert_eq!(snapshot.and_then(|meta| meta.last_log_id), applied);
        applied.map(|id| (id.leader_id.term, id.index))
    };
    let octets_at = |term, index| {
        let last = Some(cluster::LogId { term, index });
        cluster::Snapshot { last, catalog: Some(Default::default()), ..Default::default() }.encode_to_vec()
    };
    // It is begun here, and done after another was installed.
    let mut early = machine.get_snapshot_builder().await;
    let octets = octets_at(2, 100);
    machine.install_snapshot(&meta_of(&octets).unwrap(), octets).await.unwrap();
    let built = early.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, None);
    assert_eq!(on_disk().await, Some((2, 100)));
    // What is not older is written, also by a builder of now.
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let octets = octets_at(2, 101);
    machine.install_snapshot(&meta_of(&octets).unwrap(), octets).await.unwrap();
    assert_eq!(on_disk().await, Some((2, 101)));
    // Nor is an older one installed, or one that is not what was announced.
    let octets = octets_at(2, 99);
    machine.install_snapshot(&meta_of(&octets).unwrap(), octets).await.unwrap_err();
    machine.install_snapshot(&meta_of(&octets_at(2, 103)).unwrap(), octets_at(2, 102)).await.unwrap_err();
    assert_eq!(on_disk().await, Some((2, 101)));
    // How far it goes is known from the start.
    let mut again = Machine::open(directory.path(), Box::new(|_| {})).unwrap();
    let octets = octets_at(2, 100);
    again.install_snapshot(&meta_of(&octets).unwrap(), octets).await.unwrap_err();
    assert_eq!(on_disk().await, Some((2, 101)));
}

#[test]
fn a_damaged_snapshot_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("raft.snapshot");
    let opened = |octets: &[u8]| {
        std::fs::write(&file, octets).unwrap();
        Machine::open(directory.path(), Box::new(|_| {})).map(|_| ()).map_err(|error| error.to_string())
    };
    let name = file.display();
    assert_eq!(opened(b"BRKSNAP\x01\0\0\0\0"), Ok(()));
    assert_eq!(opened(b"BRK"), Err(format!("{name} is cut short")));
    assert_eq!(opened(b"something else"), Err(format!("{name} is not a snapshot of the catalog")));
    assert_eq!(
        opened(b"BRKSNAP\x02\0\0\0\0"),
        Err(format!("{name} was written by a newer version: upgrade this node"))
    );
    assert_eq!(opened(b"BRKSNAP\x01\0\0\0\0x"), Err(format!("{name} is damaged: its checksum is another")));
}
