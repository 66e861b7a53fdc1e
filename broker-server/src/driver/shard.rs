//! The broker's main loop: client sockets, connections and queues, on one thread.
//!
//! One turn: wait; read every socket that has something, hand the octets to its connection and carry out what comes of it; take what other threads
//! have sent; then hand the journal its next batch, and write to every socket that has something to send. Everything of a turn is one batch: one
//! read, one write, one commit, however many messages.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::{CloseReason, Connection, Exception, Input, Output, Reply, Settings};
use broker_core::access::Access;
use broker_core::exchange::Histories;
use broker_core::message::Message;
use broker_core::name::NodeId;
use broker_core::queue;
use broker_core::store::{JournalBatch, QueueId, Seq};
use broker_core::topology::{Destination, Topology};
use broker_meta::Catalog;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::admin::AdminState;
use super::admission::{Admission, AdmissionLimits, Admitted};
use super::client::{Client, Progress, Stream};
use super::deletions::Deletions;
use super::events::Event;
use super::journal::{self, JournalHandle};
use super::letters::Letters;
use super::links::{self, Links};
use super::listener::Listener;
use super::login::LoginHandle;
use super::mailbox::Inbox;
use super::meta::MetaHandle;
use super::numbers;
use super::overdue::Overdue;
use super::pages::{self, PagesHandle};
use super::queues::{CommonRules, LocalQueue};
use super::replies::Replies;
use super::requests::Waiter;
use super::slices::Slices;
use super::tally::Tally;
use super::throttle::Throttle;
use super::trace::Tracing;
use crate::config::cluster::QueueMasterLocator;
use crate::tls::Endpoint;

/// One socket read takes at most so many octets.
const READ_BYTES: usize = 256 * 1024;
/// The same for a client whose publishes wait for the store: what comes behind the first of them is kept until then, for every such client.
const HELD_READ_BYTES: usize = 8 * 1024;
/// A read of small messages is worked off in parts of so many octets: what a part becomes stays in the processor's cache.
const PART_BYTES: usize = 32 * 1024;
/// Messages are small when a read brings more than one for each so many octets. Large ones are better taken whole.
const SMALL_BYTES: usize = 4 * 1024;
/// So many sockets are told of in one turn at most.
pub const EVENTS_MAX: usize = 1024;
/// Events of other threads' wake-ups carry this token.
pub const WAKER: Token = Token(usize::MAX);
/// Tokens from here up to [`WAKER`] are listeners.
const LISTENERS: usize = usize::MAX - 1024;
/// Messages on their way to the store, unflushed or being paged out, may take this much before publishers are held back.
pub const STORE_BEHIND_BYTES: usize = 24 * 1024 * 1024;
/// A queue that holds no more than this in memory has nothing for the store: its messages pass through.
const PASSING_BYTES: usize = 1024 * 1024;
/// A publisher whose queue holds more than this in memory, and has consumers, is ahead of them.
const AHEAD_BYTES: usize = queue::RESIDENT_MAX_BYTES / 2;
/// So long it is not read from then: 50 MB a second remain.
const AHEAD_PAUSE: Duration = Duration::from_millis(5);
/// Clients of a node that has just started, or serves again, wait so long for its links at most...
const LINKS_WAIT: Duration = Duration::from_secs(5);
/// ...which are looked for this often.
const LINKS_PAUSE: Duration = Duration::from_millis(20);
/// Listening sockets that cannot be opened again rest so long.
const DOORS_PAUSE: Duration = Duration::from_secs(1);
/// After a failed accept for want of file descriptors, the listener rests.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// So many TLS handshakes get on in a turn at most: each may cost a millisecond of arithmetic, and everybody else waits.
const HANDSHAKES_PER_TURN: usize = 4;
/// That there are too many connections is said so often at most.
const CROWD_TOLD_EVERY: Duration = Duration::from_secs(1);
/// Connections have so long to close at a shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
/// A closed connection's last octets may take so long to leave, and its client may take so long to shut the socket.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// Publishes to be stored may be gathered so long, while each turn brings more: a client that sends its whole window then waits for one sync.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// Nor is more gathered than this.
const GATHER_MAX_BYTES: usize = 1024 * 1024;
/// Settles are not worth a commit of their own, nor a wake-up of the segments' thread: they wait so long for the company of a publish...
const SETTLES_WAIT: Duration = Duration::from_millis(20);
/// ...or until they are so many octets.
const SETTLES_MAX_BYTES: usize = 256 * 1024;
/// After a full disk, the journal is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// No queue's timer is farther away than the longest time to live: a hundred years are enough to add without overflow.
const TIMER_MAX_MS: u64 = 100 * 365 * 86_400_000;

/// What accepts connections, and TLS if they are to speak it.
pub type Door = (Listener, Option<Arc<Endpoint>>);

/// What the shard is made of; see [`Shard::new`].
pub struct Parts {
    /// Waits for sockets; its waker is in the mailbox of `inbox`.
    pub poll: Poll,
    /// Where other threads send.
    pub inbox: Inbox,
    /// Where AMQP connections are accepted.
    pub listeners: Vec<Door>,
    /// Opens a door again.
    pub listen: Box<dyn Fn(SocketAddr) -> io::Result<Listener>>,
    /// Options of accepted sockets.
    pub nodelay: bool,
    /// Limits and texts of connections.
    pub settings: Arc<Settings>,
    /// This node's number in the cluster.
    pub node: NodeId,
    /// Where new queues are to live.
    pub locator: QueueMasterLocator,
    /// The catalog's views at start.
    pub topology: Topology,
    /// Users and permissions at start.
    pub access: Arc<Access>,
    /// The whole catalog at start.
    pub catalog: Catalog,
    /// The queues there are at start.
    pub queues: Vec<(QueueId, Box<LocalQueue>)>,
    /// An empty batch for the journal.
    pub batch: Option<JournalBatch>,
    /// The journal's thread.
    pub journal: JournalHandle,
    /// The segments' thread.
    pub pages: PagesHandle,
    /// The catalog's thread.
    pub meta: MetaHandle,
    /// The password thread.
    pub login: LoginHandle,
    /// Users that may only come from this machine.
    pub loopback_users: Vec<String>,
    /// Connections at the same time, 0 for no limit.
    pub connection_max: usize,
    /// Vhosts there may be, 0 for no limit.
    pub vhost_max: u64,
    /// Bindings a queue may have.
    pub bindings_max: u64,
    /// Connections that have not logged in.
    pub admission: AdmissionLimits,
    /// Deliveries that are not settled.
    pub overdue: Overdue,
    /// The firehose.
    pub tracing: Tracing,
    /// Direct reply-to.
    pub replies: Replies,
    /// Refused logins after which further ones are delayed.
    pub login_failures_max: Option<u32>,
}

