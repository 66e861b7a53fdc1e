//! The clients of all nodes: who comes, what they do, and what is noted of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::broken::Broken;
use crate::client::{Client, Said};
use crate::history::{Delivery, Held, LOOKS_EVERY_MS, Linked, Message, While};
use crate::node::State;
use crate::role::Role;
use crate::world::World;

/// At the same time at most.
const CLIENTS_MAX: usize = 14;
/// Durable queues from which one client takes at a time.
const QUEUES: u64 = 6;
/// Durable queues from which several do, from several nodes.
const SHARED: u64 = 2;
/// Durable queues with requests.
const REQUESTS: u64 = 2;
/// Exclusive names.
const NAMES: u64 = 3;
/// Where queues live is looked at this often, in milliseconds.
const HOMES_EVERY_MS: u64 = 50;
/// A consumer that is gone is known for so long to a node that does not hear it: a node stands still, and then a link fails.
const KNOWN_MS: u64 = 16_000;
/// The same while all is well.
const WELL_KNOWN_MS: u64 = 1_000;
/// Whoever closes is given so long.
const PATIENCE_MS: u64 = 3_000;
/// While all is well an answer comes sooner.
const ANSWERED_MS: u64 = 2_000;

/// See the module's page.
#[derive(Default)]
pub struct Crowd {
    clients: Vec<Client>,
    came: u64,
    /// When queues last had a consumer.
    consumed: BTreeMap<String, u64>,
    /// Exclusive names that clients have: the client, and since when.
    holds: BTreeMap<u64, (String, usize, u64)>,
    /// Links: of which node, to which number, and since when.
    links: BTreeMap<(usize, u64), u64>,
}

impl World {
    /// A millisecond of all clients.
    pub(crate) fn crowd(&mut self) -> io::Result<()> {
        if self.now < self.quiet_ms() && self.random.one_in(100) && self.crowd.clients.len() < CLIENTS_MAX {
            self.come()?;
        }
        if self.now > self.quiet_ms() && self.now.is_multiple_of(500) {
            self.collect()?;
        }
        for mut client in std::mem::take(&mut self.crowd.clients) {
            if let Some(queue) = client.role.source() {
                self.crowd.consumed.insert(queue.clone(), self.now);
            }
            if self.goes_on(&mut client) {
                self.crowd.clients.push(client);
            }
        }
        if self.now.is_multiple_of(LOOKS_EVERY_MS) {
            self.look();
        }
        if self.now.is_multiple_of(HOMES_EVERY_MS) {
            self.look_for_homes();
        }
        Ok(())
    }

    /// A node is gone, and with it its names and links.
    pub(crate) fn crowd_ends(&mut self, at: usize) {
        let holders = self.crowd.holds.iter().filter(|(_, (_, of, _))| *of == at).map(|(&client, _)| client);
        let holders: Vec<u64> = holders.collect();
        holders.into_iter().for_each(|client| self.lets_go(client));
        let links: Vec<(usize, u64)> = self.crowd.links.keys().copied().filter(|(of, _)| *of == at).collect();
        links.into_iter().for_each(|(at, other)| self.link_ends(at, other));
    }

    fn come(&mut self) -> io::Result<()> {
        let queue = format!("q{}", 1 + self.random.below(QUEUES));
        let shared = format!("s{}", 1 + self.random.below(SHARED));
        let asked = format!("r{}", 1 + self.random.below(REQUESTS));
        let (role, life) = match self.random.below(20) {
            0..5 => (Role::Publish(vec![queue]), 4_000),
            5 => (Role::Publish(BTreeSet::from([queue, shared]).into_iter().collect()), 4_000),
            6 => {
                let other = format!("q{}", 1 + self.random.below(QUEUES));
                (Role::Publish(BTreeSet::from([queue, other]).into_iter().collect()), 4_000)
            }
            7..11 if self.had_consumer(&queue) => return Ok(()),
            7..10 => (Role::Consume(queue), 15_000),
            10 => (Role::Get(queue), 15_000),
            11 => (Role::Consume(shared), 10_000),
            12 => (Role::Get(shared), 15_000),
            13 => (Role::Transact(vec![shared]), 10_000),
            14 => (Role::Transact(vec![shared, queue]), 10_000),
            15 => (Role::Respond(asked), 15_000),
            16 => (Role::Request(asked), 10_000),
            _ => (Role::Hold(format!("x{}", 1 + self.random.below(NAMES))), 20_000),
        };
        let until = self.now + 300 + self.random.below(life);
        self.comes(role, until.min(self.quiet_ms()))
    }

