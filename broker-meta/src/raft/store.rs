//! The log of Raft on the disk: entries, this node's vote, and how far the log is known to be committed, in one redb file.
//!
//! A thread of its own writes. What is asked for while it waits for the disk is written together: one transaction, one sync. An entry counts as
//! appended when its transaction is on the disk and not before; until then it can be read from memory. After a failed write nothing is written any
//! more, for what the disk holds is unknown: the process must end.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use prost::Message;
use proto::cluster;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::starts::one_more;
use super::types::{
    EntryOf, LogIdOf, Meaningless, TypeConfig, VoteOf, put_entry, put_log_id, put_vote, take_entry, take_log_id,
    take_vote,
};

/// Entries by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Everything else by name.
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const IDENTITY: &str = "identity";
/// The starts of this disk, 8 octets each.
const STARTS: &str = "starts";
/// Other nodes and the start of each that was last heard of, 8 octets each.
pub(super) const HEARD: &str = "heard";
/// It is there once this disk has turned out to be an older copy.
pub(super) const OUTDATED: &str = "outdated";
const FILE: &str = "raft.redb";
/// Written together at most.
const TOGETHER_MAX: usize = 1024;

/// Who writes a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// A thread of its own: nobody waits for the disk who does not have to.
    Thread,
    /// Whoever has something to be written. In a simulation no second thread may decide what comes first.
    Here,
}

/// Whose log it is. A log is never taken up by another node, nor by the same one after its disk was emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The node's number in it, never given twice.
    pub node: u64,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk, or what is on it.
    #[error("cannot open the log of the catalog: {0}")]
    Io(#[from] io::Error),
    /// There is one.
    #[error("{} exists: it is the log of a member of a cluster", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error(
        "{} is missing: this node has no log, and so no number in a cluster. If its disk was emptied, have the cluster forget it, and let it join as a new node",
        .0.display()
    )]
    Missing(PathBuf),
    /// It is an older copy of a disk that others know better.
    #[error(
        "{} is an older copy: others know a later start of this node, and what it has agreed to since is not in it. Have the cluster forget the node (brokerctl cluster forget), move its data directory away, and let it join as a new one",
        .0.display()
    )]
    Outdated(PathBuf),
}

/// A start of a log.
#[derive(Debug)]
pub(super) struct Begun {
    /// Whose log it is.
    pub(super) identity: Identity,
    /// The starts of this disk, this one at the end.
    pub(super) starts: Vec<u64>,
    /// The last start of each other node that was heard of.
    pub(super) heard: BTreeMap<u64, u64>,
    /// It has turned out that this disk is an older copy.
    pub(super) is_outdated: bool,
}

impl Begun {
    fn new(database: &Database, chance: u32) -> io::Result<Begun> {
        let transaction = database.begin_write().map_err(io::Error::other)?;
        let begun = {
            let state = transaction.open_table(STATE).map_err(io::Error::other)?;
            let get = |name| -> io::Result<Option<Vec<u8>>> {
                Ok(state.get(name).map_err(io::Error::other)?.map(|octets| octets.value().to_vec()))
            };
            let identity = get(IDENTITY)?.and_then(|octets| Identity::from_octets(&octets));
            let identity = identity.ok_or_else(|| damaged(Meaningless("its identity is damaged")))?;
            let (starts, heard) = (take_numbers(get(STARTS)?)?, take_numbers(get(HEARD)?)?);
            let heard = heard.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect();
            Begun { identity, starts: one_more(starts, chance), heard, is_outdated: get(OUTDATED)?.is_some() }
        };
        {
            let mut state = transaction.open_table(STATE).map_err(io::Error::other)?;
            state.insert(STARTS, put_numbers(&begun.starts).as_slice()).map_err(io::Error::other)?;
        }
        transaction.commit().map_err(io::Error::other)?;
        Ok(begun)
    }
}

/// The handle that openraft writes and reads with.
#[derive(Clone, Debug)]
pub(super) struct LogStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None once it is closed: whoever still has a handle does not keep the file from being opened again.
    database: RwLock<Option<Database>>,
    /// Entries whose transaction is not on the disk yet.
    unwritten: Mutex<BTreeMap<u64, EntryOf>>,
    work: Mutex<Option<Way>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How what is asked for comes to be written.