/// A connection that was accepted and is not listened to yet.
struct Arrival {
    socket: TcpStream,
    peer: SocketAddr,
    /// It is to speak TLS.
    tls: Option<Arc<Endpoint>>,
}

/// See the module's page.
pub struct Shard {
    pub(super) parts: Parts,
    pub(super) now: Instant,
    /// The same in milliseconds since 1970, told by the clock that nobody sets: times of expiry follow it.
    pub(super) now_ms: u64,
    started: (Instant, u64),
    pub(super) clients: Slab<Box<Client>>,
    next_serial: u64,
    /// Boxed: they are large, and the table moves what it holds and has room to spare.
    pub(super) queues: HashMap<QueueId, Box<LocalQueue>, RandomState>,
    /// Grows with every change that may send a publish elsewhere or refuse it.
    pub(super) generation: u64,
    read_buffer: Box<[u8]>,
    outputs: Vec<Output>,
    pub(super) queue_outputs: Vec<queue::Output>,
    readable: VecDeque<usize>,
    pub(super) dirty: Vec<usize>,
    /// Replies that came out of a queue or from another thread, to be given when no connection is being worked on.
    pub(super) replies: VecDeque<(u64, u16, Reply)>,
    /// Messages of a batch that goes to several queues, as far as one of them keeps them.
    pub(super) shared_messages: Vec<OnceCell<Message>>,
    /// Queues with something for the journal.
    pub(super) dirty_queues: Vec<QueueId>,
    batch: Option<JournalBatch>,
    /// The batch holds settles, which are committed then at the latest.
    settles_due: Option<Instant>,
    /// The segments' thread hears then what it may forget.
    forget_due: Option<Instant>,
    /// Since when publishes are being gathered for one commit.
    gathering: Option<Instant>,
    /// What waited to be stored when it was last looked at.
    unflushed_seen: usize,
    flushed: Vec<(QueueId, Seq)>,
    journal_rests_until: Option<Instant>,
    /// A batch the disk had no room for.
    refused: Option<(JournalBatch, Vec<(QueueId, Seq)>)>,
    pub(super) unflushed_bytes: usize,
    pub(super) flushing_bytes: usize,
    pub(super) paging_bytes: usize,
    /// Page-outs for the journal: queue, ticket, and the place they answer for.
    pub(super) paging_for_journal: HashMap<(QueueId, u64), Seq>,
    pub(super) page_bytes: HashMap<(QueueId, u64), usize>,
    pub(super) resident_bytes: usize,
    pub(super) resident_max: usize,
    /// An empty list that takes turns with those of the clients.
    pub(super) no_spent: Vec<u32>,
    /// Queues that hold more than a little in memory.
    pub(super) large_queues: HashSet<QueueId, RandomState>,
    /// Queues that were told to hold less than they may at ease.
    pub(super) pressed_queues: HashSet<QueueId, RandomState>,
    /// Queues in which exchanges hold messages back.
    pub(super) holders: HashSet<QueueId, RandomState>,
    pub(super) slices: Slices,
    /// Deleted queues of which the store is to hear at the end of the turn.
    pub(super) gone_queues: Vec<QueueId>,
    pub(super) waiters: HashMap<u64, Waiter>,
    pub(super) next_proposal: u64,
    pub(super) admin: AdminState,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// The alarm that clients are told of: this node's, or another's.
    alarm: Option<&'static str>,
    alarm_here: Option<&'static str>,
    pub(super) alarm_elsewhere: Option<&'static str>,
    /// The node sees too few others and serves no clients.
    pub(super) paused: bool,
    /// An operator has said that it serves none.
    pub(super) drained: bool,
    /// Where nobody may connect at the moment.
    closed_doors: Vec<(SocketAddr, Option<Arc<Endpoint>>)>,
    doors_rest_until: Option<Instant>,
    /// It had all links once since it began to serve.
    pub(super) has_links: bool,
    pub(super) serves_since: Instant,
    pub(super) links: Links,
    pub(super) link_buffer: Vec<u8>,
    held_back: bool,
    stopping: Option<Instant>,
    accept_rests_until: Option<Instant>,
    /// Deliveries that met a closed channel, to be given back.
    pub(super) feed_later: Vec<(QueueId, u64)>,
    /// Transactions all of whose publishes are stored.
    pub(super) committed_transactions: Vec<(u64, u16, bool)>,
    pub(super) letters: Letters,
    pub(super) deletions: Deletions,
    /// When queues want to be told of the time, in milliseconds since 1970; each queue once.
    pub(super) queue_timers: BTreeSet<(u64, QueueId)>,
    pub(super) common_rules: CommonRules,
    /// Keyed hashes of logins that were found right.
    pub(super) verified: HashSet<[u8; 32]>,
    /// The key of those hashes: random, and never leaves the process.
    pub(super) login_key: [u8; 32],
    pub(super) throttle: Throttle,
    pub(super) tally: Tally,
    admission: Admission<Arrival>,
    crowd_told_at: Option<Instant>,
    seed: u128,
    pub(super) histories: Histories,
}