    /// At the end all queues are emptied.
    fn collect(&mut self) -> io::Result<()> {
        let durable = self.history.homes.keys().filter(|queue| !queue.starts_with('r'));
        let durable: Vec<String> = durable.cloned().collect();
        for queue in durable.into_iter().filter(|queue| !self.had_consumer(queue)).collect::<Vec<_>>() {
            self.comes(Role::Consume(queue), u64::MAX)?;
        }
        Ok(())
    }

    /// Whether a queue has a consumer, or one that has gone may still be there for the queue's node: what was on its way to that one goes back without a mark
    /// that it may have been delivered, and comes behind what another has had meanwhile.
    fn had_consumer(&self, queue: &str) -> bool {
        let while_known = if self.is_well() { WELL_KNOWN_MS } else { KNOWN_MS };
        self.crowd.consumed.get(queue).is_some_and(|at| self.now < at + while_known)
    }

    /// A client comes to some node, if that lets it in.
    fn comes(&mut self, role: Role, until: u64) -> io::Result<()> {
        let live: Vec<usize> = self.those(|node| node.state == State::Live && !node.stopped);
        let Some(&at) = self.random.pick(&live) else { return Ok(()) };
        let Some(socket) = self.nodes[at].connect()? else { return Ok(()) };
        self.crowd.came += 1;
        let number = self.crowd.came;
        let name = self.name(at);
        self.tell(&format!("client {number} comes to {name}: {role:?}"));
        let mut client = Client::new(number, at, role, (self.now, until), socket);
        if self.broken == Some(Broken::RollbackCommits) {
            client.always_commits();
        }
        self.crowd.clients.push(client);
        Ok(())
    }

    /// Whether a client stays.
    fn goes_on(&mut self, client: &mut Client) -> bool {
        if self.now == client.until {
            self.leaves(client);
            if self.random.one_in(3) {
                self.tell(&format!("client {} is gone without a word", client.number));
                self.lets_go(client.number);
                return false;
            }
            self.lets_go(client.number);
            client.close();
        }
        self.works(client);
        let mut stays = self.now < client.until.saturating_add(PATIENCE_MS);
        for said in client.step(self.now) {
            stays &= !matches!(said, Said::Over(_));
            self.hears(client, said);
        }
        self.misses_an_answer(client, stays);
        if !stays {
            self.lets_go(client.number);
        }
        stays
    }

