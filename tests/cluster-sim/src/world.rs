//! Some nodes, their network, their clients and what goes wrong, all from one seed: first faults, then the heal, and a while later everything must agree.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use broker_meta::{Catalog, CatalogEvent, command};
use broker_server::driver::events::Event;
use prost::Message;

use crate::broken::Broken;
use crate::history::{Change, History, Proposal, Replayed, Standing};
use crate::invariants;
use crate::net::Net;
use crate::node::{Node, State};
use harness::random::Random;

/// Until then nodes find each other, in milliseconds.
const FOUNDED_MS: u64 = 6_000;
/// From then on things go wrong for so long, unless something else is said.
pub const TROUBLE_MS: u64 = 30_000;
/// So long after that everything must agree.
const MENDED_MS: u64 = 30_000;
/// Clients of a node stop proposing so long before.
const QUIET_MS: u64 = 8_000;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen, line by line.
    pub trace: Vec<String>,
    /// What is wrong, if something is.
    pub wrong: Option<String>,
    /// Changes that were acknowledged.
    pub acknowledged: usize,
    /// Faults of all kinds.
    pub faults: usize,
}

struct World {
    now: u64,
    /// When all is well again.
    healed: u64,
    random: Random,
    net: Net,
    nodes: Vec<Node>,
    broken: Option<Broken>,
    history: History,
    trace: Vec<String>,
    /// The last index that a node's shard was told of in this start.
    last: Vec<u64>,
    alarms: Vec<bool>,
    alarms_elsewhere: Vec<bool>,
    /// When a node that does not run or stands still goes on.
    goes_on: Vec<Option<u64>>,
    emptied: Option<usize>,
    /// Of whose disk there is a copy.
    kept: Option<usize>,
    /// An operator has had the emptied node forgotten.
    forgotten: bool,
    /// Numbers and clusters, for the broken rule.
    belonged: Vec<Option<([u8; 16], u64)>>,
    faults: usize,
}

/// Lives through a seed. Everything random in the process must follow from the same seed.
pub fn run(seed: u64, broken: Option<Broken>, trouble_ms: u64, root: &Path) -> io::Result<Outcome> {
    let secret = root.join("secret");
    fs::write(&secret, [b'x'; 32])?;
    fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
    let mut random = Random::new(seed);
    let count = if random.one_in(3) { 5 } else { 3 };
    let net = Net::new(random.draw());
    net.break_facts(broken == Some(Broken::FactsStay));
    let nodes = (1..=count).map(|number| Node::new(number, count, root, &net)).collect::<io::Result<Vec<_>>>()?;
    let mut world = World {
        now: 0,
        healed: FOUNDED_MS + trouble_ms,
        random,
        net,
        nodes,
        broken,
        history: History::default(),
        trace: Vec::new(),
        last: vec![0; count],
        alarms: vec![false; count],
        alarms_elsewhere: vec![false; count],
        goes_on: vec![None; count],
        emptied: None,
        kept: None,
        forgotten: false,
        belonged: vec![None; count],
        faults: 0,
    };
    world.live()?;
    let wrong = invariants::check(&world.history).err();
    let acknowledged = world.history.proposals.iter().filter(|proposal| proposal.acknowledged.is_some()).count();
    Ok(Outcome { trace: world.trace, wrong, acknowledged, faults: world.faults })
}

impl World {
    fn tell(&mut self, what: &str) {
        self.trace.push(format!("{:6} {what}", self.now));
    }

    fn live(&mut self) -> io::Result<()> {
        for at in 0..self.nodes.len() {
            self.goes_on[at] = Some(1 + self.random.below(2_000));
        }
        if self.random.one_in(2) {
            self.net.weather(20, 20);
        }
        let mut next_fault = if self.random.one_in(3) { 200 } else { FOUNDED_MS };
        let end = self.healed + MENDED_MS;
        while self.now < end {
            self.now += 1;
            self.net.step();
            self.go_on()?;
            for at in 0..self.nodes.len() {
                let before = self.nodes[at].state;
                let events = self.nodes[at].tick()?;
                self.noticed(at, before);
                for event in events {
                    self.take(at, event);
                }
            }
            if self.now == next_fault && self.now < self.healed {
                self.fault()?;
                next_fault = self.now + 300 + self.random.below(3_500);
            }
            if self.now == self.healed {
                self.heal();
            }
            if self.now > self.healed && self.now.is_multiple_of(2_000) {
                self.mend()?;
            }
            if self.now < end - QUIET_MS && self.random.one_in(200) {
                self.propose();
            }
        }
        for at in 0..self.nodes.len() {
            let name = self.name(at);
            let standing = self.standing(at);
            self.tell(&format!("{name} at the end: {standing:?} {}", self.nodes[at].why));
            self.history.end.insert(name, standing);
        }
        self.replay()
    }