impl Shard {
    /// A shard ready to run.
    pub fn new(mut parts: Parts, (now, now_ms): (Instant, u64), seed: u128, login_key: [u8; 32]) -> io::Result<Self> {
        for (at, (listener, _)) in parts.listeners.iter_mut().enumerate() {
            listener.watch(parts.poll.registry(), Token(LISTENERS + at))?;
        }
        let mut queues: HashMap<QueueId, Box<LocalQueue>, RandomState> =
            std::mem::take(&mut parts.queues).into_iter().collect();
        // Those that wait for a time are asked at the first turn which it is.
        let mut queue_timers = BTreeSet::new();
        for (&id, local) in queues.iter_mut().filter(|(_, local)| local.queue.has_timeouts()) {
            local.timer_at = Some(0);
            queue_timers.insert((0, id));
        }
        count_bindings(&parts.topology, &mut queues);
        let holders = queues.iter().filter(|(_, local)| local.queue.holds_back()).map(|(&id, _)| id).collect();
        let batch = parts.batch.take();
        Ok(Shard {
            now_ms,
            started: (now, now_ms),
            letters: Letters::default(),
            deletions: Deletions::default(),
            queue_timers,
            common_rules: CommonRules::default(),
            throttle: Throttle::new(parts.login_failures_max),
            tally: Tally::default(),
            admission: Admission::new(parts.admission),
            crowd_told_at: None,
            parts,
            now,
            clients: Slab::new(),
            next_serial: 1,
            queues,
            generation: 1,
            read_buffer: vec![0; READ_BYTES].into(),
            outputs: Vec::new(),
            queue_outputs: Vec::new(),
            readable: VecDeque::new(),
            dirty: Vec::new(),
            replies: VecDeque::new(),
            shared_messages: Vec::new(),
            dirty_queues: Vec::new(),
            batch,
            settles_due: None,
            forget_due: None,
            gathering: None,
            unflushed_seen: 0,
            flushed: Vec::new(),
            journal_rests_until: None,
            refused: None,
            unflushed_bytes: 0,
            flushing_bytes: 0,
            paging_bytes: 0,
            paging_for_journal: HashMap::new(),
            page_bytes: HashMap::new(),
            resident_bytes: 0,
            resident_max: queue::RESIDENT_MAX_BYTES,
            no_spent: Vec::new(),
            large_queues: HashSet::default(),
            pressed_queues: HashSet::default(),
            holders,
            slices: Slices::default(),
            gone_queues: Vec::new(),
            waiters: HashMap::new(),
            next_proposal: 1,
            admin: AdminState::default(),
            timers: BinaryHeap::new(),
            alarm: None,
            alarm_here: None,
            alarm_elsewhere: None,
            paused: false,
            drained: false,
            closed_doors: Vec::new(),
            doors_rest_until: None,
            has_links: false,
            serves_since: now,
            links: Links::default(),
            link_buffer: Vec::new(),
            held_back: false,
            stopping: None,
            accept_rests_until: None,
            feed_later: Vec::new(),
            committed_transactions: Vec::new(),
            verified: HashSet::new(),
            login_key,
            seed,
            histories: Histories::default(),
        })
    }

