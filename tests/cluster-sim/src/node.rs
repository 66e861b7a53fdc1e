//! One simulated node: the real part of brokerd that has to do with other nodes, on a runtime and a disk of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use broker_core::name::NodeId;
use broker_meta::raft::{Identity, create_log, replay};
use broker_meta::{Catalog, CatalogEvent};
use broker_server::cluster::ground::Ground;
use broker_server::cluster::{Handle, plan_to_be_blank, start_on};
use broker_server::config::Config;
use broker_server::config::cluster::Seed;
use broker_server::driver::events::Event;
use broker_server::driver::mailbox::{Inbox, mailbox};
use broker_server::exit::Failure;
use mio::{Poll, Token, Waker};
use tokio::runtime::Runtime;

use crate::links::Links;
use crate::net::{Net, PORT};

type Starting = Pin<Box<dyn Future<Output = Result<Option<Handle>, Failure>>>>;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not run.
    Down,
    /// It runs, and serves nobody yet.
    Starting,
    /// It serves clients.
    Live,
    /// It has refused to run, as brokerd ends with an error.
    Refused,
}

/// See the module's page.
pub struct Node {
    /// Its number on the network, and in its name.
    pub number: usize,
    /// How far it is.
    pub state: State,
    /// It stands still, as after SIGSTOP.
    pub stopped: bool,
    /// Milliseconds it stood still.
    missed: u64,
    /// Why it refused.
    pub why: String,
    net: Net,
    directory: PathBuf,
    config: Config,
    // In this order: a runtime is dropped after what runs on it.
    starting: Option<Starting>,
    handle: Option<Handle>,
    inbox: Option<(Inbox, Poll)>,
    links: Links,
    runtime: Option<Runtime>,
}

impl Node {
    /// One of several, which are listed to each.
    pub fn new(number: usize, of: usize, root: &Path, net: &Net) -> io::Result<Node> {
        let directory = root.join(format!("n{number}"));
        let secret = root.join("secret");
        fs::create_dir_all(&directory)?;
        let mut config = Config::default();
        config.node.name = format!("rabbit@n{number}");
        config.node.data_dir = directory.clone();
        config.cluster.secret_file = Some(secret);
        config.cluster.listener.port = PORT;
        config.cluster.nodes = (1..=of).map(|number| Seed { name: format!("rabbit@n{number}"), port: None }).collect();
        Ok(Node {
            number,
            state: State::Down,
            stopped: false,
            missed: 0,
            why: String::new(),
            net: net.clone(),
            directory,
            config,
            starting: None,
            handle: None,
            inbox: None,
            links: Links::default(),
            runtime: None,
        })
    }

    /// Starts it with what is on its disk.
    pub fn start(&mut self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (ground, config) = (Ground::Given(self.net.of(self.number)), self.config.clone());
        let directory = self.directory.clone();
        self.starting =
            Some(Box::pin(async move { start_on(ground, &config, &directory, || Ok(Catalog::default())).await }));
        self.runtime = Some(runtime);
        self.state = State::Starting;
        Ok(())
    }

    /// What it says of itself, once it serves.
    pub fn handle(&self) -> Option<&Handle> {
        self.handle.as_ref()
    }

