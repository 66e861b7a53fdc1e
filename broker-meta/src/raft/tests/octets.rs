//! Octets of other nodes: whatever they are, they are answered or refused.

use proptest::prelude::*;
use prost::Message;
use proto::cluster;

use super::super::{HandleError, Kind};
use super::cluster_of_nodes::World;

const KINDS: [Kind; 6] = [Kind::Append, Kind::Vote, Kind::PreVote, Kind::Snapshot, Kind::Transfer, Kind::Propose];

#[test]
fn any_octets_are_answered_or_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = runtime.block_on(World::cluster(1));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let strategy = (0..KINDS.len(), prop::collection::vec(any::<u8>(), 0..200));
    let outcome = runner.run(&strategy, |(kind, octets)| {
        // An answer or an error; no panic, and the node goes on.
        let _ = runtime.block_on(world.at(1).handle(KINDS[kind], &octets));
        prop_assert_eq!(world.at(1).failed(), None);
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_named() {
    let world = World::cluster(1).await;
    let node = world.at(1);
    let why = async |kind, octets: Vec<u8>| match node.handle(kind, &octets).await {
        Err(HandleError::Meaningless(why)) => why.to_string(),
        other => panic!("{other:?}"),
    };
    let vote = Some(cluster::Vote { term: 9, voted_for: 2, committed: true });
    assert_eq!(why(Kind::Vote, Vec::new()).await, "a vote is missing");
    assert_eq!(why(Kind::Propose, Vec::new()).await, "a proposal does not say whose it is");
    let unknown = cluster::Entry { id: Some(cluster::LogId { term: 1, index: 5 }), payload: None };
    let append = cluster::AppendRequest { vote, entries: vec![unknown], ..Default::default() };
    let newer = "an entry of the log is of a kind that this version does not know: upgrade this node";
    assert_eq!(why(Kind::Append, append.encode_to_vec()).await, newer);
    let piece = |transfer, offset| cluster::SnapshotPiece { vote, transfer, offset, octets: vec![1; 10], last: false };
    let next = "a piece of a snapshot does not follow the one before";
    assert_eq!(why(Kind::Snapshot, piece(1, 10).encode_to_vec()).await, next);
    node.handle(Kind::Snapshot, &piece(1, 0).encode_to_vec()).await.unwrap();
    assert_eq!(why(Kind::Snapshot, piece(2, 10).encode_to_vec()).await, next);
    assert_eq!(why(Kind::Snapshot, piece(1, 20).encode_to_vec()).await, next);
    node.handle(Kind::Snapshot, &piece(1, 10).encode_to_vec()).await.unwrap();
    let last = cluster::SnapshotPiece { last: true, ..piece(1, 20) };
    assert_eq!(why(Kind::Snapshot, last.encode_to_vec()).await, "a snapshot is damaged");
}