    /// The logs of all nodes once more, without the nodes.
    fn replay(&mut self) -> io::Result<()> {
        for at in 0..self.nodes.len() {
            let Some(cluster) = self.nodes[at].handle().map(|handle| handle.cluster_id()) else { continue };
            self.nodes[at].kill()?;
            let name = self.name(at);
            let (replayed, mut entries) = (&mut self.history.replayed, 0);
            self.nodes[at].replay(|index, outcomes, catalog| {
                let done = outcomes.iter().flatten().filter_map(done).collect();
                let entry = Replayed { node: name.clone(), catalog: digest(catalog), done };
                replayed.entry((cluster.clone(), index)).or_default().push(entry);
                entries += 1;
            })?;
            self.tell(&format!("the log of {name} has {entries} entries"));
        }
        Ok(())
    }

    fn name(&self, at: usize) -> String {
        format!("n{}", self.nodes[at].number)
    }

    /// Nodes start that were down long enough, and go on that stood still.
    fn go_on(&mut self) -> io::Result<()> {
        for at in 0..self.nodes.len() {
            if self.goes_on[at].is_none_or(|due| self.now < due) {
                continue;
            }
            self.goes_on[at] = None;
            let name = self.name(at);
            if self.nodes[at].stopped {
                self.nodes[at].stopped = false;
                self.tell(&format!("{name} goes on"));
            } else {
                self.nodes[at].start()?;
                self.tell(&format!("{name} starts"));
            }
        }
        Ok(())
    }

