//! Which nodes of the cluster answer, and what they say of themselves: gossip in datagrams.
//!
//! foca (SWIM with suspicion) probes nodes at random, asks others to probe one that does not answer, suspects it, and takes it for down if it does not
//! object. Beside it each node spreads one small message of facts: listeners, alarms, load, which nodes it sees. They go out when they change, and a node and
//! another at random compare what they have every second, so that what was lost comes all the same.
//!
//! What comes of it is a suggestion. Whether a node's queues are down is decided in the catalog's log; a suspicion that was wrong costs a few datagrams.
//!
//! A node that wakes up late, because its machine stood still, counts the time it missed for nobody: what it was about to suspect others of it
//! gives them the time for that it did not have itself.
//!
//! A plain state machine: the time, seeds and octets come in, octets and what became of it come out.

mod datagram;
#[cfg(test)]
mod tests;
mod words;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::{Duration, Instant};

use foca::{Config, Foca, NoCustomBroadcast, Notification, PeriodicParams, Runtime, Timer};
use prost::Message;
use proto::gossip::{Digest, digest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use datagram::{DATAGRAM_MAX_BYTES, Rejection};
pub use proto::gossip::{Facts, Listener};

use crate::peer::Secret;
use datagram::{CARRIED_MAX_BYTES, Kind, Opened, Window};
use words::{Id, Words};

/// A cluster has at most so many nodes.
pub const NODES_MAX: usize = 50;
/// The facts of a node are no longer than this, in octets: they go in one datagram.
pub const FACTS_MAX_BYTES: usize = CARRIED_MAX_BYTES;
/// A node that wakes up so much later than it wanted to was asleep.
const LATE: Duration = Duration::from_millis(500);
/// A node compares what it has with another one this often.
const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
/// It calls the members it does not see this often: a call that is lost is not repeated otherwise.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// One rejection of a kind is told in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What happens to it.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A datagram has come.
    Datagram(&'a [u8]),
    /// The members of the cluster, this node or not, and where they are: from the catalog.
    Members(Vec<(u64, SocketAddr)>),
    /// This node's facts have changed. Its number, incarnation, version and whom it sees are put in here.
    Facts(Facts),
    /// [`Gossip::next_timeout`] has come.
    Time,
}

/// What is to be done, or known.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// To this address.
        to: SocketAddr,
        /// These octets.
        octets: Vec<u8>,
    },
    /// A node answers.
    Up {
        /// Its number.
        node: u64,
        /// Of its start.
        incarnation: u64,
    },
    /// A node does not answer any more.
    Down {
        /// Its number.
        node: u64,
        /// Of its start.
        incarnation: u64,
    },
    /// There are newer facts of a node: see [`Gossip::facts`].
    Changed {
        /// Its number.
        node: u64,
    },
    /// Datagrams are dropped for this reason; told now and then.
    Dropped(Rejection),
    /// This node's facts are too long and were not spread: what spreads is what it said before.
    FactsTooLong {
        /// Octets they take.
        octets: usize,
    },
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Me {
    /// The cluster.
    pub cluster: [u8; 16],
    /// Its number.
    pub node: u64,
    /// Of its start: higher than that of its earlier ones.
    pub incarnation: u64,
    /// Where datagrams reach it.
    pub address: SocketAddr,
}

/// See the module's page.
pub struct Gossip {
    me: Me,
    secret: Secret,
    foca: Foca<Id, Words, StdRng, NoCustomBroadcast>,
    dice: StdRng,
    timers: BinaryHeap<Reverse<Due>>,
    /// Numbers timers in the order they were set.
    set: u64,
    sequence: u64,
    members: BTreeMap<u64, SocketAddr>,
    up: BTreeMap<u64, Id>,
    facts: BTreeMap<u64, Facts>,
    windows: BTreeMap<u64, Window>,
    dropped: BTreeMap<Rejection, (u64, Option<Instant>)>,
    now: Instant,
}

/// Something to do at a time.
#[derive(Debug)]
struct Due {
    at: Instant,
    set: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Foca(Timer<Id>),
    Exchange,
    Call,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.set) == (other.at, other.set)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.set).cmp(&(other.at, other.set))
    }
}

/// What foca wants done.
#[derive(Default)]
struct Wanted {
    sends: Vec<(Id, Vec<u8>)>,
    timers: Vec<(Timer<Id>, Duration)>,
    /// Nodes of which something has changed: foca's members say what. Of several notices one may be undone by the next, and a node that has
    /// another identity (`Rename`) may be down under that as well.
    changed: Vec<u64>,
}

