//! What the entries of the log come to: the catalog, the members, and which batches of each node were carried out.
//!
//! A batch may come twice, when whoever proposed it did not hear that it was appended and asked a new leader for it. So the machine remembers the last
//! number of each node: a proposer has one batch under way at a time and numbers them upwards, and one with a number that is not higher, or
//! from an earlier start of its node, is passed over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use prost::Message;
use proto::cluster;
use tokio_stream::{Stream, StreamExt};

use super::check::NUMBER_MAX;
use super::types::{
    EntryOf, LogIdOf, Meaningless, Node, SnapshotMetaOf, StoredMembershipOf, TypeConfig, put_log_id,
    put_stored_membership, take_log_id, take_stored_membership,
};
use crate::catalog::{Catalog, CatalogEvent};
use crate::command::Command;
use crate::log::checksum;

/// Begins a snapshot's file; the last octet is the format's version.
const MAGIC: &[u8; 8] = b"BRKSNAP\x01";
const FILE: &str = "raft.snapshot";
const NEW_FILE: &str = "raft.snapshot.new";

/// What has been applied on this node.
#[derive(Clone, Debug)]
pub enum Applied {
    /// A batch of commands.
    Batch {
        /// Index of its entry.
        index: u64,
        /// The commands.
        commands: Vec<Command>,
        /// Who proposed it.
        origin: cluster::Origin,
        /// What each command did; none if the batch had been applied before.
        outcomes: Vec<Vec<CatalogEvent>>,
        /// The catalog afterwards.
        catalog: Catalog,
    },
    /// Everything at once: what a snapshot held at the start, or from the leader because this node was far behind.
    Snapshot {
        /// Index of the last entry in it.
        index: u64,
        /// The catalog afterwards.
        catalog: Catalog,
    },
}

/// Hears of everything that is applied, in order, from the snapshot of the start on. It is called on Raft's thread and must not wait.
pub type Listener = Box<dyn FnMut(Applied) + Send + Sync>;

/// See the module's page.
pub(super) struct Machine {
    state: Shared,
    file: SnapshotFile,
    listener: Listener,
}

