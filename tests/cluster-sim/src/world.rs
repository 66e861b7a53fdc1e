//! Some nodes, their network, their clients and what goes wrong, all from one seed: first faults, then the heal, and a while later everything must agree.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use broker_meta::raft::{Applied, Compaction};
use broker_meta::{Catalog, CatalogEvent, command};
use broker_server::driver::events::Event;

use crate::broken::Broken;
use crate::crowd::Crowd;
use crate::history::{Change, Entry, History, Proposal, Standing, Told, digest};
use crate::invariants;
use crate::net::Net;
use crate::node::{Node, State};
use harness::random::Random;

/// Until then nodes find each other, in milliseconds.
const FOUNDED_MS: u64 = 6_000;
/// Things go wrong for so long, unless said otherwise.
pub const FAULTS_MS: u64 = 30_000;
/// So long after the heal everything must agree.
const HEALS_MS: u64 = 30_000;
/// All is well for long.
const WELL_MS: u64 = 10_000;
/// Clients stop a while before that, and the queues are emptied.
const QUIET_MS: u64 = 8_000;
/// So long after that an alarm may come: by then nobody publishes, whom it would hold back.
const ALARMS_MS: u64 = 4_000;
/// Proposals of clients have higher numbers than those of the shard, which knows nothing of them.
const PROPOSALS: u64 = 1 << 40;
/// By then a node that has joined is one of the majority.
const SETTLED_MS: u64 = 2_000;
/// In half of all lives the log is so short that a node which was away for some seconds is sent a snapshot.
const SHORT_LOG: Compaction = Compaction { after: 20, kept: 20, batch: 1 };
/// A disk that lies is this far behind.
const LIES_EVERY_MS: u64 = 1_000;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen, line by line.
    pub trace: Vec<String>,
    /// What is wrong, if something is.
    pub wrong: Option<String>,
    /// Changes that were acknowledged.
    pub acknowledged: usize,
    /// Messages that were confirmed.
    pub confirmed: usize,
    /// Faults of all kinds.
    pub faults: usize,
    /// Snapshots that one node has sent another.
    pub snapshots: usize,
}

/// See the module's page.
pub(crate) struct World {
    pub now: u64,
    /// Until then things go wrong.
    healed_ms: u64,
    pub random: Random,
    net: Net,
    pub nodes: Vec<Node>,
    pub crowd: Crowd,
    pub broken: Option<Broken>,
    pub history: History,
    trace: Vec<String>,
    /// The last index that a node has applied in this start.
    last: Vec<u64>,
    /// What it has applied and was not looked at yet: until it serves its cluster is not known.
    applied: Vec<Vec<Applied>>,
    /// Snapshots among that, by index.
    snapshots: Vec<BTreeSet<u64>>,
    /// What it applies next is a snapshot of its own.
    has_own: Vec<bool>,
    /// Indexes after which its catalog was looked at, in any start with this disk.
    looked_at: Vec<BTreeSet<u64>>,
    alarms: Vec<bool>,
    alarms_elsewhere: Vec<bool>,
    /// When a node that does not run or stands still goes on.
    goes_on: Vec<Option<u64>>,
    emptied: Option<usize>,
    /// Who is to leave, or has left.
    leaves: Option<usize>,
    /// When a node that is drained is revived.
    revived_at: Vec<Option<u64>>,
    /// Of whose disk there is a copy.
    kept: Option<usize>,
    /// An operator has had the emptied node forgotten.
    forgotten: bool,
    /// Clusters and numbers.
    pub belonged: Vec<Option<([u8; 16], u64)>>,
    /// When one of them last became one of the cluster.
    joined_at: u64,
    faults: usize,
    sent_snapshots: usize,
}