impl Runtime<Id> for &mut Wanted {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        match notification {
            Notification::MemberUp(id) | Notification::MemberDown(id) | Notification::Rename(_, id) => {
                self.changed.push(id.node);
            }
            Notification::Active | Notification::Idle | Notification::Defunct | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Id, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Id>, after: Duration) {
        self.timers.push((event, after));
    }
}

fn config() -> Config {
    let every = |millis, members| PeriodicParams {
        frequency: Duration::from_millis(millis),
        num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN),
    };
    Config {
        probe_period: Duration::from_millis(500),
        probe_rtt: Duration::from_millis(200),
        suspect_to_down_after: Duration::from_millis(1500),
        // A node that is down is called again, and objects.
        remove_down_after: Some(Duration::from_secs(60)),
        max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
        max_packet_size: NonZeroUsize::new(CARRIED_MAX_BYTES).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: Some(every(5_000, 1)),
        periodic_announce_to_down_members: Some(every(2_000, 2)),
        periodic_gossip: Some(every(200, 3)),
        ..Config::simple()
    }
}

impl Gossip {
    /// A node that knows of no other. `seed` makes it choose as it does.
    pub fn new(now: Instant, me: Me, secret: Secret, seed: u64) -> Gossip {
        let id = Id { node: me.node, incarnation: me.incarnation, renewal: 0, address: me.address };
        let mut dice = StdRng::seed_from_u64(seed);
        let foca = Foca::new(id, config(), StdRng::seed_from_u64(dice.random()), Words);
        let mut gossip = Gossip {
            secret,
            foca,
            dice,
            timers: BinaryHeap::new(),
            set: 0,
            sequence: 0,
            members: BTreeMap::new(),
            up: BTreeMap::new(),
            facts: BTreeMap::new(),
            windows: BTreeMap::new(),
            dropped: BTreeMap::new(),
            now,
            me,
        };
        gossip.facts.insert(gossip.me.node, gossip.own(Facts::default(), 1));
        gossip.arm(EXCHANGE_EVERY, What::Exchange);
        gossip.arm(Duration::ZERO, What::Call);
        gossip
    }

