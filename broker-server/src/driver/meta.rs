//! The way of changes to the catalog: proposed by the shard, logged, applied, and given back to it as new views.
//!
//! A node that is alone has a thread that logs commands: those that came while the disk was busy are logged together, with one write and one
//! `fdatasync`. A member of a cluster has [`cluster`](crate::cluster) do it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use broker_core::access::{Access, PasswordHash, User};
use broker_core::refusal::Refusal;
use broker_core::store::disk::RealDisk;
use broker_core::topology::Topology;
use broker_meta::command::{self, Command};
use broker_meta::{Catalog, CatalogEvent, LocalCatalog, LogError};
use rustix::rand::{GetRandomFlags, getrandom};

use super::events::Event;
use super::mailbox::Mailbox;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::exit::{Code, Failure};
use crate::node::ALONE;

/// Commands logged together at most.
const TOGETHER_MAX: usize = 1024;

/// Commands were applied.
pub struct Applied {
    /// Index of their entry in the cluster's log; 0 on a node that is alone.
    pub index: u64,
    /// The topology after them.
    pub topology: Topology,
    /// Users and permissions after them.
    pub access: Arc<Access>,
    /// All of the catalog after them.
    pub catalog: Catalog,
    /// What each proposal brought about. Those of nobody here have the number 0.
    pub outcomes: Vec<(u64, Vec<CatalogEvent>)>,
}

impl Applied {
    /// The views of a catalog after an entry.
    pub fn new(index: u64, catalog: Catalog, outcomes: Vec<(u64, Vec<CatalogEvent>)>) -> Applied {
        Applied { index, topology: catalog.topology(), access: Arc::new(catalog.access()), catalog, outcomes }
    }
}

/// Views of which more than this has changed are let go on the catalog's thread.
const CHANGES_AT_ONCE: usize = 256;

/// What the catalog's thread is to do.
enum Work {
    Propose(u64, Command),
    /// Views that nobody reads any more.
    LetGo(Box<(Topology, Catalog)>),
}

/// The shard's handle.
pub enum MetaHandle {
    /// The node is alone.
    Alone(LogThread),
    /// It is a member of a cluster.
    Member(Box<Cluster>),
}

/// The thread of a node that is alone.
pub struct LogThread {
    work: Sender<Work>,
    thread: std::thread::JoinHandle<()>,
}

/// Reads the catalog; at the first boot it is given the default vhost and user.
pub fn open(data_dir: &Path, config: &Config) -> Result<LocalCatalog, Failure> {
    let failed = |error: LogError| {
        let code = match error {
            LogError::Damaged { .. } | LogError::Newer { .. } => Code::Data,
            LogError::Full { .. } | LogError::Fatal { .. } | LogError::Failed => Code::Io,
        };
        Failure::new(code, format!("cannot open the catalog: {error}"))
    };
    let (mut catalog, recovery) =
        LocalCatalog::open(Arc::new(RealDisk), &data_dir.join("catalog"), ALONE).map_err(failed)?;
    if let Some(torn) = &recovery.torn {
        tracing::warn!(
            file = %torn.file.display(),
            offset = torn.offset,
            "the catalog's log ends in a command that was being written when the node went down; nothing in it was acknowledged, and it was cut off"
        );
    }
    let is_blank = catalog.catalog().topology().vhosts().next().is_none();
    if is_blank && config.definitions.path.is_some() {
        tracing::warn!(
            "first boot with load_definitions: default vhost '{}' and default user '{}' are NOT created; the definitions must hold all that is needed",
            config.bootstrap.vhost,
            config.bootstrap.user
        );
    } else if is_blank {
        catalog.propose(&first_boot(config)?).map_err(failed)?;
        tracing::info!(
            vhost = config.bootstrap.vhost,
            user = config.bootstrap.user,
            "first boot: default vhost and user created"
        );
    }
    Ok(catalog)
}