/// What others may look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    last: Option<LogIdOf>,
    membership: StoredMembershipOf,
    catalog: Catalog,
    /// Incarnation and number of the last batch of each node.
    origins: BTreeMap<u64, (u64, u64)>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it was the last to change it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is applied any more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl State {
    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Whether this batch, or a later one of the same node, has been applied.
    pub(super) fn has_applied(&self, origin: &cluster::Origin) -> bool {
        self.origins.get(&origin.node).is_some_and(|&last| (origin.incarnation, origin.number) <= last)
    }

    fn apply(&mut self, batch: &cluster::Batch) -> (cluster::Origin, Vec<Vec<CatalogEvent>>) {
        let origin = batch.origin.unwrap_or_default();
        if self.has_applied(&origin) {
            return (origin, Vec::new());
        }
        self.origins.insert(origin.node, (origin.incarnation, origin.number));
        let apply = |command| {
            let index = self.catalog.index() + 1;
            self.catalog.apply(index, command)
        };
        (origin, batch.commands.iter().map(apply).collect())
    }

    fn to_message(&self) -> cluster::Snapshot {
        let (membership_at, membership) = put_stored_membership(&self.membership);
        let origin =
            |(&node, &(incarnation, number)): (&u64, &(u64, u64))| cluster::Origin { node, incarnation, number };
        cluster::Snapshot {
            last: self.last.as_ref().map(put_log_id),
            membership_at,
            membership: Some(membership),
            catalog: Some(self.catalog.to_snapshot()),
            origins: self.origins.iter().map(origin).collect(),
        }
    }

    fn from_message(snapshot: cluster::Snapshot) -> io::Result<State> {
        let membership = take_stored_membership(snapshot.membership_at, snapshot.membership);
        let catalog = Catalog::from_snapshot(&snapshot.catalog.unwrap_or_default()).map_err(io::Error::other)?;
        Ok(State {
            last: snapshot.last.map(take_log_id),
            membership: membership.map_err(damaged)?,
            catalog,
            origins: snapshot.origins.iter().map(|origin| (origin.node, (origin.incarnation, origin.number))).collect(),
        })
    }

    /// What the snapshot of a directory holds; without one, nothing.
    pub(super) fn read(directory: &Path) -> io::Result<State> {
        Ok(read_file(directory)?.map(|octets| state_of(&octets)).transpose()?.unwrap_or_default())
    }

    /// Makes it the snapshot of a directory.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        write_file(directory, &self.to_message().encode_to_vec())
    }

    /// The last entry that was applied.
    pub(super) fn last(&self) -> Option<LogIdOf> {
        self.last
    }

    /// Where a node of the last membership is.
    pub(super) fn node(&self, node: u64) -> Option<Node> {
        self.membership.get_node(&node).cloned()
    }

    /// Carries out a command that is in no log.
    pub(super) fn change(&mut self, command: &Command) {
        let index = self.catalog.index() + 1;
        self.catalog.apply(index, command);
    }

    /// It stands after this entry, which makes the membership.
    pub(super) fn settle(&mut self, last: LogIdOf, membership: StoredMembershipOf) {
        (self.last, self.membership) = (Some(last), membership);
    }

    /// Applies an entry; what a batch did, if it is one.
    pub(super) fn take(&mut self, entry: EntryOf) -> Option<(cluster::Origin, Vec<Vec<CatalogEvent>>)> {
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(batch) => Some(self.apply(&batch.0)),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembershipOf::new(Some(entry.log_id), membership);
                None
            }
        }
    }

    fn meta(&self) -> SnapshotMetaOf {
        SnapshotMetaOf { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

impl Machine {
    /// The state of the last snapshot in a directory, if there is one.
    pub(super) fn open(directory: &Path, mut listener: Listener) -> io::Result<Machine> {
        let state = State::read(directory)?;
        if let Some(last) = state.last {
            listener(Applied::Snapshot { index: last.index, catalog: state.catalog.clone() });
        }
        let file = SnapshotFile { directory: directory.into(), at: Arc::new(Mutex::new(state.last)) };
        let shared = Shared { state: Arc::new(Mutex::new(state)), ended: Arc::default() };
        Ok(Machine { state: shared, file, listener })
    }

    pub(super) fn shared(&self) -> Shared {
        self.state.clone()
    }
}

/// Raft's task for what is applied has it, and ends when Raft's own does: either by itself or by a panic, of which Raft says nothing.
impl Drop for Machine {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogIdOf>, StoredMembershipOf), io::Error> {
        let state = self.state.lock();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let mut applied = None;
            {
                let mut state = self.state.lock();
                let index = entry.log_id.index;
                let commands = match &entry.payload {
                    EntryPayload::Normal(batch) => batch.0.commands.clone(),
                    EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
                };
                if let Some((origin, outcomes)) = state.take(entry) {
                    let catalog = state.catalog.clone();
                    applied = Some(Applied::Batch { index, commands, origin, outcomes, catalog });
                }
            }
            if let Some(applied) = applied {
                (self.listener)(applied);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { state: self.state.lock().clone(), file: self.file.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let (file, meta) = (self.file.clone(), meta.clone());
        let state = blocking(move || {
            let state = state_of(&snapshot)?;
            if state.meta() != meta {
                return Err(io::Error::other("a snapshot of the catalog is not the one that was announced"));
            }
            if !file.write(state.last, &snapshot)? {
                return Err(io::Error::other("a snapshot of the catalog is older than the one that is there"));
            }
            Ok(state)
        })
        .await?;
        let (index, catalog) = (state.last.map_or(0, |id| id.index), state.catalog.clone());
        *self.state.lock() = state;
        (self.listener)(Applied::Snapshot { index, catalog });
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>>, io::Error> {
        let file = self.file.clone();
        blocking(move || {
            let Some(snapshot) = read_file(&file.directory)? else { return Ok(None) };
            let meta = meta_of(&snapshot).map_err(damaged)?;
            Ok(Some(Snapshot { meta, snapshot }))
        })
        .await
    }
}

/// Writes a snapshot while entries go on being applied.
pub(super) struct Builder {
    state: State,
    file: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>, io::Error> {
        let (state, file) = (self.state.clone(), self.file.clone());
        blocking(move || {
            let snapshot = state.to_message().encode_to_vec();
            // If another was installed meanwhile that one stays; Raft takes no notice of what is older then.
            file.write(state.last, &snapshot)?;
            Ok(Snapshot { meta: state.meta(), snapshot })
        })
        .await
    }
}

/// What a snapshot's octets announce, without making a catalog of them.
pub(super) fn meta_of(octets: &[u8]) -> Result<SnapshotMetaOf, Meaningless> {
    let snapshot = cluster::Snapshot::decode(octets).map_err(|_| Meaningless("a snapshot is damaged"))?;
    Ok(SnapshotMetaOf {
        last_log_id: snapshot.last.map(take_log_id),
        last_membership: take_stored_membership(snapshot.membership_at, snapshot.membership)?,
    })
}

fn state_of(octets: &[u8]) -> io::Result<State> {
    State::from_message(cluster::Snapshot::decode(octets)?)
}

/// Whether a catalog can be made of a snapshot's octets, and go on from there.
pub(super) async fn check_catalog(octets: Vec<u8>) -> (Vec<u8>, bool) {
    let check = move || {
        let is_good = state_of(&octets).is_ok_and(|state| state.catalog.index() <= NUMBER_MAX);
        Ok((octets, is_good))
    };
    // A panic over it is no better than an error.
    blocking(check).await.unwrap_or_default()
}

/// The snapshot on the disk, which builders and whoever installs one from elsewhere write at the same time.
#[derive(Clone, Debug)]
struct SnapshotFile {
    directory: PathBuf,
    /// How far it goes. Held while it is written.
    at: Arc<Mutex<Option<LogIdOf>>>,
}

impl SnapshotFile {
    /// Writes it, unless what is there goes further: the log may lack what comes after an older one. Whether it was written.
    fn write(&self, last: Option<LogIdOf>, octets: &[u8]) -> io::Result<bool> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if last < *at {
            return Ok(false);
        }
        write_file(&self.directory, octets)?;
        *at = last;
        Ok(true)
    }
}

/// In the file: magic, CRC-32C of the rest (4 octets, little-endian), the message.
fn write_file(directory: &Path, octets: &[u8]) -> io::Result<()> {
    let new = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    file.write_all(MAGIC)?;
    file.write_all(&checksum(&[octets]).to_le_bytes())?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}

fn read_file(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = directory.join(FILE);
    let octets = match fs::read(&path) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", path.display()));
    let (magic, rest) = octets.split_first_chunk::<8>().ok_or_else(|| wrong("is cut short"))?;
    if magic[..7] != MAGIC[..7] {
        return Err(wrong("is not a snapshot of the catalog"));
    }
    if magic != MAGIC {
        return Err(wrong("was written by a newer version: upgrade this node"));
    }
    let (sum, snapshot) = rest.split_first_chunk::<4>().ok_or_else(|| wrong("is cut short"))?;
    if u32::from_le_bytes(*sum) != checksum(&[snapshot]) {
        return Err(wrong("is damaged: its checksum is another"));
    }
    Ok(Some(snapshot.to_vec()))
}

fn damaged(why: Meaningless) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a snapshot of the catalog: {why}"))
}

/// Away from the threads that answer other nodes.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    // On a runtime of one thread everything waits for it anyway, and in a simulation no second thread may decide what comes first.
    if tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