/// Lives through a seed, with faults for so many milliseconds. Everything random in the process must follow from the same seed.
pub fn run(seed: u64, broken: Option<Broken>, faults_ms: u64, root: &Path) -> io::Result<Outcome> {
    let secret = root.join("secret");
    fs::write(&secret, [b'x'; 32])?;
    fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
    let mut random = Random::new(seed);
    let count = if random.one_in(3) { 5 } else { 3 };
    let net = Net::new(random.draw());
    net.break_facts(broken == Some(Broken::FactsStay));
    net.break_links(broken.and_then(Broken::tampering));
    if random.one_in(2) {
        net.compact(SHORT_LOG);
    }
    let mut node = |number| Node::new(number, count, root, &net, Random::new(random.draw()));
    let nodes = (1..=count).map(&mut node).collect::<io::Result<Vec<_>>>()?;
    let mut world = World {
        now: 0,
        healed_ms: FOUNDED_MS + faults_ms,
        random,
        net,
        nodes,
        crowd: Crowd::default(),
        broken,
        history: History::default(),
        trace: Vec::new(),
        last: vec![0; count],
        applied: vec![Vec::new(); count],
        snapshots: vec![BTreeSet::new(); count],
        has_own: vec![false; count],
        looked_at: vec![BTreeSet::new(); count],
        alarms: vec![false; count],
        alarms_elsewhere: vec![false; count],
        goes_on: vec![None; count],
        emptied: None,
        leaves: None,
        revived_at: vec![None; count],
        kept: None,
        forgotten: false,
        belonged: vec![None; count],
        joined_at: 0,
        faults: 0,
        sent_snapshots: 0,
    };
    world.live()?;
    let wrong = invariants::check(&world.history).err();
    let acknowledged = world.history.proposals.iter().filter(|proposal| proposal.acknowledged.is_some()).count();
    let confirmed = world.history.messages.values().filter(|message| message.confirmed).count();
    Ok(Outcome {
        trace: world.trace,
        wrong,
        acknowledged,
        confirmed,
        faults: world.faults,
        snapshots: world.sent_snapshots,
    })
}

impl World {
    pub fn tell(&mut self, what: &str) {
        self.trace.push(format!("{:6} {what}", self.now));
    }

    fn end_ms(&self) -> u64 {
        self.healed_ms + HEALS_MS
    }

    /// Clients stop then.
    pub fn quiet_ms(&self) -> u64 {
        self.end_ms() - QUIET_MS
    }

    /// From then on all has been well for long.
    pub fn well_from(&self) -> u64 {
        self.healed_ms + WELL_MS
    }

    /// Whether all has been well for long.
    pub fn is_well(&self) -> bool {
        self.now > self.well_from()
    }

    fn live(&mut self) -> io::Result<()> {
        for at in 0..self.nodes.len() {
            self.goes_on[at] = Some(1 + self.random.below(2_000));
        }
        if self.random.one_in(2) {
            self.net.weather(20, 20);
        }
        let mut next_fault = if self.random.one_in(3) { 200 } else { FOUNDED_MS };
        while self.now < self.end_ms() {
            self.now += 1;
            self.net.step();
            self.go_on()?;
            for at in 0..self.nodes.len() {
                let before = self.nodes[at].state;
                let events = self.nodes[at].tick(self.now)?;
                self.noticed(at, before)?;
                self.has_left(at)?;
                let applied = self.net.applied(self.nodes[at].number);
                self.applied[at].extend(applied);
                self.has_applied(at);
                for event in events {
                    if self.take(at, &event) {
                        self.nodes[at].hear(event);
                    }
                }
            }
            self.crowd()?;
            for node in &mut self.nodes {
                node.turn()?;
                if self.broken == Some(Broken::SyncLies) && self.now.is_multiple_of(LIES_EVERY_MS) {
                    node.keep_messages();
                }
            }
            if self.now == next_fault && self.now < self.healed_ms {
                self.fault()?;
                next_fault = self.now + 300 + self.random.below(3_500);
            }
            if self.now == self.healed_ms {
                self.heal();
            }
            if self.now == self.well_from() {
                (0..self.nodes.len()).for_each(|at| self.alarm(at, false));
            }
            if self.now == self.quiet_ms() + ALARMS_MS && self.random.one_in(2) {
                let at = self.random.below(self.nodes.len() as u64) as usize;
                self.alarm(at, true);
            }
            if self.now > self.healed_ms && self.now.is_multiple_of(2_000) {
                self.mend()?;
            }
            if self.now < self.quiet_ms() && self.random.one_in(200) {
                self.propose();
            }
        }
        for at in 0..self.nodes.len() {
            self.crowd_ends(at);
            let name = self.name(at);
            let standing = self.standing(at);
            self.tell(&format!("{name} at the end: {standing:?} {}", self.nodes[at].why));
            self.history.end.insert(name, standing);
        }
        self.tell_differences();
        Ok(())
    }

