//! One simulated node: brokerd's cluster and its shard, on a runtime and disks of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use broker_core::access::{PasswordHash, User};
use broker_core::store::disk::{Crash, SimDisk};
use broker_meta::raft::{Identity, create_log};
use broker_meta::{Catalog, command};
use broker_server::cluster::ground::Ground;
use broker_server::cluster::{Handle, plan_to_be_blank, start_on};
use broker_server::config::Config;
use broker_server::config::cluster::Seed;
use broker_server::driver::events::Event;
use broker_server::exit::Failure;
use harness::random::Random;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::net::{Net, PORT};
use crate::serving::Serving;
use crate::socket::Socket;

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
    /// What its clock shows.
    now: std::time::Instant,
    /// Why it refused.
    pub why: String,
    net: Net,
    random: Random,
    directory: PathBuf,
    /// Where the messages are.
    disk: SimDisk,
    /// As it was when the messages' disk was last kept.
    kept_disk: SimDisk,
    config: Config,
    // In this order: a runtime is dropped after what runs on it.
    starting: Option<Starting>,
    serving: Option<Serving>,
    handle: Option<Handle>,
    leaving: Option<JoinHandle<Result<(), String>>>,
    runtime: Option<Runtime>,
}

impl Node {
    /// One of several, which are listed to each.
    pub fn new(number: usize, of: usize, root: &Path, net: &Net, mut random: Random) -> io::Result<Node> {
        let directory = root.join(format!("n{number}"));
        let secret = root.join("secret");
        fs::create_dir_all(&directory)?;
        let mut config = Config::default();
        config.node.name = format!("rabbit@n{number}");
        config.node.data_dir = directory.clone();
        config.cluster.secret_file = Some(secret);
        config.cluster.listener.port = PORT;
        config.cluster.nodes = (1..=of).map(|number| Seed { name: format!("rabbit@n{number}"), port: None }).collect();
        let disk = SimDisk::new(random.draw());
        Ok(Node {
            number,
            state: State::Down,
            stopped: false,
            missed: 0,
            now: std::time::Instant::now(),
            why: String::new(),
            net: net.clone(),
            random,
            directory,
            kept_disk: disk.crash(Crash::KeepAll),
            disk,
            config,
            starting: None,
            serving: None,
            handle: None,
            leaving: None,
            runtime: None,
        })
    }

    /// Starts it with what is on its disk.
    pub fn start(&mut self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (ground, config) = (Ground::Given(self.net.of(self.number)), self.config.clone());
        let directory = self.directory.clone();
        self.starting =
            Some(Box::pin(async move { start_on(ground, &config, &directory, || Ok(first_boot(&config))).await }));
        self.runtime = Some(runtime);
        self.state = State::Starting;
        Ok(())
    }

    /// What it says of itself, once it serves.
    pub fn handle(&self) -> Option<&Handle> {
        self.handle.as_ref()
    }

    /// A millisecond goes by; what the node tells its shard, which hears none of it yet.
    pub fn tick(&mut self, now_ms: u64) -> io::Result<Vec<Event>> {
        let Some(runtime) = &self.runtime else { return Ok(Vec::new()) };
        if self.stopped {
            self.missed += 1;
            return Ok(Vec::new());
        }
        let missed = std::mem::take(&mut self.missed);
        let starting = &mut self.starting;
        let (started, now) = runtime.block_on(async {
            // The clock went on while it stood still.
            if missed > 0 {
                tokio::time::advance(Duration::from_millis(missed)).await;
            }
            let tick = tokio::time::sleep(Duration::from_millis(1));
            let started = match starting {
                None => {
                    tick.await;
                    None
                }
                Some(starting) => tokio::select! {
                    biased;
                    started = starting => Some(started),
                    () = tick => None,
                },
            };
            (started, Instant::now().into_std())
        });
        self.now = now;
        match started {
            None => {}
            Some(Ok(Some(handle))) => {
                self.starting = None;
                let _entered = runtime.enter();
                let random = Random::new(self.random.draw());
                self.serving = Some(Serving::begin(&handle, &self.config, &self.disk, random, (now, now_ms))?);
                self.handle = Some(handle);
                self.state = State::Live;
            }
            Some(Ok(None)) => self.refuse("it is to start again".into()),
            Some(Err(failure)) => self.refuse(failure.message),
        }
        if let Some(why) = self.net.failed(self.number) {
            self.refuse(why);
        }
        Ok(self.serving.as_ref().map(Serving::told).unwrap_or_default())
    }

    /// Its shard hears something.
    pub fn hear(&self, event: Event) {
        if let Some(serving) = &self.serving {
            serving.hear(event);
        }
    }

    /// Its shard has a turn.
    pub fn turn(&mut self) -> io::Result<()> {
        match (&mut self.serving, &self.runtime) {
            (Some(serving), Some(runtime)) if !self.stopped => {
                let _entered = runtime.enter();
                serving.turn(self.now)
            }
            _ => Ok(()),
        }
    }