    /// When it is to be told of the time.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse(due)| due.at)
    }

    /// The newest facts of a node, if there are any.
    pub fn facts(&self, node: u64) -> Option<&Facts> {
        self.facts.get(&node)
    }

    /// The nodes that answer, this one left out, and of which start.
    pub fn up(&self) -> impl Iterator<Item = (u64, u64)> {
        self.up.values().map(|id| (id.node, id.incarnation))
    }

    /// Who finds whom up, as far as this node has heard.
    pub fn views(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let view = |(&node, facts): (&u64, &Facts)| (node, facts.sees.iter().copied().collect());
        self.facts.iter().map(view).collect()
    }

    /// How many datagrams were dropped for each reason.
    pub fn dropped(&self) -> impl Iterator<Item = (Rejection, u64)> {
        self.dropped.iter().map(|(why, (count, _))| (*why, *count))
    }

    /// Takes one input.
    pub fn step(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        self.wake(now);
        match input {
            Input::Datagram(octets) => self.take_datagram(octets, out),
            Input::Members(members) => self.take_members(members, out),
            Input::Facts(facts) => self.take_own_facts(facts, out),
            Input::Time => {}
        }
        while self.next_timeout().is_some_and(|at| at <= self.now) {
            let Some(Reverse(due)) = self.timers.pop() else { return };
            match due.what {
                What::Foca(timer) if self.is_refuted(&timer) => {}
                What::Foca(timer) => self.with_foca(out, |foca, wanted| foca.handle_timer(timer, wanted)),
                What::Exchange => {
                    self.exchange(out);
                    self.arm(EXCHANGE_EVERY, What::Exchange);
                }
                What::Call => {
                    self.call(out);
                    self.arm(CALL_EVERY, What::Call);
                }
            }
        }
    }

    /// Whether a suspicion whose time is up was refuted meanwhile. foca 2.0.0 leaves the member alone then, and yet tells it that it is down
    /// (`notify_down_members`), at which it takes another identity and seems to go and come.
    fn is_refuted(&self, timer: &Timer<Id>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        let suspect = |member: &foca::Member<Id>| {
            member.id() == member_id && member.incarnation() == *incarnation && member.state() == foca::State::Suspect
        };
        !self.foca.iter_membership_state().any(suspect)
    }

    /// Who slept gives the others the time it missed.
    fn wake(&mut self, now: Instant) {
        let late = self.next_timeout().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.now = now;
        if late > LATE {
            let timers = std::mem::take(&mut self.timers).into_iter();
            self.timers = timers.map(|Reverse(due)| Reverse(Due { at: due.at + late, ..due })).collect();
        }
    }

    fn arm(&mut self, after: Duration, what: What) {
        self.set += 1;
        self.timers.push(Reverse(Due { at: self.now + after, set: self.set, what }));
    }

    fn with_foca(
        &mut self,
        out: &mut Vec<Output>,
        work: impl FnOnce(&mut Foca<Id, Words, StdRng, NoCustomBroadcast>, &mut Wanted) -> Result<(), foca::Error>,
    ) {
        let mut wanted = Wanted::default();
        if work(&mut self.foca, &mut wanted).is_err() {
            // What it cannot read it leaves alone; whoever signed it speaks another version, or foca itself was late.
            self.dropped.entry(Rejection::NoDatagram).or_default().0 += 1;
        }
        for (timer, after) in wanted.timers {
            self.arm(after, What::Foca(timer));
        }
        for (to, octets) in wanted.sends {
            self.send(to.address, Kind::Probe, &octets, out);
        }
        for node in wanted.changed {
            self.look_at(node, out);
        }
    }

    /// Whether a node answers, as foca has it now.
    fn look_at(&mut self, node: u64, out: &mut Vec<Output>) {
        let active = self.foca.iter_members().map(|member| member.id()).find(|id| id.node == node).cloned();
        let active = active.filter(|_| self.members.contains_key(&node));
        if self.up.get(&node) == active.as_ref() {
            return;
        }
        if let Some(Id { incarnation, .. }) = self.up.remove(&node) {
            out.push(Output::Down { node, incarnation });
        }
        if let Some(id) = active {
            out.push(Output::Up { node, incarnation: id.incarnation });
            self.up.insert(node, id);
        }
        self.sees_others(out);
    }

    fn send(&mut self, to: SocketAddr, kind: Kind, carried: &[u8], out: &mut Vec<Output>) {
        self.sequence += 1;
        let me = (self.me.node, self.me.incarnation, self.sequence);
        out.push(Output::Send { to, octets: datagram::seal(&self.secret, &self.me.cluster, me, kind, carried) });
    }

    fn take_datagram(&mut self, octets: &[u8], out: &mut Vec<Output>) {
        let opened = match datagram::open(&self.secret, &self.me.cluster, octets) {
            Ok(opened) => opened,
            Err(why) => return self.drop_for(why, out),
        };
        let Opened { kind, node, incarnation, sequence, carried } = opened;
        // Who is no member is not listened to; and nobody keeps windows for any number that is made up.
        if node == self.me.node || !self.members.contains_key(&node) {
            return self.drop_for(Rejection::Stranger, out);
        }
        if !self.windows.entry(node).or_default().is_new(incarnation, sequence) {
            return self.drop_for(Rejection::Repeated, out);
        }
        match kind {
            Kind::Probe => self.with_foca(out, |foca, wanted| foca.handle_data(carried, wanted)),
            Kind::Digest => match Digest::decode(carried) {
                Ok(theirs) => self.compare(node, &theirs, out),
                Err(_) => self.drop_for(Rejection::NoDatagram, out),
            },
            Kind::Facts => match Facts::decode(carried) {
                Ok(facts) => self.take_facts(facts, out),
                Err(_) => self.drop_for(Rejection::NoDatagram, out),
            },
        }
    }

    fn drop_for(&mut self, why: Rejection, out: &mut Vec<Output>) {
        let (count, told) = self.dropped.entry(why).or_default();
        *count += 1;
        // Repeated ones are everyday.
        if why != Rejection::Repeated && told.is_none_or(|told| self.now >= told + TOLD_EVERY) {
            *told = Some(self.now);
            out.push(Output::Dropped(why));
        }
    }

    fn take_members(&mut self, members: Vec<(u64, SocketAddr)>, out: &mut Vec<Output>) {
        self.members = members.into_iter().filter(|(node, _)| *node != self.me.node).take(NODES_MAX - 1).collect();
        let gone: Vec<u64> = self.up.keys().copied().filter(|node| !self.members.contains_key(node)).collect();
        for node in gone {
            if let Some(id) = self.up.remove(&node) {
                out.push(Output::Down { node, incarnation: id.incarnation });
            }
        }
        let (members, me) = (&self.members, self.me.node);
        self.facts.retain(|node, _| *node == me || members.contains_key(node));
        self.windows.retain(|node, _| members.contains_key(node));
        self.sees_others(out);
        // Others may have told of a node before the catalog did here: foca does not say a second time that it is up.
        let told: Vec<u64> = self.foca.iter_members().map(|member| member.id().node).collect();
        for node in told {
            self.look_at(node, out);
        }
        self.call(out);
    }

    /// Calls the members it does not see.
    fn call(&mut self, out: &mut Vec<Output>) {
        let missing: Vec<(u64, SocketAddr)> =
            self.members.iter().filter(|(node, _)| !self.up.contains_key(node)).map(|(n, a)| (*n, *a)).collect();
        for (node, address) in missing {
            let id = Id { node, incarnation: 0, renewal: 0, address };
            self.with_foca(out, |foca, wanted| foca.announce(id, wanted));
        }
    }

    fn own(&self, facts: Facts, version: u64) -> Facts {
        let (node, incarnation) = (self.me.node, self.me.incarnation);
        Facts { node, incarnation, version, sees: self.up.keys().copied().collect(), ..facts }
    }

    fn take_own_facts(&mut self, facts: Facts, out: &mut Vec<Output>) {
        let known = self.facts.get(&self.me.node).cloned().unwrap_or_default();
        let facts = self.own(facts, known.version + 1);
        let octets = facts.encoded_len();
        // Room for the nodes it may come to see.
        if octets + 10 * NODES_MAX > FACTS_MAX_BYTES {
            return out.push(Output::FactsTooLong { octets });
        }
        if (Facts { version: known.version, ..facts.clone() }) == known {
            return;
        }
        let alarms = |facts: &Facts| (facts.memory_alarm, facts.disk_alarm);
        let urgent = alarms(&facts) != alarms(&known);
        self.facts.insert(self.me.node, facts);
        if urgent {
            self.spread(out);
        }
    }

    /// Whom it sees is among its facts.
    fn sees_others(&mut self, out: &mut Vec<Output>) {
        let known = self.facts.get(&self.me.node).cloned().unwrap_or_default();
        let version = known.version + 1;
        let facts = self.own(known, version);
        self.facts.insert(self.me.node, facts);
        self.spread(out);
    }

    /// Tells all of this node's facts at once.
    fn spread(&mut self, out: &mut Vec<Output>) {
        let Some(facts) = self.facts.get(&self.me.node) else { return };
        let octets = facts.encode_to_vec();
        let to: Vec<SocketAddr> = self.up.values().map(|id| id.address).collect();
        for address in to {
            self.send(address, Kind::Facts, &octets, out);
        }
    }

    fn take_facts(&mut self, facts: Facts, out: &mut Vec<Output>) {
        let node = facts.node;
        if node == self.me.node || !self.members.contains_key(&node) {
            return;
        }
        if self.facts.get(&node).is_none_or(|known| age(known) < age(&facts)) {
            self.facts.insert(node, facts);
            out.push(Output::Changed { node });
        }
    }

    /// Says to one node at random which facts it has.
    fn exchange(&mut self, out: &mut Vec<Output>) {
        if self.up.is_empty() {
            return;
        }
        let chosen = self.dice.random_range(0..self.up.len());
        if let Some(address) = self.up.values().nth(chosen).map(|id| id.address) {
            self.send_digest(address, false, out);
        }
    }

    fn send_digest(&mut self, to: SocketAddr, answer: bool, out: &mut Vec<Output>) {
        let known =
            |facts: &Facts| digest::Known { node: facts.node, incarnation: facts.incarnation, version: facts.version };
        let digest = Digest { known: self.facts.values().map(known).collect(), answer };
        self.send(to, Kind::Digest, &digest.encode_to_vec(), out);
    }

    /// Sends what the other does not have, and asks for what it has.
    fn compare(&mut self, node: u64, theirs: &Digest, out: &mut Vec<Output>) {
        let Some(address) = self.up.get(&node).map(|id| id.address) else { return };
        let age_there = |node: u64| {
            let known = theirs.known.iter().find(|known| known.node == node);
            known.map_or((0, 0), |known| (known.incarnation, known.version))
        };
        let newer: Vec<Vec<u8>> = self
            .facts
            .values()
            .filter(|facts| age(facts) > age_there(facts.node))
            .map(Message::encode_to_vec)
            .collect();
        for octets in newer {
            self.send(address, Kind::Facts, &octets, out);
        }
        let age_here = |node| self.facts.get(&node).map_or((0, 0), age);
        let lacks = theirs.known.iter().any(|known| {
            self.members.contains_key(&known.node) && (known.incarnation, known.version) > age_here(known.node)
        });
        if lacks && !theirs.answer {
            self.send_digest(address, true, out);
        }
    }
}

/// Facts of a higher age replace those of a lower one.
fn age(facts: &Facts) -> (u64, u64) {
    (facts.incarnation, facts.version)
}