fn first_boot(config: &Config) -> Result<Vec<Command>, Failure> {
    let bootstrap = &config.bootstrap;
    let mut salt = [0; 16];
    let random = getrandom(&mut salt, GetRandomFlags::empty());
    random.map_err(|error| Failure::new(Code::Software, format!("cannot get random numbers: {error}")))?;
    let hash = PasswordHash::argon2id(bootstrap.password.expose().as_bytes(), &salt)
        .map_err(|error| Failure::new(Code::Config, format!("default_pass cannot be used: {error}")))?;
    let user = User { name: bootstrap.user.as_str().into(), password: Some(hash), tags: bootstrap.tags.clone() };
    Ok(command::first_boot(&bootstrap.vhost, &user, &bootstrap.configure, &bootstrap.write, &bootstrap.read))
}

/// Starts the thread. It ends when the handle is joined.
pub fn start(catalog: LocalCatalog, mailbox: Mailbox) -> std::io::Result<MetaHandle> {
    let (work, receiver) = channel();
    let thread = std::thread::Builder::new().name("catalog".into()).spawn(move || run(catalog, &receiver, &mailbox))?;
    Ok(MetaHandle::Alone(LogThread { work, thread }))
}

impl MetaHandle {
    /// Proposes a change; [`Applied`] answers with the number. Those under way are bounded by one for each channel.
    pub fn propose(&self, number: u64, command: Command) {
        match self {
            MetaHandle::Alone(LogThread { work, .. }) => {
                if work.send(Work::Propose(number, command)).is_err() {
                    tracing::error!("the catalog's thread has ended");
                }
            }
            MetaHandle::Member(cluster) => cluster.handle().proposals().propose(number, command),
        }
    }

    /// Lets the views go that stood before so many changes. All that is different in them is freed: of a hundred thousand queues that takes too
    /// long for the shard.
    pub fn let_go(&self, topology: Topology, catalog: Catalog, changes: usize) {
        if changes <= CHANGES_AT_ONCE {
            return;
        }
        match self {
            // If the thread has ended they are freed here.
            MetaHandle::Alone(LogThread { work, .. }) => drop(work.send(Work::LetGo(Box::new((topology, catalog))))),
            MetaHandle::Member(cluster) => cluster.handle().spawn_blocking(move || drop((topology, catalog))),
        }
    }

    /// The cluster, if there is one.
    pub fn cluster(&self) -> Option<&crate::cluster::Handle> {
        match self {
            MetaHandle::Alone(_) => None,
            MetaHandle::Member(cluster) => Some(cluster.handle()),
        }
    }

    /// Waits until everything proposed is logged.
    pub fn join(self) {
        match self {
            MetaHandle::Alone(LogThread { work, thread }) => {
                drop(work);
                if thread.join().is_err() {
                    tracing::error!("the catalog's thread has panicked");
                }
            }
            MetaHandle::Member(cluster) => cluster.stop(),
        }
    }
}

fn run(mut catalog: LocalCatalog, work: &Receiver<Work>, mailbox: &Mailbox) {
    while let Ok(first) = work.recv() {
        let (mut numbers, mut commands) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(piece) = next {
            match piece {
                Work::Propose(number, command) => {
                    numbers.push(number);
                    commands.push(command);
                }
                Work::LetGo(views) => drop(views),
            }
            next = if commands.len() < TOGETHER_MAX { work.try_recv().ok() } else { None };
        }
        if commands.is_empty() {
            continue;
        }
        let outcomes = match catalog.propose(&commands) {
            Err(LogError::Full { .. }) => one_by_one(&mut catalog, &commands),
            outcomes => outcomes,
        };
        match outcomes {
            Ok(outcomes) => {
                let outcomes = numbers.into_iter().zip(outcomes).collect();
                mailbox.send(Event::Applied(Applied::new(0, catalog.catalog().clone(), outcomes)));
            }
            Err(error) => super::fatal(&format!("cannot log a change of the catalog: {error}")),
        }
    }
}

/// The disk is full: what needs none of it is done all the same, the rest is refused.
fn one_by_one(catalog: &mut LocalCatalog, commands: &[Command]) -> Result<Vec<Vec<CatalogEvent>>, LogError> {
    let mut outcomes = Vec::with_capacity(commands.len());
    for command in commands {
        match catalog.propose(std::slice::from_ref(command)) {
            Ok(mut outcome) => outcomes.append(&mut outcome),
            Err(error @ LogError::Full { .. }) => {
                tracing::error!("a change of the catalog is refused: {error}");
                outcomes.push(vec![CatalogEvent::Refused(Refusal::Command("the disk is full".into()))]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}