    /// Runs until the node is told to stop and all is written.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            self.wait(&mut events)?;
            if self.turn(Instant::now(), &events, false) {
                return self.stop();
            }
        }
    }

    /// One turn that waits for nothing, for whoever has the time in hand and steps the threads beside it. True when all is over.
    pub fn step(&mut self, now: Instant, events: &mut Events) -> io::Result<bool> {
        poll(&mut self.parts.poll, events, Some(Duration::ZERO))?;
        // Doors that are given tell nobody that somebody is there.
        Ok(self.turn(now, events, true))
    }

    /// Other nodes to which there is a link.
    pub fn reaches(&self) -> impl Iterator<Item = NodeId> {
        self.links.nodes()
    }

    /// Everything but waiting. True when the node is to stop and nobody needs to be waited for any more.
    fn turn(&mut self, now: Instant, events: &Events, mut accept: bool) -> bool {
        self.now = now;
        self.now_ms = self.started.1 + self.now.duration_since(self.started.0).as_millis() as u64;
        accept |= self.note_ready(events);
        self.read_clients();
        self.read_links();
        while let Some(event) = self.parts.inbox.take() {
            self.take_event(event);
        }
        self.fire_timers();
        if !self.slices.is_empty() {
            self.carry_out_slice();
        }
        if accept {
            self.accept_all();
        }
        self.finish_turn();
        self.stopping.is_some_and(|deadline| self.clients.is_empty() || self.now >= deadline)
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let busy = self.readable.iter().any(|&place| self.may_read(place))
            || !self.dirty.is_empty()
            || !self.replies.is_empty()
            || self.gathering.is_some()
            || self.letters.wait()
            || !self.slices.is_empty()
            || self.admission.wants_backlog()
            || !self.committed_transactions.is_empty()
            || self.links.busy();
        if busy {
            return poll(&mut self.parts.poll, events, Some(Duration::ZERO));
        }
        let waiting =
            self.readable.iter().any(|&place| self.clients.get(place).is_some_and(|client| self.is_ahead(client)));
        self.parts.inbox.about_to_sleep();
        let timeout = match self.parts.inbox.take() {
            Some(event) => {
                self.parts.inbox.awake();
                self.take_event(event);
                Some(Duration::ZERO)
            }
            None if waiting => Some(AHEAD_PAUSE),
            None => self.next_timeout().map(|at| at.saturating_duration_since(Instant::now())),
        };
        let result = poll(&mut self.parts.poll, events, timeout);
        self.parts.inbox.awake();
        result
    }

    fn next_timeout(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let settles_due = self.settles_due.filter(|_| self.batch.is_some());
        let queue = self.queue_timers.first().filter(|_| self.stopping.is_none()).map(|(at_ms, _)| {
            self.started.0 + Duration::from_millis(at_ms.saturating_sub(self.started.1).min(TIMER_MAX_MS))
        });
        [
            timer,
            queue,
            settles_due,
            self.parts.overdue.check_at(),
            self.forget_due,
            self.journal_rests_until,
            self.deletions.again_at(),
            self.accept_rests_until,
            self.doors_rest_until.filter(|_| !self.paused && !self.drained),
            self.stopping,
            self.links.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn note_ready(&mut self, events: &Events) -> bool {
        let rested = self.accept_rests_until.is_some_and(|until| self.now >= until);
        let mut accept = rested || self.admission.wants_backlog();
        for event in events {
            match event.token() {
                WAKER => {}
                Token(listener) if listener >= LISTENERS => accept = true,
                Token(link) if link >= links::TOKENS => {
                    let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                    self.link_is_ready(link, readable, event.is_writable());
                }
                Token(place) => {
                    let Some(client) = self.clients.get_mut(place) else { continue };
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        client.readable = true;
                        client.hung_up |= event.is_read_closed();
                        if !std::mem::replace(&mut client.listed, true) {
                            self.readable.push_back(place);
                        }
                    }
                    if event.is_writable() {
                        self.mark_dirty(place);
                    }
                }
            }
        }
        accept
    }

    /// Reads every socket that has something once, in turn, so that none starves the others.
    fn read_clients(&mut self) {
        let mut handshakes = 0;
        for _ in 0..self.readable.len() {
            let Some(place) = self.readable.pop_front() else { break };
            let shakes_hands = self.clients.get(place).is_some_and(|client| client.tls_deadline().is_some());
            handshakes += usize::from(shakes_hands);
            if !self.may_read(place) || (shakes_hands && handshakes > HANDSHAKES_PER_TURN) {
                if self.clients.contains(place) {
                    self.readable.push_back(place);
                }
                continue;
            }
            self.read_client(place);
        }
    }

    /// Whether a listed client may be read now: not while its channel waits for an answer, an alarm holds it, or the store is behind and a publish of
    /// it waits.
    fn may_read(&self, place: usize) -> bool {
        self.clients.get(place).is_some_and(|client| {
            client.closing.is_some()
                || !(client.blocked
                    || (client.amqp.paused() && !self.lets_go(client))
                    || (client.publisher && self.is_ahead(client)))
        })
    }

    /// Whether a publish that waits for the store need not any more.
    fn lets_go(&self, client: &Client) -> bool {
        client.amqp.holds_a_publish() && !self.is_held_back(client)
    }

    /// A random number, good enough to choose a queue by.
    pub(super) fn throw_dice(&mut self) -> u64 {
        self.next_seed();
        (self.seed >> 64) as u64
    }

    fn next_seed(&mut self) {
        self.seed = self
            .seed
            .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
            .wrapping_add(0x5851_F42D_4C95_7F2D_1405_7B7E_F767_814F);
    }

    /// Whether a publisher is ahead of its queue's consumers by more than fits in memory at ease. It is read less often then, so that messages that
    /// are about to be consumed need not go to the disk first; but still often enough that a slow consumer never slows it to its own pace.
    fn is_ahead(&self, client: &Client) -> bool {
        self.now < client.read_at + AHEAD_PAUSE
            && client
                .target
                .and_then(|queue| self.queues.get(&queue))
                .is_some_and(|local| local.queue.resident_bytes() > AHEAD_BYTES && local.queue.consumer_count() > 0)
    }

    /// Whether a publisher has to wait: for letters, or for the store if that is behind with what it publishes. Messages that only pass through memory
    /// have nothing to wait for.
    fn is_held_back(&self, client: &Client) -> bool {
        if !client.publisher {
            return false;
        }
        let piles_up = || {
            let queue = client.target.and_then(|queue| self.queues.get(&queue));
            queue.is_some_and(|local| local.queue.resident_bytes() > PASSING_BYTES)
        };
        (self.held_back && (self.letters.wait() || client.loads_store || piles_up()))
            || client.target_node.is_some_and(|node| !self.links.may_publish(node))
    }

    fn read_client(&mut self, place: usize) {
        let Some(client) = self.clients.get(place) else { return };
        let held_back = self.is_held_back(client);
        let Some(client) = self.clients.get_mut(place) else { return };
        client.amqp.hold_publishes(held_back);
        if client.amqp.wants_resume() {
            // What it held comes first, and may be all that may be taken of it now.
            self.readable.push_back(place);
            let mut out = Vec::new();
            return self.work_off(place, &[], &mut out);
        }
        client.read_at = self.now;
        // What is found behind a publish that waits is kept.
        let room = if held_back { HELD_READ_BYTES } else { READ_BYTES };
        let progress = client.read(self.read_buffer.get_mut(..room).unwrap_or_default());
        // Of a peer that hung up no further event comes: it is read to the end.
        let more = matches!(progress, Progress::Some(_)) || client.hung_up;
        client.readable = more;
        client.listed = more;
        if more {
            self.readable.push_back(place);
        }
        match progress {
            Progress::Some(octets) | Progress::Dry(octets) => {
                if octets == 0 || client.closing.is_some() {
                    return;
                }
                self.take_octets(place, octets);
            }
            Progress::Gone => self.client_gone(place, "the client closed the socket"),
        }
    }

    /// Who holds a publish is looked at until it need not any more.
    fn list_holder(&mut self, place: usize) {
        if let Some(client) = self.clients.get_mut(place)
            && client.amqp.holds_a_publish()
            && !std::mem::replace(&mut client.listed, true)
        {
            self.readable.push_back(place);
        }
    }

    /// Hands what was read to its connection, in parts when it holds many small messages.
    fn take_octets(&mut self, place: usize, octets: usize) {
        let buffer = std::mem::take(&mut self.read_buffer);
        let mut out = std::mem::take(&mut self.outputs);
        let mut outputs = 0;
        let small = self.clients.get(place).is_some_and(|client| client.sends_small);
        for part in buffer[..octets].chunks(if small { PART_BYTES } else { READ_BYTES }) {
            let Some(client) = self.clients.get_mut(place) else { break };
            client.amqp.receive(self.now, part, &mut out);
            outputs += out.len();
            self.work_off(place, part, &mut out);
        }
        if let Some(client) = self.clients.get_mut(place) {
            client.sends_small = outputs * SMALL_BYTES > octets;
        }
        self.outputs = out;
        self.read_buffer = buffer;
    }

    /// Carries out what a connection wants, and lets it go on with what it held back meanwhile. `octets` are those it has just received, if any.
    pub(super) fn work_off(&mut self, place: usize, octets: &[u8], out: &mut Vec<Output>) {
        loop {
            self.carry_out(place, octets, out);
            match self.clients.get_mut(place) {
                Some(client) if client.amqp.wants_resume() => client.amqp.resume(self.now, out),
                _ => break,
            }
        }
        self.list_holder(place);
        self.mark_dirty(place);
    }

    /// Tells a connection something and works off what comes of it.
    pub(super) fn tell(&mut self, place: usize, input: Input) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let mut out = Vec::new();
        client.amqp.step(self.now, input, &mut out);
        self.work_off(place, &[], &mut out);
    }

    /// The place of a connection that is still there.
    pub(super) fn place_of(&self, number: u64) -> Option<usize> {
        let place = numbers::place_in(number);
        self.clients.get(place).is_some_and(|client| client.number == number).then_some(place)
    }

    pub(super) fn mark_dirty(&mut self, place: usize) {
        if let Some(client) = self.clients.get_mut(place)
            && !std::mem::replace(&mut client.dirty, true)
        {
            self.dirty.push(place);
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Committed(committed) => self.committed(committed),
            Event::Paged { queue, ticket, stretches } => self.paged(queue, ticket, stretches),
            Event::PagedThrough(queue, through, state) => {
                self.parts.journal.send(journal::Work::Paged(queue, through, state))
            }
            Event::Loaded { queue, run, from, entries, next, lost } => {
                self.feed(queue, queue::Input::Loaded { run, from, entries, next, lost })
            }
            Event::Applied(applied) => self.applied(applied),
            Event::NotApplied(numbers) => self.not_applied(numbers),
            Event::Link { node, incarnation, stream, tls } => self.link_is_up(node, incarnation, (stream, tls)),
            Event::Pause(paused) => self.pause(paused),
            // Whoever asked may have gone.
            Event::Drain(drained, answer) => drop(answer.send(self.drain(drained))),
            Event::AlarmElsewhere(reason) => self.alarm_elsewhere(reason),
            Event::Login(result) => self.login_checked(result),
            Event::Alarm(reason) => self.alarm_changed(reason),
            Event::Shutdown => self.begin_shutdown(),
            Event::Admin(request) => self.admin_request(request),
            Event::Dump => self.dump(),
        }
    }

    /// Whether the store is behind with what publishers bring.
    pub(super) fn is_behind(&self) -> bool {
        self.held_back
    }

    /// Replies, the journal's next batch, then everything that is to be written.
    fn finish_turn(&mut self) {
        self.give_back();
        self.tell_store_of_gone_queues();
        self.publish_letters();
        self.answer_transactions();
        self.give_replies();
        if !self.goes_on_gathering() {
            self.flush_journal();
        }
        // Another node must not let somebody in who hears from this one that its limit is reached.
        if self.tell_tally() {
            self.write_links();
        }
        // Writing makes room for consumers, whose queues then have more to write: a few rounds in a turn, so that reading is not starved.
        for _ in 0..4 {
            if self.dirty.is_empty() {
                break;
            }
            self.write_dirty();
            self.give_replies();
        }
        self.write_links();
        if self.gathering.is_none() {
            self.flush_journal();
        }
        self.flush_forgotten();
        let behind = self.unflushed_bytes + self.flushing_bytes + self.paging_bytes;
        // Letters that wait in spite of all a turn may publish: what refused publishes become must not gather without end.
        self.held_back = self.letters.wait()
            || if self.held_back { behind > STORE_BEHIND_BYTES / 2 } else { behind > STORE_BEHIND_BYTES };
        self.balance_memory();
        if let Some(cluster) = self.parts.meta.cluster() {
            cluster.load_is(self.clients.len(), self.queues.len());
        }
    }

    /// All of a turn at once: to wake the store's threads for each would take longer than to delete it.
    fn tell_store_of_gone_queues(&mut self) {
        if !self.gone_queues.is_empty() {
            let gone: Arc<[QueueId]> = std::mem::take(&mut self.gone_queues).into();
            self.parts.pages.send(pages::Work::Drop(gone.clone()));
            self.parts.journal.send(journal::Work::Forget(gone));
        }
    }

    pub(super) fn give_replies(&mut self) {
        while let Some((number, channel, reply)) = self.replies.pop_front() {
            match (self.place_of(number), reply) {
                (Some(place), reply) => self.tell(place, Input::Reply { channel, reply }),
                // Its connection went while the message was read from the disk or came from another node.
                (None, Reply::GetOk { queue, queue_tag, .. }) if queue_tag != 0 => {
                    let outcome = queue::Outcome::Undelivered;
                    self.feed(QueueId(queue), queue::Input::Settle { first: queue_tag, last: queue_tag, outcome });
                }
                (None, _) => {}
            }
        }
    }

    fn write_dirty(&mut self) {
        let mut places = std::mem::take(&mut self.dirty);
        for place in places.drain(..) {
            if self.clients.get(place).is_some_and(|client| client.amqp.has_delivered() && !client.watched) {
                self.watch_deliveries(place);
            }
            if self.clients.get(place).is_some_and(|client| client.amqp.hoards()) {
                self.close_hoarder(place);
            }
            let Some(client) = self.clients.get_mut(place) else { continue };
            client.dirty = false;
            client.amqp.flush_confirms();
            match client.write() {
                Progress::Gone => self.client_gone(place, "the socket failed"),
                Progress::Dry(_) => {}
                Progress::Some(_) => {
                    if client.closing.is_some() {
                        // What a client still sends after its close must not meet a shut socket: the reset would reach it before close-ok does.
                        if !client.lingers || self.stopping.is_some() {
                            self.remove_client(place);
                        }
                    } else {
                        self.arm_timer(place);
                        self.give_room(place);
                    }
                }
            }
        }
        if self.dirty.is_empty() {
            self.dirty = places;
        }
    }

    /// A channel holds more deliveries than it may.
    fn close_hoarder(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let mut out = Vec::new();
        client.amqp.close_hoarder(self.now, &mut out);
        self.work_off(place, &[], &mut out);
    }

    /// Looks at a connection's timeouts when the earliest of them is due, not before.
    pub(super) fn arm_timer(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(at) = client.next_timeout() else { return };
        if client.timer_at.is_none_or(|armed| at < armed) {
            client.timer_at = Some(at);
            self.timers.push(Reverse((at, client.number)));
        }
    }

    fn fire_timers(&mut self) {
        while let Some(Reverse((at, number))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.timers.pop();
            let Some(place) = self.place_of(number) else { continue };
            let Some(client) = self.clients.get_mut(place) else { continue };
            if client.timer_at != Some(at) {
                continue;
            }
            client.timer_at = None;
            if client.closing.is_some() {
                // It does not take what it was to be told, or does not shut the socket.
                self.remove_client(place);
                continue;
            }
            if client.tls_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.client_gone(place, "the TLS handshake took too long");
                continue;
            }
            self.release_login(place);
            let Some(client) = self.clients.get_mut(place) else { continue };
            if client.amqp.next_timeout().is_some_and(|due| due <= self.now) {
                if !self.may_read(place)
                    && let Some(client) = self.clients.get_mut(place)
                {
                    client.amqp.not_read();
                }
                let Some(client) = self.clients.get_mut(place) else { continue };
                let mut out = Vec::new();
                client.amqp.timeout(self.now, &mut out);
                self.work_off(place, &[], &mut out);
            }
            self.arm_timer(place);
        }
        self.fire_queue_timers();
        self.open_doors();
        self.release_seen();
        self.see_departures();
        self.announce_again();
        self.delete_again();
        self.check_deliveries();
        if self.journal_rests_until.is_some_and(|until| self.now >= until) {
            self.journal_rests_until = None;
            if let Some((batch, flushed)) = self.refused.take() {
                self.parts.journal.send(journal::Work::Commit { batch, flushed });
            }
        }
    }

    fn fire_queue_timers(&mut self) {
        if self.stopping.is_some() {
            // A queue is not to expire because the node takes its time to stop.
            return;
        }
        let mut due: Vec<QueueId> = Vec::new();
        while let Some((_, id)) = self.queue_timers.first().copied().filter(|(at, _)| *at <= self.now_ms) {
            self.queue_timers.pop_first();
            let Some(local) = self.queues.get_mut(&id) else { continue };
            local.timer_at = None;
            due.push(id);
        }
        // One that is due again at once comes in the next turn, so that no queue holds the others up.
        for id in due {
            self.feed(id, queue::Input::Time);
        }
    }

    /// Nobody may connect any more: who tries is refused by the kernel, and goes to another node.
    pub(super) fn close_doors(&mut self) {
        for (mut listener, tls) in self.parts.listeners.drain(..) {
            if let Err(error) = listener.leave(self.parts.poll.registry()) {
                tracing::debug!(%error, "cannot stop watching a listening socket");
            }
            match listener.address() {
                Ok(address) => self.closed_doors.push((address, tls)),
                Err(error) => tracing::error!(%error, "a listening socket does not know its address; it stays closed"),
            }
        }
        self.admission.forget_backlog();
    }

    /// Opens what was closed, if it is time; what cannot be opened is tried again.
    pub(super) fn open_doors(&mut self) {
        if self.paused
            || self.drained
            || self.closed_doors.is_empty()
            || self.doors_rest_until.is_some_and(|until| self.now < until)
        {
            return;
        }
        self.doors_rest_until = None;
        for (address, tls) in std::mem::take(&mut self.closed_doors) {
            let opened = (self.parts.listen)(address).and_then(|mut listener| {
                let token = Token(LISTENERS + self.parts.listeners.len());
                listener.watch(self.parts.poll.registry(), token)?;
                Ok(listener)
            });
            match opened {
                Ok(listener) => self.parts.listeners.push((listener, tls)),
                Err(error) => {
                    tracing::warn!(%address, %error, "cannot listen for clients again; trying on");
                    self.closed_doors.push((address, tls));
                    self.doors_rest_until = Some(self.now + DOORS_PAUSE);
                }
            }
        }
        self.accept_rests_until = Some(self.now);
    }

    fn accept_all(&mut self) {
        const CROWDED: &str = "so many connections have not logged in that new ones wait in the kernel";
        self.accept_rests_until = None;
        if self.waits_for_links() {
            self.accept_rests_until = Some(self.now + LINKS_PAUSE);
            return;
        }
        if self.parts.listeners.is_empty() {
            // While the node stops, there is no kernel's queue to come back to.
            self.admission.forget_backlog();
        }
        for at in 0..self.parts.listeners.len() {
            loop {
                if !self.admission.accepts() {
                    return self.tell_of_crowd(CROWDED, None);
                }
                let (listener, tls) = &self.parts.listeners[at];
                match listener.accept() {
                    Ok((socket, peer)) => {
                        let tls = tls.clone();
                        self.accepted(Arrival { socket, peer, tls });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error)
                        if error.kind() == io::ErrorKind::Interrupted
                            || error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection; trying again");
                        self.accept_rests_until = Some(self.now + ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
    }

    /// Whether clients have to wait because this node has just started, or serves again, and has no link yet to others that run: their queues would seem to be down.
    fn waits_for_links(&mut self) -> bool {
        let running_for = self.now.saturating_duration_since(self.serves_since);
        if self.has_links || running_for > LINKS_WAIT {
            return false;
        }
        let expected = self.parts.meta.cluster().map(|cluster| cluster.expected(running_for)).unwrap_or_default();
        self.has_links = expected.into_iter().all(|node| self.links.reaches(node));
        !self.has_links
    }

    fn accepted(&mut self, arrival: Arrival) {
        const CLOSED: &str = "a connection was closed: its address has too many that have not logged in";
        match self.admission.arrived(arrival.peer.ip().into(), arrival) {
            Admitted::Serve(arrival, gives_way) => {
                if let Some(gone) = gives_way {
                    self.tell_of_crowd(CLOSED, Some(gone.peer));
                }
                self.serve(Some(arrival));
            }
            Admitted::Waits => {}
            Admitted::NoRoom(gone) => self.tell_of_crowd(CLOSED, Some(gone.peer)),
        }
    }

    /// Says once in a while that there are too many.
    fn tell_of_crowd(&mut self, what: &str, peer: Option<SocketAddr>) {
        if self.crowd_told_at.is_none_or(|at| self.now >= at + CROWD_TOLD_EVERY) {
            self.crowd_told_at = Some(self.now);
            let (unauthenticated, waiting) = (self.admission.served(), self.admission.waiting());
            let turned_away = self.admission.turned_away();
            tracing::warn!(peer = peer.map(tracing::field::display), unauthenticated, waiting, turned_away, "{what}");
        }
    }

    /// A client has logged in or is gone: its place goes to one that waits.
    pub(super) fn no_longer_a_stranger(&mut self, peer: SocketAddr) {
        let next = self.admission.left(peer.ip().into());
        self.serve(next);
    }

    /// Listens to a client that has its place among those that have not logged in; if that fails, to the next.
    fn serve(&mut self, mut next: Option<Arrival>) {
        while let Some(arrival) = next.take() {
            let peer = arrival.peer;
            if !self.listen_to(arrival) {
                next = self.admission.left(peer.ip().into());
            }
        }
    }

    fn listen_to(&mut self, arrival: Arrival) -> bool {
        let Arrival { mut socket, peer, tls } = arrival;
        if self.stopping.is_some() || (self.parts.connection_max > 0 && self.clients.len() >= self.parts.connection_max)
        {
            return false;
        }
        if self.parts.nodelay
            && let Err(error) = socket.set_nodelay(true)
        {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let place = self.clients.vacant_key();
        let Some(number) = numbers::number(self.parts.node, self.next_serial, place) else {
            tracing::error!(%peer, "more connections than the node can number; refused");
            return false;
        };
        // After four thousand million connections it begins anew: those are gone that had these numbers.
        self.next_serial = self.next_serial % u64::from(u32::MAX) + 1;
        if let Err(error) =
            self.parts.poll.registry().register(&mut socket, Token(place), Interest::READABLE | Interest::WRITABLE)
        {
            tracing::warn!(%peer, %error, "cannot watch a connection's socket; dropped");
            return false;
        }
        let settings = tls.as_ref().map_or(&self.parts.settings, |endpoint| endpoint.settings()).clone();
        let stream = match tls {
            None => Stream::Plain(socket),
            Some(endpoint) => match endpoint.begin(socket, self.now) {
                Ok(session) => Stream::Tls(Box::new(session)),
                Err(error) => {
                    tracing::warn!(%peer, %error, "cannot begin a TLS session; connection dropped");
                    return false;
                }
            },
        };
        // Names the broker makes for queues and consumers are to be unguessable only as far as RabbitMQ's are: unique on the node.
        self.next_seed();
        let amqp = Connection::new(self.now, settings, self.seed);
        let mut client = Box::new(Client::new(number, stream, peer, amqp, self.now));
        client.readable = true;
        client.listed = true;
        self.clients.insert(client);
        self.readable.push_back(place);
        self.arm_timer(place);
        tracing::debug!(%peer, connection = number, "connection accepted");
        true
    }

    fn client_gone(&mut self, place: usize, why: &str) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let reason = client.closing.take().unwrap_or_else(|| why.into());
        let mut out = Vec::new();
        client.amqp.step(self.now, Input::PeerGone, &mut out);
        self.work_off(place, &[], &mut out);
        if let Some(client) = self.clients.get_mut(place) {
            client.closing = Some(reason);
        }
        self.remove_client(place);
    }

    fn remove_client(&mut self, place: usize) {
        self.uncount(place);
        self.channels_changed(place);
        self.delete_exclusive_queues(place);
        let Some(mut client) = self.clients.try_remove(place) else { return };
        if std::mem::take(&mut client.lingers) {
            // In TLS it is told now that nothing more comes. If it does not take that, it is gone.
            client.write();
        }
        if let Err(error) = self.parts.poll.registry().deregister(client.socket()) {
            tracing::debug!(peer = %client.peer, %error, "cannot stop watching a socket");
        }
        let reason = client.closing.take().unwrap_or_default();
        tracing::info!(peer = %client.peer, connection = client.number, user = client.amqp.user().map(|user| &**user), reason, "connection closed");
        if client.stranger {
            self.no_longer_a_stranger(client.peer);
        }
    }

    /// The connection has said all it will say: what it sends is written, then the socket is closed.
    pub(super) fn close_client(&mut self, place: usize, reason: &CloseReason) {
        if let Some(client) = self.clients.get_mut(place) {
            if client.closing.is_none() {
                client.closing = Some(format!("{reason:?}"));
                client.lingers = matches!(reason, CloseReason::ByClient);
                let at = self.now + CLOSE_PATIENCE;
                client.timer_at = Some(at);
                self.timers.push(Reverse((at, client.number)));
            }
            if let CloseReason::Exception(exception) = reason {
                tracing::warn!(peer = %client.peer, connection = client.number, code = exception.code.number(), text = exception.text, "connection closed with an exception");
            }
        }
        self.mark_dirty(place);
    }

    fn alarm_changed(&mut self, reason: Option<&'static str>) {
        self.alarm_here = reason;
        self.tell_of_alarms();
    }

    /// An alarm anywhere in the cluster holds publishers back everywhere.
    pub(super) fn tell_of_alarms(&mut self) {
        let reason = self.alarm_here.or(self.alarm_elsewhere);
        if self.alarm == reason {
            return;
        }
        self.alarm = reason;
        let places: Vec<usize> = self.clients.iter().map(|(place, _)| place).collect();
        for place in places {
            if reason.is_none()
                && let Some(client) = self.clients.get_mut(place)
            {
                client.blocked = false;
            }
            self.tell(place, Input::Alarm { reason });
        }
    }

    /// Newly opened connections are told of an alarm that is on.
    pub(super) fn tell_alarm_to(&mut self, place: usize, more: &mut Vec<Output>) {
        if self.alarm.is_some()
            && let Some(client) = self.clients.get_mut(place)
        {
            client.amqp.step(self.now, Input::Alarm { reason: self.alarm }, more);
        }
    }

    /// What an operator wants to see who sends SIGUSR1.
    fn dump(&self) {
        let ready: u64 = self.queues.values().map(|local| local.queue.ready_count()).sum();
        let unacked: u64 = self.queues.values().map(|local| local.queue.unacked_count()).sum();
        tracing::info!(
            connections = self.clients.len(),
            unauthenticated = self.admission.served(),
            waiting = self.admission.waiting(),
            turned_away = self.admission.turned_away(),
            queues = self.queues.len(),
            ready,
            unacked,
            resident_bytes = self.resident_bytes,
            unflushed_bytes = self.unflushed_bytes + self.flushing_bytes,
            paging_bytes = self.paging_bytes,
            held_back = self.held_back,
            alarm = self.alarm,
            "state"
        );
    }

    fn begin_shutdown(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(connections = self.clients.len(), "stopping");
        self.stopping = Some(self.now + SHUTDOWN_PATIENCE);
        self.parts.listeners.clear();
        self.closed_doors.clear();
        let places: Vec<usize> = self.clients.iter().map(|(place, _)| place).collect();
        for place in places {
            if let Some(client) = self.clients.get_mut(place) {
                client.blocked = false;
                if client.lingers && client.amqp.send_buffer().is_empty() {
                    self.remove_client(place);
                    continue;
                }
            }
            self.tell(place, Input::ForceClose(Exception::shutdown("shutdown")));
        }
    }

    /// Writes what is left and ends the other threads, in the order in which they depend on each other.
    fn stop(mut self) -> io::Result<()> {
        let mut batch = self.wait_for_batch();
        self.tell_store_of_gone_queues();
        let mut ids: Vec<QueueId> = self.queues.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(local) = self.queues.get_mut(&id) {
                let mut sink = super::queues::Sink { queue: id, batch: &mut batch, last: true };
                local.queue.flush(&mut sink);
                local.queue.note_delivered(&mut sink);
            }
        }
        self.parts.journal.send(journal::Work::Stop(batch));
        self.parts.pages.join();
        self.parts.journal.join();
        self.parts.meta.join();
        tracing::info!("stopped");
        Ok(())
    }

    fn wait_for_batch(&mut self) -> JournalBatch {
        loop {
            if let Some(batch) = self.batch.take() {
                return batch;
            }
            if let Some((batch, _)) = self.refused.take() {
                return batch;
            }
            if let Some(event) = self.parts.inbox.take() {
                self.take_event(event);
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Lets the segments' thread forget what was settled, once in a while.
    fn flush_forgotten(&mut self) {
        if !self.parts.pages.wants_flush() {
            self.forget_due = None;
        } else if self.now >= *self.forget_due.get_or_insert(self.now + SETTLES_WAIT) {
            self.parts.pages.flush();
            self.forget_due = None;
        }
    }

    /// Whether this turn brought publishes to be stored, so that the next may bring more. If the journal is busy, they are gathered anyway.
    fn goes_on_gathering(&mut self) -> bool {
        let more = self.unflushed_bytes > std::mem::replace(&mut self.unflushed_seen, self.unflushed_bytes);
        let since = self.gathering.unwrap_or(self.now);
        let goes_on = more
            && self.batch.is_some()
            && self.unflushed_bytes < GATHER_MAX_BYTES
            && self.now.duration_since(since) < GATHER_MAX;
        self.gathering = goes_on.then_some(since);
        goes_on
    }

    /// Hands the journal everything that is to be stored, if it is free.
    fn flush_journal(&mut self) {
        let settles_are_due = self.settles_due.is_some_and(|due| self.now >= due);
        if self.dirty_queues.is_empty() {
            // No queue has anything of what was counted: it is transient, or consumers had it at once.
            (self.unflushed_bytes, self.unflushed_seen) = (0, 0);
            if !settles_are_due {
                return;
            }
        }
        let Some(mut batch) = self.batch.take() else { return };
        let mut flushed = std::mem::take(&mut self.flushed);
        // Queues that find the batch full come first the next time, then those that filled it.
        let (mut unserved, mut served) = (Vec::new(), Vec::new());
        for id in self.dirty_queues.drain(..) {
            let Some(local) = self.queues.get_mut(&id) else { continue };
            if batch.is_full() {
                unserved.push(id);
                continue;
            }
            let through = local.queue.flush(&mut super::queues::Sink { queue: id, batch: &mut batch, last: false });
            flushed.push((id, through));
            local.dirty = local.queue.wants_flush();
            if local.dirty {
                served.push(id);
            }
        }
        self.dirty_queues.append(&mut unserved);
        self.dirty_queues.append(&mut served);
        self.flushing_bytes =
            if self.dirty_queues.is_empty() { self.unflushed_bytes } else { batch.bytes().min(self.unflushed_bytes) };
        self.unflushed_bytes -= self.flushing_bytes;
        self.unflushed_seen = self.unflushed_bytes;
        if batch.needs_sync() {
            self.settles_due = None;
            self.parts.journal.send(journal::Work::Commit { batch, flushed });
            return;
        }
        // Nothing of these publishes has to be stored any more.
        self.flushing_bytes = 0;
        if batch.is_empty() {
            self.settles_due = None;
            self.batch = Some(batch);
        } else if settles_are_due || batch.bytes() >= SETTLES_MAX_BYTES {
            self.settles_due = None;
            self.parts.journal.send(journal::Work::Commit { batch, flushed: Vec::new() });
        } else {
            self.settles_due.get_or_insert(self.now + SETTLES_WAIT);
            self.batch = Some(batch);
        }
        self.stored(flushed);
    }

    fn committed(&mut self, committed: journal::Committed) {
        let journal::Committed { batch, flushed, retire, full } = committed;
        if full {
            tracing::error!("the disk is full: persistent messages wait until there is room");
            self.refused = Some((batch, flushed));
            self.journal_rests_until = Some(self.now + FULL_PAUSE);
            return;
        }
        self.flushing_bytes = 0;
        self.batch = Some(batch);
        self.stored(flushed);
        for (queue, through) in retire {
            self.page_through(queue, through);
        }
    }

    fn stored(&mut self, mut flushed: Vec<(QueueId, Seq)>) {
        for (queue, through) in flushed.drain(..) {
            self.feed(queue, queue::Input::Stored(through));
        }
        self.flushed = flushed;
    }
}

/// Counts what is bound to each queue, once: from then on it is counted as it changes.
fn count_bindings(topology: &Topology, queues: &mut HashMap<QueueId, Box<LocalQueue>, RandomState>) {
    for vhost in topology.vhosts() {
        for binding in vhost.bindings() {
            if let Destination::Queue(name) = &binding.destination
                && let Some(local) = vhost.queue(name).and_then(|record| queues.get_mut(&record.id))
            {
                local.bindings += 1;
            }
        }
    }
}

fn poll(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}
