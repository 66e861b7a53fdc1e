//! The shard of a node that serves: brokerd's own, with the work beside it carried out between its turns, and the way in for clients.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use broker_core::store::StoreOptions;
use broker_core::store::disk::SimDisk;
use broker_server::assembly::{Store, Surroundings, parts, settings};
use broker_server::cluster::links::to_shard;
use broker_server::cluster::{Cluster, Handle};
use broker_server::config::Config;
use broker_server::driver::events::Event;
use broker_server::driver::listener::{Given, Listener};
use broker_server::driver::mailbox::{Inbox, Mailbox, mailbox};
use broker_server::driver::meta::MetaHandle;
use broker_server::driver::replies::Replies;
use broker_server::driver::shard::{EVENTS_MAX, Shard, WAKER};
use broker_server::driver::{journal, login, pages};
use harness::random::Random;
use mio::{Events, Poll, Waker};

use crate::socket::Socket;

/// Small files, so that they are soon full and used again.
const FILE_BYTES: u64 = 256 * 1024;
/// When the world began, in milliseconds since 1970.
const BEGAN_MS: u64 = 1_700_000_000_000;

/// See the module's page.
pub struct Serving {
    shard: Shard,
    events: Events,
    journal: journal::Worker,
    pages: pages::Worker,
    login: login::Worker,
    /// What the cluster tells the shard, before the shard hears it.
    told: Inbox,
    mailbox: Mailbox,
    doors: Rc<RefCell<Doors>>,
    random: Random,
    /// The disk takes its time.
    disk_rests: u64,
    /// Its waker is in the mailbox of `told`.
    _poll: Poll,
}

#[derive(Default)]
struct Doors {
    open: bool,
    waiting: VecDeque<(TcpStream, SocketAddr)>,
    came: u16,
}

/// A door that stands open.
struct Door(Rc<RefCell<Doors>>);

impl Serving {
    /// The shard takes over, with what is on the disk.
    pub fn begin(
        handle: &Handle,
        config: &Config,
        disk: &SimDisk,
        mut random: Random,
        (now, now_ms): (Instant, u64),
    ) -> io::Result<Serving> {
        let (told_mailbox, told, told_poll) = a_mailbox()?;
        let (mailbox, inbox, poll) = a_mailbox()?;
        let catalog = handle.go_live(&told_mailbox, config, to_shard(told_mailbox.clone()));
        let options = StoreOptions {
            journal_file_bytes: FILE_BYTES,
            journal_budget_bytes: 2 * FILE_BYTES,
            segment_file_bytes: FILE_BYTES,
            ..StoreOptions::new("/store", random.draw())
        };
        let node = handle.node();
        let now_ms = BEGAN_MS + now_ms;
        let store = Store::recover(Arc::new(disk.clone()), &options, &catalog, node, now_ms);
        let mut store = store.map_err(|failure| io::Error::other(failure.message))?;
        let batch = store.journal.batch();
        let (journal_handle, journal) = journal::in_steps(store.journal, mailbox.clone());
        let (pages_handle, pages) = pages::in_steps(store.segments, mailbox.clone(), now);
        let (login_handle, login) = login::in_steps(mailbox.clone());
        let doors = Rc::new(RefCell::new(Doors::default()));
        let open = {
            let doors = doors.clone();
            move || {
                doors.borrow_mut().open = true;
                Listener::Given(Box::new(Door(doors.clone())))
            }
        };
        let surroundings = Surroundings {
            poll,
            inbox,
            listeners: vec![(open(), None)],
            listen: Box::new(move |_| Ok(open())),
            journal: journal_handle,
            pages: pages_handle,
            meta: MetaHandle::Member(Box::new(Cluster::of(handle.clone()))),
            login: login_handle,
        };
        let mut octets = || std::array::from_fn(|_| random.draw() as u8);
        let replies = Replies::new(octets());
        let login_key = octets();
        let parts = parts(config, &settings(config), (node, catalog), (store.queues, batch), replies, surroundings);
        let shard = Shard::new(parts, (now, now_ms), u128::from(random.draw()), login_key)?;
        let events = Events::with_capacity(EVENTS_MAX);
        Ok(Serving {
            shard,
            events,
            journal,
            pages,
            login,
            told,
            mailbox,
            doors,
            random,
            disk_rests: 0,
            _poll: told_poll,
        })
    }

    /// What the cluster has told the shard, which has yet to hear it.
    pub fn told(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.told.take()).collect()
    }

    /// The shard hears it.
    pub fn hear(&self, event: Event) {
        self.mailbox.send(event);
    }

    /// A turn of the shard, and what the threads beside it would do meanwhile.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        self.shard.step(now, &mut self.events)?;
        self.login.step();
        if self.disk_rests > 0 {
            self.disk_rests -= 1;
            return Ok(());
        }
        self.journal.step(now);
        self.pages.step(now);
        if self.random.one_in(10) {
            self.disk_rests = self.random.below(50);
        }
        Ok(())
    }

    /// To which nodes there is a link.
    pub fn links(&self) -> Vec<u64> {
        self.shard.reaches().map(|node| node.0).collect()
    }

    /// A client comes. None if nobody is let in.
    pub fn connect(&self) -> io::Result<Option<Socket>> {
        let mut doors = self.doors.borrow_mut();
        if !doors.open {
            return Ok(None);
        }
        let (socket, theirs) = Socket::pair(None)?;
        doors.came = doors.came.wrapping_add(1);
        let from = here(doors.came);
        doors.waiting.push_back((theirs, from));
        Ok(Some(socket))
    }
}

impl Given for Door {
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.borrow_mut().waiting.pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn address(&self) -> SocketAddr {
        here(5672)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut doors = self.0.borrow_mut();
        doors.open = false;
        doors.waiting.clear();
    }
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn a_mailbox() -> io::Result<(Mailbox, Inbox, Poll)> {
    let poll = Poll::new()?;
    let (mailbox, inbox) = mailbox(Waker::new(poll.registry(), WAKER)?);
    Ok((mailbox, inbox, poll))
}