    fn noticed(&mut self, at: usize, before: State) {
        let node = &self.nodes[at];
        if node.state == before {
            return;
        }
        let (state, why) = (node.state, node.why.clone());
        let name = self.name(at);
        if let Some(handle) = self.nodes[at].handle() {
            let (cluster, number) = (handle.cluster_id(), handle.node().0);
            let octets = u128::from_str_radix(&cluster, 16).unwrap_or_default().to_be_bytes();
            self.belonged[at] = Some((octets, number));
            (self.last[at], self.alarms_elsewhere[at]) = (0, false);
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
            }
        }
    }

    /// What a shard would hear.
    fn take(&mut self, at: usize, event: Event) {
        let name = self.name(at);
        match event {
            Event::Applied(applied) => {
                if self.broken == Some(Broken::FeedSkips) && (applied.index + at as u64).is_multiple_of(20) {
                    return;
                }
                let (digest, index) = (digest(&applied.catalog), applied.index);
                self.tell(&format!("{name} applied {index}: {digest:016x}"));
                if index <= self.last[at] {
                    self.history.backwards.push((name.clone(), index, self.last[at]));
                }
                self.last[at] = index;
                if let Some((_, _, told)) = self.history.told.iter_mut().rev().find(|(node, ..)| *node == name) {
                    told.push(index);
                }
                let cluster = self.nodes[at].handle().map(|handle| handle.cluster_id()).unwrap_or_default();
                self.history.applied.entry((cluster, index)).or_default().push((name, digest));
                for (number, events) in applied.outcomes {
                    let Some(place) = number.checked_sub(1) else { continue };
                    let is_done = events.first().and_then(done).is_some();
                    if let Some(proposal) = self.history.proposals.get_mut(place as usize)
                        && is_done
                    {
                        proposal.acknowledged = Some((self.now, index));
                    }
                }
            }
            Event::NotApplied(numbers) => self.tell(&format!("{name} gives up {numbers:?}")),
            Event::Pause(paused) => self.tell(&format!("{name} pauses: {paused}")),
            Event::AlarmElsewhere(reason) => {
                self.alarms_elsewhere[at] = reason.is_some();
                self.tell(&format!("{name} hears of an alarm: {reason:?}"));
            }
            _ => {}
        }
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
        self.history.proposals.push(Proposal { change, began: self.now, acknowledged: None });
        if let Some(handle) = self.nodes[at].handle() {
            handle.proposals().propose(number, command);
        }
    }

    fn those(&self, which: impl Fn(&Node) -> bool) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| which(&self.nodes[*at])).collect()
    }

    /// Something goes wrong.
    fn fault(&mut self) -> io::Result<()> {
        self.faults += 1;
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let name = self.name(at);
        let others: Vec<usize> = self.those(|node| node.number != self.nodes[at].number);
        match self.random.below(12) {
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
            6 | 7 if self.nodes[at].state != State::Down => self.kill(at, 300, 4_000)?,
            8 if self.nodes[at].state == State::Live && !self.nodes[at].stopped => {
                let rests = 100 + self.random.below(9_000);
                self.nodes[at].stopped = true;
                self.goes_on[at] = Some(self.now + rests);
                self.tell(&format!("fault: {name} stands still for {rests} ms"));
            }
            9 => {
                self.alarms[at] = !self.alarms[at];
                let alarm = self.alarms[at];
                if let Some(handle) = self.nodes[at].handle() {
                    handle.say(|facts| facts.memory_alarm = alarm);
                }
                self.tell(&format!("{name} has an alarm: {alarm}"));
            }
            10 => {
                for at in 0..self.nodes.len() {
                    if self.nodes[at].state != State::Down {
                        self.kill(at, 300, 3_000)?;
                    }
                }
            }
            _ => self.empty(at)?,
        }
        Ok(())
    }

    fn kill(&mut self, at: usize, least: u64, most: u64) -> io::Result<()> {
        let rests = least + self.random.below(most);
        self.nodes[at].kill()?;
        self.goes_on[at] = Some(self.now + rests);
        let name = self.name(at);
        self.tell(&format!("fault: {name} is killed for {rests} ms"));
        if self.emptied.is_none() && self.belonged[at].is_some() {
            match self.kept {
                None if self.random.one_in(2) => {
                    self.nodes[at].keep()?;
                    self.kept = Some(at);
                }
                // It has started since.
                Some(kept) if kept == at && self.random.one_in(2) => {
                    self.nodes[at].put_back()?;
                    self.emptied = Some(at);
                    self.tell(&format!("fault: an older copy of the disk of {name} is put back"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A node loses its disk: one in the life of a cluster, when the others belong to it.
    fn empty(&mut self, at: usize) -> io::Result<()> {
        let others = (0..self.nodes.len()).filter(|other| *other != at);
        let all_belong = others.into_iter().all(|other| self.belonged[other].is_some());
        let Some((cluster, number)) = self.belonged[at] else { return Ok(()) };
        if self.emptied.is_some() || !all_belong || self.nodes[at].state == State::Down {
            return Ok(());
        }
        self.emptied = Some(at);
        self.kill(at, 300, 1_000)?;
        self.nodes[at].empty()?;
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
        }
        self.tell("all is well again");
    }

    /// An operator has the cluster forget a node that has lost its disk, so that it can come as a new one; so a node whose disk is an older copy,
    /// once it has said so.
    fn mend(&mut self) -> io::Result<()> {
        let Some(at) = self.emptied else { return Ok(()) };
        if self.nodes[at].is_outdated() {
            let name = self.name(at);
            self.nodes[at].empty()?;
            self.tell(&format!("an operator has emptied the disk of {name}, which was an older copy"));
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

fn digest(catalog: &Catalog) -> u64 {
    let mut hasher = DefaultHasher::new();
    catalog.to_snapshot().encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

/// What an event has made or deleted.
fn done(event: &CatalogEvent) -> Option<Change> {
    match event {
        CatalogEvent::VhostCreated { vhost, existed: false } => Some(Change::Create(vhost.to_string())),
        CatalogEvent::VhostDeleted { vhost, .. } => Some(Change::Delete(vhost.to_string())),
        _ => None,
    }
}