#[derive(Debug)]
enum Way {
    /// By a thread.
    Thread(Sender<Work>),
    /// At once, by whoever asks; after a failed write it says why.
    Here(Option<String>),
}

type Done = oneshot::Sender<io::Result<()>>;

enum Work {
    Append(Vec<EntryOf>, IOFlushed<TypeConfig>),
    Set(&'static str, Vec<u8>, Done),
    /// Entries after this index go.
    Truncate(Option<u64>, Done),
    /// Entries up to this one go.
    Purge(LogIdOf, Done),
}

impl LogStore {
    /// Makes a new log, which is `identity`'s from then on. A log that exists is not touched.
    pub(super) fn create(directory: &Path, identity: &Identity) -> Result<(), OpenError> {
        Self::create_with(directory, identity, &[])
    }

    /// Makes a log that goes on after a snapshot whose last entry is `last`: for what was before it, the snapshot stands.
    pub(super) fn create_after(
        directory: &Path,
        identity: &Identity,
        starts: &[u64],
        vote: &VoteOf,
        last: &LogIdOf,
    ) -> Result<(), OpenError> {
        let last = put_log_id(last).encode_to_vec();
        let state = [
            (STARTS, put_numbers(starts)),
            (VOTE, put_vote(vote).encode_to_vec()),
            (COMMITTED, last.clone()),
            (PURGED, last),
        ];
        Self::create_with(directory, identity, &state)
    }