    /// A millisecond goes by; what the node tells its shard.
    pub fn tick(&mut self) -> io::Result<Vec<Event>> {
        let Some(runtime) = &self.runtime else { return Ok(Vec::new()) };
        if self.stopped {
            self.missed += 1;
            return Ok(Vec::new());
        }
        let missed = std::mem::take(&mut self.missed);
        let starting = &mut self.starting;
        let started = runtime.block_on(async {
            // The clock went on while it stood still.
            if missed > 0 {
                tokio::time::advance(Duration::from_millis(missed)).await;
            }
            let tick = tokio::time::sleep(Duration::from_millis(1));
            match starting {
                None => {
                    tick.await;
                    None
                }
                Some(starting) => tokio::select! {
                    biased;
                    started = starting => Some(started),
                    () = tick => None,
                },
            }
        });
        match started {
            None => {}
            Some(Ok(Some(handle))) => {
                self.starting = None;
                let poll = Poll::new()?;
                let (mailbox, inbox) = mailbox(Waker::new(poll.registry(), Token(0))?);
                let _entered = runtime.enter();
                self.links = Links::default();
                handle.go_live(&mailbox, &self.config, self.links.taker(runtime.handle().clone()));
                self.handle = Some(handle);
                self.inbox = Some((inbox, poll));
                self.state = State::Live;
            }
            Some(Ok(None)) => self.refuse("it is to start again".into()),
            Some(Err(failure)) => self.refuse(failure.message),
        }
        if let Some(why) = self.net.failed(self.number) {
            self.refuse(why);
        }
        if let Some(handle) = &self.handle {
            self.links.ended().into_iter().for_each(|node| handle.link_is_down(NodeId(node)));
        }
        let Some((inbox, _)) = &self.inbox else { return Ok(Vec::new()) };
        Ok(std::iter::from_fn(|| inbox.take()).collect())
    }

    fn refuse(&mut self, why: String) {
        self.end();
        (self.state, self.why) = (State::Refused, why);
    }

    fn end(&mut self) {
        (self.starting, self.handle, self.inbox) = (None, None, None);
        self.runtime = None;
        self.net.gone(self.number);
        (self.state, self.stopped, self.missed) = (State::Down, false, 0);
    }

    /// It is killed: what the files hold at this moment is what the next start finds, not what an orderly end would add.
    pub fn kill(&mut self) -> io::Result<()> {
        let aside = self.directory.with_extension("killed");
        copy(&self.directory, &aside)?;
        self.end();
        fs::remove_dir_all(&self.directory)?;
        fs::rename(&aside, &self.directory)
    }

    /// Carries its log out once more, while it is down.
    pub fn replay(&self, seen: impl FnMut(u64, &[Vec<CatalogEvent>], &Catalog)) -> io::Result<()> {
        replay(&self.directory.join("catalog"), seen).map_err(io::Error::other)
    }

    /// Its disk is emptied while it is down.
    pub fn empty(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)?;
        fs::create_dir_all(&self.directory)
    }

    /// Keeps a copy of the disk while it is down.
    pub fn keep(&self) -> io::Result<()> {
        copy(&self.directory, &self.directory.with_extension("kept"))
    }

    /// Puts the copy back while it is down.
    pub fn put_back(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)?;
        copy(&self.directory.with_extension("kept"), &self.directory)
    }

    /// To which nodes it has a link.
    pub fn links(&self) -> Vec<u64> {
        self.links.up()
    }

    /// An operator has it forget another node.
    pub fn forget(&self, name: &str) {
        if let (Some(runtime), Some(handle)) = (&self.runtime, self.handle.clone()) {
            let name = name.to_owned();
            runtime.spawn(async move { drop(handle.forget(&name).await) });
        }
    }

    /// A broken rule: it founds a cluster at its next start, whatever it is told of others.
    pub fn plan_to_found(&self) -> io::Result<()> {
        plan_to_be_blank(&self.directory).map_err(|failure| io::Error::other(failure.message))
    }

    /// A broken rule: with its disk empty it takes up the number it had.
    pub fn take_up(&self, cluster: [u8; 16], node: u64) -> io::Result<()> {
        let directory = self.directory.join("catalog");
        fs::create_dir_all(&directory)?;
        create_log(&directory, &Identity { cluster, node }).map_err(io::Error::other)
    }

    /// Whether it has found that its disk is an older copy.
    pub fn is_outdated(&self) -> bool {
        self.state == State::Refused && self.why.contains("is an older copy")
    }

    /// Whether it has the log of a member.
    pub fn has_log(&self) -> bool {
        self.directory.join("catalog/raft.redb").exists()
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