    /// A client comes. None if nobody is let in.
    pub fn connect(&self) -> io::Result<Option<Socket>> {
        self.serving.as_ref().map_or(Ok(None), Serving::connect)
    }

    fn refuse(&mut self, why: String) {
        self.end();
        (self.state, self.why) = (State::Refused, why);
    }

    fn end(&mut self) {
        (self.starting, self.serving, self.handle, self.leaving) = (None, None, None, None);
        self.runtime = None;
        self.net.gone(self.number);
        (self.state, self.stopped, self.missed) = (State::Down, false, 0);
    }

    /// It is killed: what the files hold at this moment is what the next start finds, not what an orderly end would add. Of the messages' disk only what was
    /// synced is sure. A disk that `lies` holds what it did when it was last kept.
    pub fn kill(&mut self, lies: bool) -> io::Result<()> {
        let how = match self.random.below(3) {
            0 => Crash::LoseAll,
            1 => Crash::KeepAll,
            _ => Crash::Torn,
        };
        self.disk = if lies { &self.kept_disk } else { &self.disk }.crash(how);
        let aside = self.directory.with_extension("killed");
        copy(&self.directory, &aside)?;
        self.end();
        fs::remove_dir_all(&self.directory)?;
        fs::rename(&aside, &self.directory)
    }

    /// Its disk is emptied while it is down.
    pub fn empty(&mut self) -> io::Result<()> {
        self.disk = SimDisk::new(self.random.draw());
        fs::remove_dir_all(&self.directory)?;
        fs::create_dir_all(&self.directory)
    }

    /// Keeps a copy of the messages' disk.
    pub fn keep_messages(&mut self) {
        self.kept_disk = self.disk.crash(Crash::KeepAll);
    }

    /// Keeps a copy of the disk while it is down.
    pub fn keep(&mut self) -> io::Result<()> {
        self.keep_messages();
        copy(&self.directory, &self.directory.with_extension("kept"))
    }

    /// Puts the copy back while it is down.
    pub fn put_back(&mut self) -> io::Result<()> {
        self.disk = self.kept_disk.crash(Crash::KeepAll);
        fs::remove_dir_all(&self.directory)?;
        copy(&self.directory.with_extension("kept"), &self.directory)
    }

    /// To which nodes it has a link.
    pub fn links(&self) -> Vec<u64> {
        self.serving.as_ref().map(Serving::links).unwrap_or_default()
    }

    /// An operator has it forget another node.
    pub fn forget(&self, name: &str) {
        if let (Some(runtime), Some(handle)) = (&self.runtime, self.handle.clone()) {
            let name = name.to_owned();
            runtime.spawn(async move { drop(handle.forget(&name).await) });
        }
    }

    /// An operator drains it, or revives it.
    pub fn drain(&self, drained: bool) {
        if let Some(handle) = &self.handle {
            handle.drain(drained);
            self.hear(Event::Drain(drained, oneshot::channel().0));
        }
    }

    /// An operator has it leave the cluster.
    pub fn leave(&mut self) {
        if let (Some(runtime), Some(handle), None) = (&self.runtime, self.handle.clone(), &self.leaving) {
            self.leaving = Some(runtime.spawn(async move { handle.leave().await }));
        }
    }

    /// What became of that, once.
    pub fn has_left(&mut self) -> Option<Result<(), String>> {
        let leaving = self.leaving.take_if(|leaving| leaving.is_finished())?;
        let left = self.runtime.as_ref()?.block_on(leaving);
        Some(left.unwrap_or_else(|error| Err(error.to_string())))
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

    /// Whether it needs an empty disk: its own is an older copy, or it was killed between being removed and knowing it.
    pub fn needs_empty_disk(&self) -> bool {
        self.state == State::Refused
            && (self.why.contains("is an older copy") || self.why.contains("was removed from its cluster"))
    }

    /// Whether it has a snapshot of the catalog.
    pub fn has_snapshot(&self) -> bool {
        self.directory.join("catalog/raft.snapshot").exists()
    }

    /// Whether it has the log of a member.
    pub fn has_log(&self) -> bool {
        self.directory.join("catalog/raft.redb").exists()
    }
}

/// The catalog of a node that has never run: the default user has a password that costs nothing to check.
fn first_boot(config: &Config) -> Catalog {
    let bootstrap = &config.bootstrap;
    let password = PasswordHash::rabbit_sha256(bootstrap.password.expose().as_bytes(), Default::default());
    let user = User { name: bootstrap.user.as_str().into(), password: Some(password), tags: bootstrap.tags.clone() };
    let (configure, write, read) = (&bootstrap.configure, &bootstrap.write, &bootstrap.read);
    let mut catalog = Catalog::default();
    for command in command::first_boot(&bootstrap.vhost, &user, configure, write, read) {
        catalog.apply(catalog.index() + 1, &command);
    }
    catalog
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