    fn create_with(directory: &Path, identity: &Identity, more: &[(&str, Vec<u8>)]) -> Result<(), OpenError> {
        let path = directory.join(FILE);
        if path.try_exists()? {
            return Err(OpenError::Exists(path));
        }
        // Under its name it is whole: after a crash before that it is made anew.
        let new = directory.join("raft.redb.new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = Database::create(&new).map_err(io::Error::other)?;
        let transaction = database.begin_write().map_err(io::Error::other)?;
        transaction.open_table(LOG).map_err(io::Error::other)?;
        {
            let mut state = transaction.open_table(STATE).map_err(io::Error::other)?;
            state.insert(IDENTITY, identity.octets().as_slice()).map_err(io::Error::other)?;
            for (name, octets) in more {
                state.insert(*name, octets.as_slice()).map_err(io::Error::other)?;
            }
        }
        transaction.commit().map_err(io::Error::other)?;
        drop(database);
        std::fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()?;
        Ok(())
    }

    /// Opens the log in a directory and counts this start, to which `chance` belongs. A log that is missing is not made: who lost it has no vote any
    /// more.
    pub(super) fn open(directory: &Path, writing: Writing, chance: u32) -> Result<(LogStore, Begun), OpenError> {
        let path = directory.join(FILE);
        if !path.try_exists()? {
            return Err(OpenError::Missing(path));
        }
        let database = Database::open(&path).map_err(io::Error::other)?;
        let begun = Begun::new(&database, chance)?;
        let (work, receiver) = channel();
        let way = if writing == Writing::Here { Way::Here(None) } else { Way::Thread(work) };
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(database)),
            unwritten: Mutex::default(),
            work: Mutex::new(Some(way)),
            thread: Mutex::default(),
        });
        if writing == Writing::Here {
            return Ok((LogStore(shared), begun));
        }
        let writer = shared.clone();
        let thread = std::thread::Builder::new().name("catalog log".into()).spawn(move || writer.run(&receiver))?;
        *lock(&shared.thread) = Some(thread);
        Ok((LogStore(shared), begun))
    }

    /// Writes what is still to be written and closes the file. Nothing can be written afterwards.
    pub(super) fn close(&self) {
        drop(lock(&self.0.work).take());
        let thread = lock(&self.0.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread of the catalog's log has panicked");
        }
        drop(self.0.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn send(&self, work: Work) -> io::Result<()> {
        match &mut *lock(&self.0.work) {
            Some(Way::Thread(sender)) => sender.send(work).map_err(|_| closed()),
            Some(Way::Here(failed)) => {
                self.0.carry_out(vec![work], failed);
                Ok(())
            }
            None => Err(closed()),
        }
    }

    /// Writes something that is known by name. When it returns it is on the disk.
    pub(super) async fn set(&self, name: &'static str, octets: Vec<u8>) -> io::Result<()> {
        self.and_wait(|done| Work::Set(name, octets, done)).await
    }

    async fn and_wait(&self, work: impl FnOnce(Done) -> Work) -> io::Result<()> {
        let (done, finished) = oneshot::channel();
        self.send(work(done))?;
        finished.await.unwrap_or_else(|_| Err(closed()))
    }

    fn state(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(STATE).map_err(io::Error::other)?;
        Ok(table.get(name).map_err(io::Error::other)?.map(|octets| octets.value().to_vec()))
    }

    fn log_id(&self, name: &str) -> io::Result<Option<LogIdOf>> {
        let octets = self.state(name)?;
        octets.map(|octets| Ok(take_log_id(cluster::LogId::decode(&*octets)?))).transpose()
    }

    /// This node's vote, if it has given one.
    pub(super) fn vote(&self) -> io::Result<Option<VoteOf>> {
        let octets = self.state(VOTE)?;
        octets.map(|octets| take_vote(Some(cluster::Vote::decode(&*octets)?)).map_err(damaged)).transpose()
    }

    /// How far the log was last known to be committed.
    pub(super) fn committed(&self) -> io::Result<Option<LogIdOf>> {
        self.log_id(COMMITTED)
    }

    pub(super) fn entries(&self, range: impl RangeBounds<u64> + Clone) -> io::Result<Vec<EntryOf>> {
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        // Memory first: what leaves it meanwhile is on the disk by then.
        let unwritten: Vec<EntryOf> =
            lock(&self.0.unwritten).range(range.clone()).map(|(_, entry)| entry.clone()).collect();
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(LOG).map_err(io::Error::other)?;
        let mut entries = Vec::new();
        for found in table.range(range).map_err(io::Error::other)? {
            let (index, octets) = found.map_err(io::Error::other)?;
            if unwritten.first().is_some_and(|first| first.log_id.index <= index.value()) {
                break;
            }
            entries.push(take_entry(cluster::Entry::decode(octets.value())?).map_err(damaged)?);
        }
        entries.extend(unwritten);
        Ok(entries)
    }

    fn last(&self) -> io::Result<Option<LogIdOf>> {
        if let Some((_, entry)) = lock(&self.0.unwritten).last_key_value() {
            return Ok(Some(entry.log_id));
        }
        let transaction = self.0.begin_read()?;
        let table = transaction.open_table(LOG).map_err(io::Error::other)?;
        let last = table.last().map_err(io::Error::other)?;
        let entry = last.map(|(_, octets)| cluster::Entry::decode(octets.value())).transpose()?;
        Ok(entry.map(take_entry).transpose().map_err(damaged)?.map(|entry| entry.log_id))
    }
}

impl Shared {
    fn begin_read(&self) -> io::Result<ReadTransaction> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().ok_or_else(closed)?.begin_read().map_err(io::Error::other)
    }

    fn run(&self, work: &Receiver<Work>) {
        let mut failed: Option<String> = None;
        while let Ok(first) = work.recv() {
            let together: Vec<Work> = std::iter::once(first).chain(work.try_iter().take(TOGETHER_MAX)).collect();
            self.carry_out(together, &mut failed);
        }
    }

    /// Writes, and answers whoever asked.
    fn carry_out(&self, together: Vec<Work>, failed: &mut Option<String>) {
        let result = match failed {
            Some(why) => Err(io::Error::other(why.clone())),
            None => self.write(&together),
        };
        if let Err(error) = &result {
            failed.get_or_insert_with(|| format!("an earlier write of the catalog's log failed: {error}"));
        }
        let answer = || match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        for piece in together {
            match piece {
                Work::Append(entries, flushed) => {
                    if result.is_ok() {
                        self.forget_written(&entries);
                    }
                    flushed.io_completed(answer());
                }
                // Who asked may have gone.
                Work::Set(_, _, done) | Work::Truncate(_, done) | Work::Purge(_, done) => {
                    let _ = done.send(answer());
                }
            }
        }
    }

    fn write(&self, together: &[Work]) -> io::Result<()> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = database.as_ref().ok_or_else(closed)?.begin_write().map_err(io::Error::other)?;
        // How far the log is committed need not be durable at once; it would cost a second sync for every change.
        if together.iter().all(|piece| matches!(piece, Work::Set(COMMITTED, ..))) {
            transaction.set_durability(Durability::None).map_err(io::Error::other)?;
        }
        {
            let mut log = transaction.open_table(LOG).map_err(io::Error::other)?;
            let mut state = transaction.open_table(STATE).map_err(io::Error::other)?;
            for piece in together {
                match piece {
                    Work::Append(entries, _) => {
                        for entry in entries {
                            let octets = put_entry(entry).encode_to_vec();
                            log.insert(entry.log_id.index, octets.as_slice()).map_err(io::Error::other)?;
                        }
                    }
                    Work::Set(name, octets, _) => {
                        drop(state.insert(*name, octets.as_slice()).map_err(io::Error::other)?)
                    }
                    Work::Truncate(after, _) => {
                        let from = after.map_or(0, |index| index + 1);
                        log.retain_in(from.., |_, _| false).map_err(io::Error::other)?;
                    }
                    Work::Purge(through, _) => {
                        log.retain_in(..=through.index, |_, _| false).map_err(io::Error::other)?;
                        let octets = put_log_id(through).encode_to_vec();
                        state.insert(PURGED, octets.as_slice()).map_err(io::Error::other)?;
                    }
                }
            }
        }
        transaction.commit().map_err(io::Error::other)
    }

    /// Entries are on the disk. One that was replaced meanwhile stays in memory until its successor is.
    fn forget_written(&self, entries: &[EntryOf]) {
        let mut unwritten = lock(&self.unwritten);
        for entry in entries {
            if unwritten.get(&entry.log_id.index).is_some_and(|kept| kept.log_id == entry.log_id) {
                unwritten.remove(&entry.log_id.index);
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf>, io::Error> {
        self.entries(range)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf>, io::Error> {
        self.vote()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.log_id(PURGED)?;
        let last_log_id = self.last()?.or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf) -> Result<(), io::Error> {
        let octets = put_vote(vote).encode_to_vec();
        self.set(VOTE, octets).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        // A start that knows less applies less until it hears of more: nobody waits for it.
        let (done, _) = oneshot::channel();
        self.send(Work::Set(COMMITTED, put_log_id(&committed).encode_to_vec(), done))
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf>, io::Error> {
        self.committed()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<EntryOf> = entries.into_iter().collect();
        let keyed = entries.iter().map(|entry| (entry.log_id.index, entry.clone()));
        lock(&self.0.unwritten).extend(keyed);
        self.send(Work::Append(entries, callback))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf>) -> Result<(), io::Error> {
        let after = last_log_id.map(|id| id.index);
        let from = after.map_or(0, |index| index + 1);
        drop(lock(&self.0.unwritten).split_off(&from));
        self.and_wait(|done| Work::Truncate(after, done)).await
    }

    async fn purge(&mut self, log_id: LogIdOf) -> Result<(), io::Error> {
        self.and_wait(|done| Work::Purge(log_id, done)).await
    }
}

impl Identity {
    fn octets(&self) -> Vec<u8> {
        [&self.cluster[..], &self.node.to_be_bytes()].concat()
    }

    fn from_octets(octets: &[u8]) -> Option<Identity> {
        let (cluster, node) = octets.split_first_chunk::<16>()?;
        Some(Identity { cluster: *cluster, node: u64::from_be_bytes(node.try_into().ok()?) })
    }
}

fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(&end) => end < start,
        Bound::Excluded(&end) => end <= start,
        Bound::Unbounded => false,
    }
}

fn damaged(why: Meaningless) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log of the catalog: {why}"))
}

pub(super) fn put_numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn take_numbers(octets: Option<Vec<u8>>) -> io::Result<Vec<u64>> {
    let octets = octets.unwrap_or_default();
    let (numbers, []) = octets.as_chunks::<8>() else {
        return Err(damaged(Meaningless("its list of starts is damaged")));
    };
    Ok(numbers.iter().map(|number| u64::from_be_bytes(*number)).collect())
}

fn closed() -> io::Error {
    io::Error::other("the log of the catalog is closed")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while holding it, and what it holds is never half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