    /// A client's time is over: replies that had time to reach it have done so.
    fn leaves(&mut self, client: &Client) {
        let prefix = format!("{}.", client.number);
        let (now, from) = (self.now, self.well_from());
        let of_client =
            self.history.replies.range_mut(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        for (_, reply) in of_client.filter(|_| client.is_at_work()) {
            reply.is_due = reply.sent.iter().any(|&at| at > from && at + ANSWERED_MS < now);
        }
    }

    /// What a client does of itself.
    fn works(&mut self, client: &mut Client) {
        let queues = client.role.queues();
        if !queues.is_empty() && client.may_publish() && self.random.one_in(60) {
            for _ in 0..1 + self.random.below(6) {
                let name = client.publish();
                let queues = client.role.queues();
                let copies = queues.iter().map(|queue| ((name.clone(), queue.clone()), Message::default()));
                self.history.messages.extend(copies);
                if let Role::Transact(_) = client.role {
                    self.history.withheld.insert(name);
                }
            }
        }
        let did = match client.role {
            Role::Get(_) if client.may_get() && self.random.one_in(30) => {
                client.get();
                Vec::new()
            }
            Role::Get(_) if client.is_at_work() && self.random.one_in(1_500) => {
                let left = self.random.below(3) as usize;
                client.settle(left)
            }
            Role::Transact(_) if client.is_at_work() && self.random.one_in(150) => {
                let commits = !self.random.one_in(3);
                if commits {
                    let published = client.in_transaction();
                    self.history.withheld.retain(|name| !published.contains(name));
                }
                self.tell(&format!("client {} commits: {commits}", client.number));
                client.end_transaction(commits)
            }
            Role::Request(_) if client.is_at_work() && self.random.one_in(60) => {
                client.request();
                Vec::new()
            }
            _ => Vec::new(),
        };
        did.into_iter().for_each(|did| self.hears(client, did));
    }

    /// A client that has waited for an answer for long while all was well.
    fn misses_an_answer(&mut self, client: &Client, stays: bool) {
        let Some(from) = client.waits_from().filter(|from| *from > self.well_from()) else { return };
        if self.now == from + ANSWERED_MS && stays {
            let (number, role) = (client.number, &client.role);
            let what = format!("client {number}, {role:?}, has waited for an answer since {from} ms");
            self.tell(&what);
            self.history.unanswered.push(what);
        }
    }

    fn hears(&mut self, client: &Client, said: Said) {
        self.tell(&format!("client {} hears {said:?}", client.number));
        match said {
            Said::Granted => {
                if let Role::Hold(name) = &client.role
                    && self.now < client.until
                {
                    self.crowd.holds.insert(client.number, (name.clone(), client.at, self.now));
                }
            }
            Said::Answered(count, is_confirmed) => {
                self.copies(client, &client.message(count), |message| message.confirmed |= is_confirmed);
            }
            Said::Committed(counts) => {
                for count in counts {
                    self.copies(client, &client.message(count), |message| message.confirmed = true);
                }
            }
            Said::Returned(name) => {
                self.copies(client, &name, |message| message.returned = true);
            }
            Said::Delivered(name, redelivered) => {
                let (publisher, count) = name.split_once('.').unwrap_or_default();
                let message = (publisher.parse().unwrap_or(0), count.parse().unwrap_or(0));
                let queue = client.role.source().cloned().unwrap_or_default();
                self.history.deliveries.push(Delivery { consumer: client.number, queue, message, redelivered });
            }
            Said::Acknowledged(name) => {
                if let Some(queue) = client.role.source()
                    && let Some(message) = self.history.messages.get_mut(&(name, queue.clone()))
                {
                    message.acknowledged = true;
                }
            }
            Said::Replied(name) => {
                let at = self.now;
                self.history.replies.entry(name).or_default().sent.push(at);
            }
            Said::Reply(name) => self.history.replies.entry(name).or_default().heard.push(client.number),
            Said::Over(_) => {}
        }
    }

    /// The copies of a publisher's message, one for each queue.
    fn copies(&mut self, publisher: &Client, name: &str, note: impl Fn(&mut Message)) {
        for queue in publisher.role.queues() {
            if let Some(message) = self.history.messages.get_mut(&(name.to_owned(), queue.clone())) {
                note(message);
            }
        }
    }

    fn lets_go(&mut self, client: u64) {
        let Some((name, at, from)) = self.crowd.holds.remove(&client) else { return };
        let Some((_, node)) = self.belonged[at] else { return };
        self.history.held.push(Held { name, node, time: While { from, until: self.now } });
    }

    fn link_ends(&mut self, at: usize, other: u64) {
        let Some(from) = self.crowd.links.remove(&(at, other)) else { return };
        let Some((_, node)) = self.belonged[at] else { return };
        self.history.linked.push(Linked { node, other, time: While { from, until: self.now } });
    }

    /// A node is handed a new link.
    pub(crate) fn link_begins(&mut self, at: usize, other: u64) {
        self.link_ends(at, other);
        self.crowd.links.insert((at, other), self.now);
    }

    /// Who has lost a name or a link.
    fn look(&mut self) {
        let holds: Vec<u64> = self.crowd.holds.keys().copied().collect();
        for client in holds {
            let keeps = self.crowd.holds.get(&client).is_some_and(|(name, at, _)| {
                let handle = self.nodes[*at].handle();
                handle.is_some_and(|handle| {
                    let queue = handle.catalog().topology().queue("/", name).cloned();
                    queue.is_some_and(|queue| queue.exclusive_owner.is_some() && queue.node == handle.node())
                })
            });
            if !keeps {
                self.tell(&format!("client {client} has lost its name"));
                self.lets_go(client);
            }
        }
        let links: Vec<(usize, u64)> = self.crowd.links.keys().copied().collect();
        for (at, other) in links {
            if !self.nodes[at].links().contains(&other) {
                self.link_ends(at, other);
            }
        }
    }

    fn look_for_homes(&mut self) {
        for node in &self.nodes {
            let Some(handle) = node.handle() else { continue };
            for queue in handle.catalog().topology().queues().filter(|queue| queue.durable) {
                let homes = self.history.homes.entry(queue.name.as_str().to_owned()).or_default();
                homes.insert(queue.node.0);
            }
        }
    }
}