    /// What catalogs do not agree on, for whoever has to find out why.
    fn tell_differences(&mut self) {
        let catalogs: Vec<(String, Catalog)> =
            (0..self.nodes.len()).filter_map(|at| Some((self.name(at), self.nodes[at].handle()?.catalog()))).collect();
        let Some((first, model)) = catalogs.first() else { return };
        for (name, catalog) in &catalogs {
            if digest(catalog) != digest(model) {
                let (one, other) = (format!("{:#?}", model.to_snapshot()), format!("{:#?}", catalog.to_snapshot()));
                let lines = |one: &str, other: &str| {
                    let there: BTreeSet<&str> = other.lines().collect();
                    one.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect::<Vec<_>>()
                };
                self.tell(&format!("only {first}: {:?}", lines(&one, &other)));
                self.tell(&format!("only {name}: {:?} {:?}", lines(&other, &one), model.difference(catalog)));
            }
        }
    }

    pub fn name(&self, at: usize) -> String {
        format!("n{}", self.nodes[at].number)
    }

    /// Nodes start that were down long enough, go on that stood still, and are revived.
    fn go_on(&mut self) -> io::Result<()> {
        for at in 0..self.nodes.len() {
            if self.revived_at[at].is_some_and(|due| self.now >= due) && !self.nodes[at].stopped {
                self.revived_at[at] = None;
                self.nodes[at].drain(false);
                self.tell(&format!("{} is revived", self.name(at)));
            }
            if self.goes_on[at].is_none_or(|due| self.now < due) {
                continue;
            }
            self.goes_on[at] = None;
            let name = self.name(at);
            if self.nodes[at].stopped {
                self.nodes[at].stopped = false;
                self.tell(&format!("{name} goes on"));
            } else {
                (self.last[at], self.applied[at], self.snapshots[at]) = (0, Vec::new(), BTreeSet::new());
                self.has_own[at] = self.nodes[at].has_snapshot();
                self.nodes[at].start()?;
                self.tell(&format!("{name} starts"));
            }
        }
        Ok(())
    }

    fn noticed(&mut self, at: usize, before: State) -> io::Result<()> {
        let node = &self.nodes[at];
        if node.state == before {
            return Ok(());
        }
        let (state, why) = (node.state, node.why.clone());
        let name = self.name(at);
        if let Some(handle) = self.nodes[at].handle() {
            let (cluster, number) = (handle.cluster_id(), handle.node().0);
            let octets = u128::from_str_radix(&cluster, 16).unwrap_or_default().to_be_bytes();
            if self.belonged[at].replace((octets, number)) != Some((octets, number)) {
                self.joined_at = self.now;
            }
            self.alarms_elsewhere[at] = false;
            let alarm = self.alarms[at];
            handle.say(|facts| facts.memory_alarm = alarm);
            self.tell(&format!("{name} serves as node {number} of {cluster}"));
            self.history.told.push((name.clone(), cluster.clone(), Vec::new()));
            self.history.belonged.push((name, cluster, number));
        } else {
            self.tell(&format!("{name} is {state:?}: {why}"));
            if state == State::Refused {
                // As a supervisor would.
                self.goes_on[at] = Some(self.now + 1_000);
                if self.now > self.healed_ms {
                    self.mend()?;
                }
            }
        }
        Ok(())
    }

    /// What a node has applied of the log.
    fn has_applied(&mut self, at: usize) {
        let Some(cluster) = self.nodes[at].handle().map(|handle| handle.cluster_id()) else { return };
        for applied in std::mem::take(&mut self.applied[at]) {
            let name = self.name(at);
            let (index, catalog) = match applied {
                Applied::Batch { index, commands, origin, outcomes, catalog } => {
                    let origin = (origin.node, origin.incarnation, origin.number);
                    let outcomes = outcomes.iter().map(|events| format!("{events:?}")).collect();
                    let entry = Entry { origin, commands, outcomes };
                    let first = self.history.entries.entry((cluster.clone(), index)).or_insert_with(|| entry.clone());
                    if *first != entry {
                        self.history.forked.push((name.clone(), index));
                    }
                    (index, catalog)
                }
                Applied::Snapshot { index, catalog } => {
                    self.snapshots[at].insert(index);
                    if !std::mem::take(&mut self.has_own[at]) {
                        self.tell(&format!("{name} was sent a snapshot"));
                        self.sent_snapshots += 1;
                    }
                    (index, catalog)
                }
            };
            if index <= self.last[at] {
                self.history.backwards.push((name.clone(), index, self.last[at]));
            }
            self.last[at] = index;
            // At each start the log is applied again.
            if self.looked_at[at].insert(index) {
                let digest = digest(&catalog);
                self.tell(&format!("{name} applied {index}: {digest:016x}"));
                self.history.applied.entry((cluster.clone(), index)).or_default().push((name, digest));
            }
        }
    }

