//! A node that has lost the others for good makes a new cluster out of its own log.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::name::NodeId;
use proto::meta;
use tempfile::TempDir;

use super::super::*;
use super::cluster_of_nodes::{CLUSTER, PACE, WAIT, Wire, World, opening, place};
use crate::command;

const NEW: [u8; 16] = [9; 16];

async fn open(directory: &Path, world: &World) -> Arc<CatalogRaft<Wire>> {
    let wire = Arc::new(Wire { from: 2, net: world.net.clone(), told: Default::default() });
    Arc::new(CatalogRaft::open(directory, opening(PACE), wire, Box::new(|_| {})).await.unwrap())
}

/// Three nodes, of which 1 and 3 are gone and 2 is stopped, with more in its log than it knows to be committed. A snapshot was made if `long`.
async fn remains(long: bool) -> World {
    let world = World::cluster(3).await;
    let leader = world.leader().await;
    let names = (1..=3).map(|node| command::add_member(&place(node).name, &place(node).address));
    let queue = |node: u64| {
        let declare = meta::DeclareQueue {
            vhost: "v".into(),
            name: format!("on {node}"),
            durable: true,
            node,
            ..meta::DeclareQueue::default()
        };
        Command { kind: Some(meta::command::Kind::DeclareQueue(declare)) }
    };
    let mut commands: Vec<Command> = names.collect();
    commands.push(command::create_vhost("v", "", &[]));
    commands.extend((1..=3).map(queue));
    world.at(leader).propose(1, commands, WAIT).await.unwrap();
    if leader == 2 {
        world.at(2).hand_over(1).await.unwrap();
        world.until("another leader", || (world.at(2).status().role != Role::Leader).then_some(())).await;
    }
    let leader = world.leader().await;
    for number in 2..if long { 150 } else { 5 } {
        let vhost = command::create_vhost(&format!("v{number}"), "", &[]);
        world.at(leader).propose(number, vec![vhost], WAIT).await.unwrap();
    }
    world.agree().await;
    for node in [1, 3, 2] {
        world.stop(node).await;
    }
    world
}

async fn is_formed_again(long: bool) {
    let world = remains(long).await;
    let (directory, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let forced = force_boot(world.directory(2), directory.path(), NEW).unwrap();
    assert_eq!((forced.node, &*forced.name, forced.old_cluster), (2, "rabbit@2", CLUSTER));
    let lost: Vec<(u64, &str, u64)> = forced.lost.iter().map(|lost| (lost.node, &*lost.name, lost.queues)).collect();
    assert_eq!(lost, [(1, "rabbit@1", 1), (3, "rabbit@3", 1)]);
    // After a crash it is done again, and nothing was taken from the old log.
    assert_eq!(force_boot(world.directory(2), other.path(), NEW).unwrap().lost, forced.lost);

    let old_start = {
        world.start(2).await;
        let start = world.at(2).incarnation();
        assert_eq!(world.create(2, "in vain", Duration::from_millis(500)).await, Err(ProposeError::NoMajority));
        world.stop(2).await;
        start
    };
    for round in 0..3 {
        let raft = open(directory.path(), &world).await;
        assert_eq!((raft.identity().cluster, raft.identity().node), (NEW, 2));
        world.until("its voters", || (!raft.status().voters.is_empty()).then_some(())).await;
        raft.lead_alone().await;
        let status = raft.status();
        assert_eq!((status.role, status.voters, status.learners.len()), (Role::Leader, BTreeSet::from([2]), 0));
        let vhost = format!("after {round}");
        raft.propose(1, vec![command::create_vhost(&vhost, "", &[])], WAIT).await.unwrap();
        let catalog = raft.catalog();
        let members: Vec<u64> = catalog.members().iter().map(|member| member.node.0).collect();
        assert_eq!(members, [2]);
        assert!(catalog.members().knows_of(3), "a number is never given twice");
        let topology = catalog.topology();
        assert_eq!(topology.queues().map(|queue| queue.node).collect::<Vec<_>>(), [NodeId(2)]);
        assert!(topology.vhost(&vhost).is_some(), "the change was carried out");
        assert!(topology.vhost("v4").is_some(), "what was there before is still there");
        assert!(count_of(raft.incarnation()) + 2 > count_of(old_start), "starts go on being counted");
        raft.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_left_goes_on_with_what_its_log_holds() {
    is_formed_again(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_with_what_its_snapshot_holds_and_the_log_after_it() {
    is_formed_again(true).await;
}

#[tokio::test]
async fn only_a_member_has_anything_to_go_on_with() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    assert!(matches!(force_boot(from.path(), to.path(), NEW), Err(OpenError::Missing(_))));
}
