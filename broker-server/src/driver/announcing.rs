//! What a node tells the others of its exclusive queues: they are in no log.
//!
//! Who declares one is answered when all others have taken the announcement. One that takes the name for that of a third node refuses it: it may not have
//! heard yet that the name is free again, for another node tells it so on another link. It is asked again often for a while, then the client is
//! answered all the same, and it is asked now and then until it has heard. If it has a queue of that name itself, this node's gives way.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::link::Op;
use broker_amqp::{Input, Reply};
use broker_core::name::NodeId;
use broker_core::refusal::Refusal;
use broker_core::store::QueueId;
use broker_core::topology::QueueRecord;
use broker_meta::command::{self, Announcement, announced_queue};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use prost::Message as _;

use super::elsewhere::Question;
use super::links::Owed;
use super::requests::{Waiter, exception};
use super::shard::Shard;

/// An announcement that is refused is said again for so long...
const ANNOUNCE_WAIT: Duration = Duration::from_secs(3);
/// ...and this often...
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(20);
/// ...and then this often.
const ANNOUNCE_LATE: Duration = Duration::from_secs(1);

/// Announcements that not all other nodes have taken.
#[derive(Default)]
pub(super) struct Announcing {
    /// Those for which somebody waits, by the number of the proposal.
    announced: HashMap<u64, Announced, RandomState>,
    /// Those that were refused and are said again, when and to whom.
    again: VecDeque<(Instant, NodeId, Question)>,
    /// Queues that a node does not take, for which nobody waits any more.
    late: BTreeSet<(NodeId, QueueId)>,
    late_at: Option<Instant>,
}

/// What this node has announced of its exclusive queues, and who waits for it.
#[derive(Default)]
struct Announced {
    /// Nodes that have not answered.
    missing: usize,
    /// The queue, if one is declared.
    queue: Option<QueueId>,
    reply: Option<(u64, u16, Reply)>,
    /// A connection that closes when all know that its queues are gone.
    goodbye: Option<u64>,
}

impl Announcing {
    /// When something is said again.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.again.front().map(|(at, ..)| *at).into_iter().chain(self.late_at).min()
    }

    /// There is no link to a node any more: on the next one it is told everything.
    pub fn forget(&mut self, node: NodeId) {
        self.late.retain(|(other, _)| *other != node);
    }

    fn is_late(&mut self, node: NodeId, queue: QueueId, now: Instant) {
        self.late.insert((node, queue));
        self.late_at.get_or_insert(now + ANNOUNCE_LATE);
    }
}

impl Shard {
    /// Tells all nodes something of this node's exclusive queues, this one first. Who waits is answered when all have taken it.
    pub(super) fn announce(&mut self, announcement: &Announcement, queue: Option<QueueId>, waiter: Waiter) {
        let number = self.next_proposal;
        self.next_proposal += 1;
        self.waiters.insert(number, waiter);
        let octets: Arc<[u8]> = announcement.encode_to_vec().into();
        let until = self.now + ANNOUNCE_WAIT;
        let nodes: Vec<NodeId> = self.links.nodes().collect();
        self.links
            .announcing
            .announced
            .insert(number, Announced { missing: nodes.len(), queue, reply: None, goodbye: None });
        for node in nodes {
            let request = self.links.ask(node, Question::Announced { proposal: number, octets: octets.clone(), until });
            self.links.say(node, &Op::Announce { request, octets: &octets });
        }
        if let Some(cluster) = self.parts.meta.cluster() {
            cluster.announce(self.parts.node, announcement, number);
        }
    }

    /// Another node says something of its exclusive queues.
    pub(super) fn hear_announcement(&mut self, node: NodeId, request: u64, octets: &[u8]) {
        let Ok(announcement) = Announcement::decode(octets) else {
            return self.links.say(node, &Op::Refusal { request, code: 541, text: "an announcement that is none" });
        };
        let number = self.next_proposal;
        self.next_proposal += 1;
        // It is answered when this node routes by it.
        self.waiters.insert(number, Waiter::AnnouncedBy { node, request });
        if let Some(cluster) = self.parts.meta.cluster() {
            cluster.announce(node, &announcement, number);
        }
    }

    /// Says something of this node's exclusive queues on a link that is new, or to a node that has not taken it. It is asked whether it takes a queue.
    pub(super) fn announce_to(&mut self, node: NodeId, announcement: &Announcement) {
        let request = match announced_queue(announcement) {
            Some(queue) => self.links.ask(node, Question::AnnouncedLate { queue }),
            None => 0,
        };
        self.links.say(node, &Op::Announce { request, octets: &announcement.encode_to_vec() });
    }

    /// A node does not take a queue of which it has not heard in time. If it has one of that name itself, this one gives way.
    pub(super) fn late_announcement_is_refused(&mut self, node: NodeId, queue: QueueId, is_its_own: bool) {
        if !is_its_own {
            return self.links.announcing.is_late(node, queue, self.now);
        }
        if self.queues.contains_key(&queue) {
            self.give_way(queue);
        }
    }

    /// A queue is gone, as if that of another node with the same name had been heard of. Who waits for it is answered then.
    fn give_way(&mut self, queue: QueueId) {
        if let Some(cluster) = self.parts.meta.cluster() {
            cluster.announce(self.parts.node, &command::announce_deletion([queue]), self.next_proposal);
            self.next_proposal += 1;
        }
    }