    /// What the shard is about to hear. Whether it does.
    fn take(&mut self, at: usize, event: &Event) -> bool {
        let name = self.name(at);
        match event {
            Event::Applied(applied) => {
                let index = applied.index;
                // What is in no log, but was announced, has the index 0.
                if index == 0 {
                    return true;
                }
                if self.broken == Some(Broken::FeedSkips) && (index + at as u64).is_multiple_of(20) {
                    return false;
                }
                if let Some((_, _, told)) = self.history.told.iter_mut().rev().find(|(node, ..)| *node == name) {
                    told.push(Told { index, is_snapshot: self.snapshots[at].contains(&index) });
                }
                for (number, events) in &applied.outcomes {
                    let Some(place) = number.checked_sub(PROPOSALS + 1) else { continue };
                    let is_done = events.first().is_some_and(|event| {
                        matches!(
                            event,
                            CatalogEvent::VhostCreated { existed: false, .. } | CatalogEvent::VhostDeleted { .. }
                        )
                    });
                    if let Some(proposal) = self.history.proposals.get_mut(place as usize)
                        && is_done
                    {
                        proposal.acknowledged = Some((self.now, index));
                        proposal.answer = format!("{events:?}");
                    }
                }
            }
            Event::NotApplied(numbers) => self.tell(&format!("{name} gives up {numbers:?}")),
            Event::Link { node, incarnation, .. } => {
                self.tell(&format!("{name} has a link to node {}, start {incarnation}", node.0));
                self.link_begins(at, node.0);
            }
            Event::Pause(paused) => self.tell(&format!("{name} pauses: {paused}")),
            Event::AlarmElsewhere(reason) => {
                self.alarms_elsewhere[at] = reason.is_some();
                self.tell(&format!("{name} hears of an alarm: {reason:?}"));
            }
            _ => {}
        }
        true
    }

