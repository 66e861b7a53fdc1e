//! The nodes of the cluster. The catalog says who belongs to it; who votes follows from that.

use std::sync::Arc;

use broker_core::name::NodeId;
use broker_core::refusal::Refusal;
use imbl::OrdMap;
use proto::meta;

use super::apply::{Outcome, consequence};
use super::{Catalog, CatalogEvent, is_announced};

/// A cluster gives away so many numbers in its life: a connection's number holds that of its node.
pub const NUMBERS_MAX: u64 = (1 << 12) - 1;
/// So many nodes a cluster has at most.
pub const MEMBERS_MAX: usize = crate::membership::NODES_MAX;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, never given twice.
    pub node: NodeId,
    /// As in `rabbit@host`.
    pub name: String,
    /// Host and port at which other nodes reach it.
    pub address: String,
    /// It has started as this number, and so has a log: nobody else may take its place unnoticed.
    pub started: bool,
}

/// All members, by number. A copy costs a few pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    all: OrdMap<u64, Arc<Member>>,
    /// The highest number that was ever given.
    numbers_given: u64,
}

impl Members {
    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.all.values()
    }

    /// How many there are; none while a node is alone.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one with this number.
    pub fn get(&self, node: NodeId) -> Option<&Arc<Member>> {
        self.all.get(&node.0)
    }

    /// Whether this number was given to a node, be it a member or not any more.
    pub fn knows_of(&self, node: u64) -> bool {
        node <= self.numbers_given
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Member>> {
        self.all.values().find(|member| member.name == name)
    }

    pub(super) fn to_messages(&self) -> (Vec<meta::Member>, u64) {
        let message = |member: &Arc<Member>| meta::Member {
            node: member.node.0,
            name: member.name.clone(),
            address: member.address.clone(),
            started: member.started,
        };
        (self.all.values().map(message).collect(), self.numbers_given)
    }

    pub(super) fn from_messages(members: &[meta::Member], numbers_given: u64) -> Members {
        let member = |message: &meta::Member| {
            let (name, address) = (message.name.clone(), message.address.clone());
            (message.node, Arc::new(Member { node: NodeId(message.node), name, address, started: message.started }))
        };
        Members { all: members.iter().map(member).collect(), numbers_given }
    }
}

impl Catalog {
    pub(super) fn add_member(&mut self, command: &meta::AddMember) -> Outcome {
        let mut events = Vec::new();
        if let Some(member) = self.members.named(&command.name).cloned() {
            if member.started {
                let (name, node) = (&member.name, member.node.0);
                return Err(Refusal::Command(format!(
                    "{name} belongs to the cluster already, as node {node}. If its disk is lost, forget it first (brokerctl cluster forget {name}), which deletes its queues"
                )));
            }
            events = self.remove_member(&meta::RemoveMember { node: member.node.0 });
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(Refusal::Command(format!("the cluster has {MEMBERS_MAX} nodes, and may have no more")));
        }
        let node = self.members.numbers_given + 1;
        if node > NUMBERS_MAX {
            return Err(Refusal::Command(format!("the cluster has given away all its {NUMBERS_MAX} numbers of nodes")));
        }
        self.members.numbers_given = node;
        let (name, address) = (command.name.clone(), command.address.clone());
        let member = Arc::new(Member { node: NodeId(node), name, address, started: false });
        self.members.all.insert(node, member.clone());
        events.insert(0, CatalogEvent::MemberAdded(member));
        Ok(events)
    }

    pub(super) fn remove_member(&mut self, command: &meta::RemoveMember) -> Vec<CatalogEvent> {
        let Some(member) = self.members.all.remove(&command.node) else { return Vec::new() };
        let mut changes = Vec::new();
        self.topology.remove_node(NodeId(command.node), &mut changes);
        let queues = changes.into_iter().map(consequence);
        std::iter::once(CatalogEvent::MemberRemoved(member)).chain(queues).collect()
    }

    pub(super) fn end_transient(&mut self, command: &meta::EndTransient) -> Vec<CatalogEvent> {
        let mut changes = Vec::new();
        // Exchanges belong to no node: those that are not durable stay while there is another.
        if self.members.len() > 1 {
            // What a node has announced goes with the link to it: it may have been announced behind this entry and be known here before it.
            let meant = |queue| !is_announced(queue);
            self.topology.remove_transient_queues(NodeId(command.node), meant, &mut changes);
        } else {
            self.topology.remove_transient(NodeId(command.node), &mut changes);
        }
        let mut events = Vec::new();
        if let Some(member) = self.members.all.get_mut(&command.node).filter(|member| command.starts && !member.started)
        {
            Arc::make_mut(member).started = true;
            events.push(CatalogEvent::MemberStarted(member.clone()));
        }
        events.extend(changes.into_iter().map(consequence));
        events
    }

    /// Only into an empty catalog: whoever was told something of it would not hear that it is gone.
    pub(super) fn import(&mut self, command: &meta::Import) -> Outcome {
        if !self.is_empty() || !self.members.is_empty() {
            return Err(Refusal::Command(
                "the catalog of a node that was alone can only become that of a new cluster".into(),
            ));
        }
        let snapshot = command.snapshot.as_ref().ok_or_else(|| Refusal::Command("nothing to import".into()))?;
        let mut imported = Catalog::from_snapshot(snapshot).map_err(|bad| Refusal::Command(bad.to_string()))?;
        // Identities of queues were given by index: those to come must be higher.
        imported.index = imported.index.max(self.index);
        *self = imported;
        Ok(vec![CatalogEvent::Imported])
    }
}