    /// Another node has a queue of that name itself: the one that was announced gives way. Whether there is one.
    pub(super) fn announced_name_is_taken(&mut self, proposal: u64) -> bool {
        let Some(Announced { queue: Some(queue), reply, .. }) = self.links.announcing.announced.get(&proposal) else {
            return false;
        };
        let (queue, is_gone) = (*queue, reply.is_some() && !self.queues.contains_key(queue));
        if !is_gone {
            self.give_way(queue);
        }
        !is_gone
    }

    /// A node does not take an announcement. It may not have heard yet that the name is free again: another node tells it so, on another link.
    pub(super) fn announcement_is_refused(
        &mut self,
        node: NodeId,
        proposal: u64,
        octets: Arc<[u8]>,
        until: Instant,
        why: &str,
    ) {
        let Some(&Announced { queue, .. }) = self.links.announcing.announced.get(&proposal) else { return };
        if self.now < until {
            let question = Question::Announced { proposal, octets, until };
            return self.links.announcing.again.push_back((self.now + ANNOUNCE_AGAIN, node, question));
        }
        tracing::warn!(node = node.0, "another node does not know an exclusive queue of this one yet: {why}");
        if let Some(queue) = queue {
            self.links.announcing.is_late(node, queue, self.now);
        }
        self.announcement_is_taken(proposal);
    }

    /// Says again what was refused, if it is time.
    pub(super) fn announce_again(&mut self) {
        while self.links.announcing.again.front().is_some_and(|(at, ..)| *at <= self.now)
            && let Some((_, node, question)) = self.links.announcing.again.pop_front()
        {
            let Question::Announced { proposal, ref octets, .. } = question else { continue };
            // Of a queue that has gone meanwhile nobody must hear behind its deletion: it would stay there.
            let is_gone =
                |announced: &Announced| announced.queue.is_some_and(|queue| !self.queues.contains_key(&queue));
            let is_moot = self.links.announcing.announced.get(&proposal).is_none_or(is_gone);
            if is_moot || !self.links.reaches(node) {
                self.announcement_is_taken(proposal);
                continue;
            }
            let octets = octets.clone();
            let request = self.links.ask(node, question);
            self.links.say(node, &Op::Announce { request, octets: &octets });
        }
        if self.links.announcing.late_at.is_some_and(|at| at <= self.now) {
            self.links.announcing.late_at = None;
            for (node, queue) in std::mem::take(&mut self.links.announcing.late) {
                let of_queue = self.parts.meta.cluster().map(|cluster| cluster.announcements_of(queue));
                for announcement in of_queue.unwrap_or_default() {
                    self.announce_to(node, &announcement);
                }
            }
        }
    }

    /// A node has taken an announcement, or cannot be reached any more.
    pub(super) fn announcement_is_taken(&mut self, proposal: u64) {
        let Some(announced) = self.links.announcing.announced.get_mut(&proposal) else { return };
        announced.missing = announced.missing.saturating_sub(1);
        if announced.missing > 0 || (announced.reply.is_none() && announced.goodbye.is_none()) {
            return;
        }
        let Some(Announced { reply, goodbye, .. }) = self.links.announcing.announced.remove(&proposal) else { return };
        self.replies.extend(reply);
        if let Some(place) = goodbye.and_then(|connection| self.place_of(connection)) {
            self.tell(place, Input::ConnectionClosed);
        }
    }

    /// Answers a channel that has waited for a proposal; of an announcement when all nodes have taken it.
    pub(super) fn reply_to_proposal(&mut self, proposal: u64, connection: u64, channel: u16, reply: Reply) {
        match self.links.announcing.announced.get_mut(&proposal) {
            Some(announced) if announced.missing > 0 => announced.reply = Some((connection, channel, reply)),
            Some(_) => {
                self.links.announcing.announced.remove(&proposal);
                self.replies.push_back((connection, channel, reply));
            }
            None => self.answer_when_seen(Owed::Channel { connection, channel, reply }),
        }
    }

    /// Whether a proposal is an announcement of this node's.
    pub(super) fn has_announced(&self, proposal: u64) -> bool {
        self.links.announcing.announced.contains_key(&proposal)
    }

    /// A connection's exclusive queues are gone here. Whether it has to wait for the other nodes to know.
    pub(super) fn goodbye_waits(&mut self, proposal: u64, connection: u64) -> bool {
        match self.links.announcing.announced.get_mut(&proposal) {
            Some(announced) if announced.missing > 0 => {
                announced.goodbye = Some(connection);
                true
            }
            _ => false,
        }
    }

    /// An announcement was refused here: nobody waits for the others.
    pub(super) fn forget_announcement(&mut self, proposal: u64) {
        self.links.announcing.announced.remove(&proposal);
    }

    /// Another node, or the log, keeps the name of an exclusive queue: who declares it is told so, and the others are told that it is gone, for they may have
    /// heard of it behind the one that keeps the name.
    pub(super) fn announced_queue_gave_way(&mut self, record: &QueueRecord) {
        let octets = command::announce_deletion([record.id]).encode_to_vec();
        self.links.say_to_all(&Op::Announce { request: 0, octets: &octets });
        let is_its = |(_, announced): &(&u64, &Announced)| announced.queue == Some(record.id);
        let waits = self.links.announcing.announced.iter().find(is_its).map(|(&proposal, _)| proposal);
        if let Some(Announced { reply: Some((connection, channel, _)), .. }) =
            waits.and_then(|proposal| self.links.announcing.announced.remove(&proposal))
        {
            let locked = exception(Refusal::Locked(record.vhost.clone(), record.name.clone()));
            self.replies.push_back((connection, channel, Reply::Refused(locked)));
        }
    }
}