    /// A client of some node wants something changed.
    fn propose(&mut self) {
        let live: Vec<usize> = self.those(|node| node.state == State::Live && !node.stopped);
        let Some(&at) = self.random.pick(&live) else { return };
        let deleted: BTreeSet<&String> = self
            .history
            .proposals
            .iter()
            .filter_map(|proposal| match &proposal.change {
                Change::Delete(name) => Some(name),
                Change::Create(_) => None,
            })
            .collect();
        let there = self.history.proposals.iter().filter(|proposal| proposal.acknowledged.is_some());
        let there: Vec<String> = there
            .filter_map(|proposal| match &proposal.change {
                Change::Create(name) if !deleted.contains(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let number = self.history.proposals.len() as u64 + 1;
        let (change, command) = match self.random.pick(&there) {
            Some(name) if number.is_multiple_of(4) => (Change::Delete(name.clone()), command::delete_vhost(name)),
            _ => {
                let name = format!("v{number}");
                let command = command::create_vhost(&name, "", &[]);
                (Change::Create(name), command)
            }
        };
        let name = self.name(at);
        self.tell(&format!("{name} proposes {number}: {change:?}"));
        self.history.proposals.push(Proposal { change, began: self.now, acknowledged: None, answer: String::new() });
        if let Some(handle) = self.nodes[at].handle() {
            handle.proposals().propose(PROPOSALS + number, command);
        }
    }

    pub fn those(&self, which: impl Fn(&Node) -> bool) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| which(&self.nodes[*at])).collect()
    }

    /// Something goes wrong.
    fn fault(&mut self) -> io::Result<()> {
        self.faults += 1;
        // What the broken rule is about comes as soon as it can.
        match (self.broken, self.kept) {
            (Some(Broken::EmptiedFounds | Broken::EmptiedVotes), _) => {
                if let Some(at) = (0..self.nodes.len()).find(|at| self.may_lose(*at)) {
                    return self.empty(at);
                }
            }
            (Some(Broken::OldDisk), Some(kept)) if self.may_lose(kept) => return self.kill(kept, 300, 1_000),
            _ => {}
        }
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let name = self.name(at);
        let others: Vec<usize> = self.those(|node| node.number != self.nodes[at].number);
        match self.random.below(14) {
            0 => {
                let other = self.random.pick(&others).copied().unwrap_or(at);
                self.net.cut(self.nodes[at].number, self.nodes[other].number);
                let other = self.name(other);
                self.tell(&format!("fault: cut from {name} to {other}"));
            }
            1 | 2 => {
                let way = self.random.below(3);
                for other in others {
                    let (one, other) = (self.nodes[at].number, self.nodes[other].number);
                    if way != 1 {
                        self.net.cut(one, other);
                    }
                    if way != 2 {
                        self.net.cut(other, one);
                    }
                }
                self.tell(&format!("fault: {name} is {}", ["cut off", "deaf", "mute"][way as usize]));
            }
            3 | 4 => {
                self.net.heal();
                self.tell("fault: the network is whole");
            }
            5 => {
                let (loss, delay) = (self.random.below(300), 1 + self.random.below(300));
                self.net.weather(loss, delay);
                self.tell(&format!("fault: loss {loss}, delay {delay}"));
            }
            6 | 7 if self.nodes[at].state != State::Down => {
                // For long now and then: the others give up the beginning of the log meanwhile.
                let (least, most) = if self.random.one_in(3) { (6_000, 12_000) } else { (300, 4_000) };
                self.kill(at, least, most)?;
            }
            8 if self.nodes[at].state == State::Live && !self.nodes[at].stopped => {
                let rests = 100 + self.random.below(9_000);
                self.nodes[at].stopped = true;
                self.goes_on[at] = Some(self.now + rests);
                self.tell(&format!("fault: {name} stands still for {rests} ms"));
            }
            9 => {
                let alarm = !self.alarms[at];
                self.alarm(at, alarm);
            }
            10 => {
                for at in 0..self.nodes.len() {
                    if self.nodes[at].state != State::Down {
                        self.kill(at, 300, 3_000)?;
                    }
                }
            }
            11 => self.empty(at)?,
            12 if self.nodes[at].state == State::Live && self.may_lose(at) => {
                self.leaves = Some(at);
                self.nodes[at].leave();
                // Whatever is heard of it: it may be removed from then on, and its queues with it.
                self.history.emptied.extend(self.belonged[at].map(|(_, number)| number));
                self.tell(&format!("an operator has {name} leave"));
            }
            _ if self.nodes[at].state == State::Live => {
                let rests = 100 + self.random.below(6_000);
                self.revived_at[at] = Some(self.now + rests);
                self.nodes[at].drain(true);
                self.tell(&format!("an operator drains {name} for {rests} ms"));
            }
            _ => {}
        }
        Ok(())
    }

    /// A node that was to leave has done so: it stops, and comes again with an empty disk, as a new one.
    fn has_left(&mut self, at: usize) -> io::Result<()> {
        let Some(left) = self.nodes[at].has_left() else { return Ok(()) };
        self.tell(&format!("{} has left: {left:?}", self.name(at)));
        if left.is_ok() {
            self.kill(at, 300, 1_000)?;
            self.nodes[at].empty()?;
            self.looked_at[at].clear();
        }
        Ok(())
    }

    /// A node has an alarm, or has none any more.
    fn alarm(&mut self, at: usize, alarm: bool) {
        self.alarms[at] = alarm;
        if let Some(handle) = self.nodes[at].handle() {
            handle.say(|facts| facts.memory_alarm = alarm);
        }
        let name = self.name(at);
        self.tell(&format!("{name} has an alarm: {alarm}"));
    }

    fn kill(&mut self, at: usize, least: u64, most: u64) -> io::Result<()> {
        let rests = least + self.random.below(most);
        let may_lose = self.may_lose(at);
        self.nodes[at].kill(self.broken == Some(Broken::SyncLies))?;
        self.revived_at[at] = None;
        self.crowd_ends(at);
        self.goes_on[at] = Some(self.now + rests);
        let name = self.name(at);
        self.tell(&format!("fault: {name} is killed for {rests} ms"));
        if let Some((_, number)) = self.belonged[at].filter(|_| self.broken == Some(Broken::OldDisk)) {
            match self.kept {
                None => {
                    self.nodes[at].keep()?;
                    self.kept = Some(at);
                }
                Some(kept) if kept == at && may_lose => {
                    self.nodes[at].put_back()?;
                    self.emptied = Some(at);
                    self.looked_at[at].clear();
                    self.history.emptied.insert(number);
                    self.tell(&format!("fault: an older copy of the disk of {name} is put back"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a node may lose its disk, or have an older one: one in the life of a cluster, when the others are a majority without it.
    fn may_lose(&self, at: usize) -> bool {
        let others = (0..self.nodes.len()).filter(|other| *other != at);
        let all_vote = others.into_iter().all(|other| {
            self.nodes[other].handle().is_some_and(|handle| {
                let status = handle.status();
                status.voters.len() == self.nodes.len() && status.applied == status.last
            })
        });
        let is_settled = self.now > self.joined_at + SETTLED_MS;
        let is_first = self.emptied.is_none() && self.leaves.is_none();
        is_first && all_vote && is_settled && self.nodes[at].state != State::Down
    }

    /// A node loses its disk.
    fn empty(&mut self, at: usize) -> io::Result<()> {
        let Some((cluster, number)) = self.belonged[at] else { return Ok(()) };
        if !self.may_lose(at) {
            return Ok(());
        }
        self.emptied = Some(at);
        self.kill(at, 300, 1_000)?;
        self.nodes[at].empty()?;
        self.looked_at[at].clear();
        self.history.emptied.insert(number);
        let name = self.name(at);
        self.tell(&format!("fault: the disk of {name} is emptied"));
        match self.broken {
            Some(Broken::EmptiedFounds) => self.nodes[at].plan_to_found()?,
            Some(Broken::EmptiedVotes) => self.nodes[at].take_up(cluster, number)?,
            _ => {}
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.net.heal();
        for at in 0..self.nodes.len() {
            if self.goes_on[at].is_some() {
                self.goes_on[at] = Some(self.now + 1);
            }
            if self.revived_at[at].is_some() {
                self.revived_at[at] = Some(self.now + 1);
            }
        }
        self.tell("all is well again");
    }

    /// An operator has the cluster forget a node that has lost its disk, so that it can come as a new one.
    fn mend(&mut self) -> io::Result<()> {
        let Some(at) = self.emptied.or(self.leaves) else { return Ok(()) };
        if self.nodes[at].needs_empty_disk() {
            let name = self.name(at);
            self.nodes[at].empty()?;
            self.looked_at[at].clear();
            self.tell(&format!("an operator has emptied the disk of {name}: {}", self.nodes[at].why));
        }
        if self.leaves.is_some() {
            return Ok(());
        }
        if self.forgotten || self.nodes[at].has_log() {
            return Ok(());
        }
        let live: Vec<usize> = self.those(|node| node.state == State::Live);
        let Some(&other) = live.iter().find(|other| **other != at) else { return Ok(()) };
        let name = format!("rabbit@{}", self.name(at));
        let is_member =
            self.nodes[other].handle().is_some_and(|handle| handle.catalog().members().named(&name).is_some());
        if is_member {
            self.nodes[other].forget(&name);
            self.tell(&format!("an operator has {name} forgotten"));
        }
        Ok(())
    }

    fn standing(&self, at: usize) -> Option<Standing> {
        let node = &self.nodes[at];
        let handle = node.handle()?;
        let catalog: Catalog = handle.catalog();
        let status = handle.status();
        Some(Standing {
            cluster: handle.cluster_id(),
            number: handle.node().0,
            leader: status.leader,
            voters: status.voters.into_iter().collect(),
            seen: handle.seen().into_iter().collect(),
            links: node.links(),
            catalog: digest(&catalog),
            names: catalog.topology().vhosts().map(|vhost| vhost.name().as_str().to_owned()).collect(),
            alarm: self.alarms[at],
            alarm_elsewhere: self.alarms_elsewhere[at],
        })
    }
}
