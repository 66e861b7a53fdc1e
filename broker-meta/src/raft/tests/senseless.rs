//! Requests that are well formed and make no sense: they are refused, and the node goes on.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use prost::Message;
use proto::cluster::{self, Blank, LogId, entry::Payload};
use proto::meta;
use tempfile::TempDir;

use super::super::check::NUMBER_MAX;
use super::super::types::{EntryOf, take_entry, take_log_id, take_vote};
use super::super::*;
use super::cluster_of_nodes::{WAIT, World, opening, place};
use crate::command;

const LEADER: cluster::Vote = cluster::Vote { term: 9, voted_for: 2, committed: true };

fn at(term: u64, index: u64) -> Option<LogId> {
    Some(LogId { term, index })
}

fn blank(term: u64, index: u64) -> cluster::Entry {
    cluster::Entry { id: at(term, index), payload: Some(Payload::Blank(Blank {})) }
}

fn append(previous: Option<LogId>, entries: &[(u64, u64)]) -> cluster::AppendRequest {
    let entries = entries.iter().map(|&(term, index)| blank(term, index)).collect();
    cluster::AppendRequest { vote: Some(LEADER), previous, entries, committed: None }
}

async fn refusal(node: &CatalogRaft<impl Transport>, kind: Kind, request: impl Message + Debug) -> String {
    match node.handle(kind, &request.encode_to_vec()).await {
        Err(HandleError::Meaningless(why)) => why.to_string(),
        other => panic!("{other:?} to {request:?}"),
    }
}

/// A node that leads itself and has applied its first entries, (0, 0) and (1, 1).
async fn leader_alone() -> (World, u64) {
    let world = World::cluster(1).await;
    let term = world.leader_term().await;
    (world, term)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_do_not_follow_are_refused() {
    let (world, term) = leader_alone().await;
    let node = world.at(1);
    let follow = "entries of the log do not follow each other";
    let back = "terms of the log go backwards";
    let far = "a term or an index of the log is out of all bounds";
    let beyond = "an entry of the log is of a later term than its leader";
    let committed = "a request contradicts what is committed";
    let cases = [
        (append(at(term, 1), &[(9, 2), (9, 5)]), follow),
        (append(at(term, 1), &[(9, 7)]), follow),
        (append(at(term, 1), &[(9, 2), (9, 2)]), follow),
        (append(at(term, 1), &[(9, 1)]), follow),
        (append(None, &[(9, 1)]), follow),
        (append(at(term, 1), &[(9, 2), (8, 3)]), back),
        (append(at(3, 2), &[(2, 3)]), back),
        (append(at(9, u64::MAX), &[]), far),
        (append(at(9, u64::MAX), &[(9, 0)]), far),
        (append(at(9, u64::MAX - 1), &[(9, u64::MAX)]), far),
        (append(at(term, 1), &[(9, u64::MAX)]), far),
        (append(at(9, NUMBER_MAX), &[(9, NUMBER_MAX + 1)]), far),
        (append(at(u64::MAX, 2), &[]), far),
        // The first entry, which founds a cluster, is of no term; all others are of one.
        (append(None, &[(9, 0)]), far),
        (append(at(0, 1), &[]), far),
        (append(at(term, 1), &[(10, 2)]), beyond),
        (append(at(10, 5), &[]), beyond),
        (cluster::AppendRequest { committed: at(10, 1), ..append(at(term, 1), &[]) }, beyond),
        (cluster::AppendRequest { committed: at(9, u64::MAX), ..append(at(term, 1), &[]) }, far),
        (
            cluster::AppendRequest { committed: at(8, 2), ..append(at(term, 1), &[(9, 2)]) },
            "what is said to be committed contradicts the entries",
        ),
        (append(at(9, 1), &[]), committed),
        (append(at(0, 0), &[(9, 1)]), committed),
        (cluster::AppendRequest { committed: at(9, 1), ..append(None, &[]) }, committed),
    ];
    for (request, why) in cases {
        assert_eq!(refusal(&node, Kind::Append, request.clone()).await, why, "{request:?}");
    }
    let nobody = cluster::Entry { id: at(9, 2), payload: Some(Payload::Membership(cluster::Membership::default())) };
    let request = cluster::AppendRequest { entries: vec![nobody], ..append(at(term, 1), &[]) };
    assert_eq!(refusal(&node, Kind::Append, request).await, "a membership has no voters");
    assert_eq!(node.failed(), None);
    // It still leads, and what makes sense is taken.
    world.create(1, "after", WAIT).await.unwrap();
    let status = node.status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
    let request = append(at(term, status.last), &[(9, status.last + 1), (9, status.last + 2)]);
    let answer = node.handle(Kind::Append, &request.encode_to_vec()).await.unwrap();
    let answer = cluster::AppendResponse::decode(&*answer).unwrap();
    assert_eq!(answer.result, Some(cluster::append_response::Result::Success(Blank {})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_does_not_go_back_on_what_it_sent() {
    let world = World::strangers(1).await;
    let node = world.at(1);
    let success = async |request: cluster::AppendRequest| {
        let answer = node.handle(Kind::Append, &request.encode_to_vec()).await.unwrap();
        let answer = cluster::AppendResponse::decode(&*answer).unwrap();
        assert_eq!(answer.result, Some(cluster::append_response::Result::Success(Blank {})), "{request:?}");
    };
    success(append(None, &[(0, 0), (3, 1), (3, 2), (3, 3)])).await;
    let back = "a leader contradicts what it sent before";
    for request in [append(at(0, 0), &[(4, 1)]), append(at(3, 1), &[(2 + 2, 2)]), append(at(2, 2), &[])] {
        assert_eq!(refusal(&node, Kind::Append, request.clone()).await, back, "{request:?}");
    }
    let earlier = cluster::Snapshot { last: at(2, 3), ..snapshot() };
    assert_eq!(refusal(&node, Kind::Snapshot, piece(LEADER, &earlier)).await, back);
    // What is committed beyond what it sent is to come after it.
    let request = cluster::AppendRequest { committed: at(2, 7), ..append(None, &[]) };
    assert_eq!(refusal(&node, Kind::Append, request).await, back);
    // Again, from the middle, and further.
    success(append(at(3, 1), &[(3, 2), (3, 3)])).await;
    success(append(at(3, 3), &[(4, 4)])).await;
    success(append(at(3, 2), &[])).await;
    // A later leader may have other entries.
    let later = cluster::Vote { term: 10, ..LEADER };
    success(cluster::AppendRequest { vote: Some(later), ..append(at(4, 4), &[(4, 5)]) }).await;
    assert_eq!(node.failed(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_leader_is_told_of_the_later_one() {
    let (world, term) = leader_alone().await;
    let node = world.at(1);
    let later = cluster::AppendRequest { committed: at(9, 2), ..append(at(term, 1), &[(9, 2)]) };
    node.handle(Kind::Append, &later.encode_to_vec()).await.unwrap();
    world.until("it to be committed", || (node.status().applied >= 2).then_some(())).await;
    // It contradicts what is committed because it was cut off, and has to hear why.
    let earlier = cluster::Vote { term: 8, voted_for: 3, committed: true };
    let request = cluster::AppendRequest { vote: Some(earlier), ..append(at(term, 1), &[(8, 2), (8, 3)]) };
    let answer = node.handle(Kind::Append, &request.encode_to_vec()).await.unwrap();
    let answer = cluster::AppendResponse::decode(&*answer).unwrap().result;
    assert!(matches!(answer, Some(cluster::append_response::Result::Higher(vote)) if vote.term >= 9), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_that_cannot_be_are_refused() {
    let (world, term) = leader_alone().await;
    let node = world.at(1);
    let none = "nobody can have such a vote";
    let own = "a vote of this node comes from another";
    let asks = "who asks for votes has none, and who leads has";
    let vote = |term, voted_for, committed| Some(cluster::Vote { term, voted_for, committed });
    let cases = [
        (vote(0, 2, false), none),
        (vote(u64::MAX, 2, false), none),
        (vote(NUMBER_MAX + 1, 2, false), none),
        (vote(9, 0, false), none),
        (vote(9, 1, false), own),
        (vote(9, 2, true), asks),
    ];
    for (vote, why) in cases {
        for kind in [Kind::Vote, Kind::PreVote] {
            let request = cluster::VoteRequest { vote, last: at(1, 1), leadership_transfer: false };
            assert_eq!(refusal(&node, kind, request).await, why, "{vote:?}");
        }
        // Of leaders the other way round.
        let vote = vote.map(|vote| cluster::Vote { committed: !vote.committed, ..vote });
        assert_eq!(
            refusal(&node, Kind::Append, cluster::AppendRequest { vote, ..append(at(term, 1), &[]) }).await,
            why
        );
        let transfer = cluster::TransferRequest { from: vote, to: 1, last: at(1, 1) };
        assert_eq!(refusal(&node, Kind::Transfer, transfer).await, why);
        assert_eq!(refusal(&node, Kind::Snapshot, piece(vote.unwrap(), &snapshot())).await, why);
    }
    let asked = |last| cluster::VoteRequest { vote: vote(9, 2, false), last, leadership_transfer: true };
    let beyond = "an entry of the log is of a later term than its leader";
    let far = "a term or an index of the log is out of all bounds";
    // Who asks for votes in a term has no entries of it yet.
    for (last, why) in [(at(9, 2), beyond), (at(10, 2), beyond), (at(8, u64::MAX), far), (at(0, 2), far)] {
        for kind in [Kind::Vote, Kind::PreVote] {
            assert_eq!(refusal(&node, kind, asked(last)).await, why, "{last:?}");
        }
    }
    for (last, why) in [(at(10, 2), beyond), (at(9, u64::MAX - 1), far)] {
        let transfer = cluster::TransferRequest { from: Some(LEADER), to: 1, last };
        assert_eq!(refusal(&node, Kind::Transfer, transfer).await, why, "{last:?}");
    }
    assert_eq!((node.failed(), node.status().term), (None, term));
    node.handle(Kind::Vote, &asked(at(8, 2)).encode_to_vec()).await.unwrap();
    assert_eq!(node.failed(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_be_committed_beyond_the_log_is_not_believed() {
    let claims = cluster::AppendRequest { committed: at(6, 7), ..append(at(2, 4), &[]) };
    let entries = append(None, &[(0, 0), (8, 1)]);
    let later = cluster::AppendRequest { vote: Some(cluster::Vote { term: 10, ..LEADER }), ..entries.clone() };
    // The entry before is missing, so nothing here is known to be committed; or it comes from a leader of the past.
    for (requests, restarts) in [([claims.clone(), entries], false), ([later, claims], true)] {
        let world = World::strangers(1).await;
        let [first, second] = requests.map(|request| request.encode_to_vec());
        world.at(1).handle(Kind::Append, &first).await.unwrap();
        if restarts {
            world.stop(1).await;
            world.start(1).await;
        }
        world.at(1).handle(Kind::Append, &second).await.unwrap();
        // Raft would apply the seventh entry now, which is not there.
        sleep(Duration::from_millis(100)).await;
        assert_eq!((world.at(1).failed(), world.at(1).status().applied), (None, 0));
    }
}

/// One that makes sense.
fn snapshot() -> cluster::Snapshot {
    let voters = cluster::membership::Voters { nodes: vec![2] };
    let there = cluster::Node { name: place(2).name, address: place(2).address };
    cluster::Snapshot {
        last: at(9, 100),
        membership_at: at(0, 0),
        membership: Some(cluster::Membership { configs: vec![voters], nodes: [(2, there)].into() }),
        catalog: Some(Catalog::default().to_snapshot()),
        origins: Vec::new(),
    }
}

fn piece(vote: cluster::Vote, snapshot: &cluster::Snapshot) -> cluster::SnapshotPiece {
    cluster::SnapshotPiece { vote: Some(vote), transfer: 1, offset: 0, octets: snapshot.encode_to_vec(), last: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_is_refused() {
    let (world, term) = leader_alone().await;
    let node = world.at(1);
    let far = "a term or an index of the log is out of all bounds";
    let beyond = "an entry of the log is of a later term than its leader";
    let nobody = "a snapshot does not say who belongs to the cluster";
    let members = "a snapshot's members are of later than the snapshot";
    let mut vhost = meta::Snapshot::default();
    vhost.vhosts.push(meta::VhostState::default());
    let cases = [
        (cluster::Snapshot { last: None, ..snapshot() }, "a snapshot does not say how far it goes"),
        (cluster::Snapshot { last: at(9, u64::MAX), ..snapshot() }, far),
        (cluster::Snapshot { last: at(u64::MAX, 100), ..snapshot() }, far),
        (cluster::Snapshot { last: at(10, 100), ..snapshot() }, beyond),
        (cluster::Snapshot { membership_at: None, ..snapshot() }, nobody),
        (cluster::Snapshot { membership: None, ..snapshot() }, nobody),
        (cluster::Snapshot { membership_at: at(9, 101), ..snapshot() }, members),
        (cluster::Snapshot { last: at(8, 100), membership_at: at(9, 99), ..snapshot() }, members),
        (cluster::Snapshot { membership_at: at(u64::MAX, 5), ..snapshot() }, far),
        (cluster::Snapshot { last: at(9, 1), ..snapshot() }, "a request contradicts what is committed"),
        (cluster::Snapshot { catalog: Some(vhost), ..snapshot() }, "a snapshot's catalog makes no sense"),
        (
            cluster::Snapshot {
                catalog: Some(meta::Snapshot { index: u64::MAX, ..meta::Snapshot::default() }),
                ..snapshot()
            },
            "a snapshot's catalog makes no sense",
        ),
    ];
    for (snapshot, why) in cases {
        assert_eq!(refusal(&node, Kind::Snapshot, piece(LEADER, &snapshot)).await, why, "{snapshot:?}");
    }
    let far_piece = cluster::SnapshotPiece { offset: u64::MAX, ..piece(LEADER, &snapshot()) };
    let next = "a piece of a snapshot does not follow the one before";
    assert_eq!(refusal(&node, Kind::Snapshot, far_piece).await, next);
    assert_eq!((node.failed(), node.status().role, node.status().term), (None, Role::Leader, term));
    node.handle(Kind::Snapshot, &piece(LEADER, &snapshot()).encode_to_vec()).await.unwrap();
    world.until("it to be installed", || (node.status().applied == 100).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_an_unknown_kind_is_refused() {
    let (world, term) = leader_alone().await;
    let node = world.at(1);
    let command = |kind| meta::Command { kind: Some(kind) };
    let item = |value| meta::PolicyItem { key: "max-length".into(), value };
    let policy = |value| {
        let definition = vec![item(Some(meta::PolicyValue::default())), item(value)];
        command(meta::command::Kind::SetPolicy(meta::SetPolicy { definition, ..Default::default() }))
    };
    let to = |destination_kind| meta::Bind { destination_kind, ..Default::default() };
    let from = |destination_kind| meta::Unbind { destination_kind, ..Default::default() };
    let unknown = [
        meta::Command::default(),
        policy(None),
        policy(Some(meta::PolicyValue::default())),
        command(meta::command::Kind::SetLimits(meta::SetLimits::default())),
        command(meta::command::Kind::Bind(to(2))),
        command(meta::command::Kind::Unbind(from(2))),
    ];
    let last = node.status().last;
    for command in unknown {
        let origin = Some(cluster::Origin { node: 1, incarnation: 1, number: 1 });
        // Behind one that is known.
        let commands = vec![command::create_vhost("known", "", &[]), command.clone()];
        let batch = cluster::Batch { origin, commands };
        assert_eq!(
            refusal(&node, Kind::Propose, batch.clone()).await,
            "a command is of a kind that this version does not know: upgrade this node"
        );
        let entry = cluster::Entry { id: at(9, last + 1), payload: Some(Payload::Batch(batch)) };
        let newer = "an entry of the log has a command of a kind that this version does not know: upgrade this node";
        assert_eq!(take_entry(entry.clone()).unwrap_err().to_string(), newer);
        let request = cluster::AppendRequest { entries: vec![entry], ..append(at(term, last), &[]) };
        assert_eq!(refusal(&node, Kind::Append, request).await, newer);
    }
    // As the octets of a newer version would come: a variant with the number 99.
    let origin = cluster::Origin { node: 1, incarnation: 1, number: 1 }.encode_to_vec();
    let octets = [&[0x0a, origin.len() as u8][..], &origin, &[0x12, 3, 0x9a, 0x06, 0]].concat();
    assert!(matches!(node.handle(Kind::Propose, &octets).await, Err(HandleError::Meaningless(_))));
    assert_eq!((node.failed(), node.status().last), (None, last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_two_senders_are_not_put_together() {
    let world = World::strangers(1).await;
    let node = world.at(1);
    let octets = snapshot().encode_to_vec();
    let (first, second) = octets.split_at(10);
    let piece = |voted_for, offset, octets: &[u8]| cluster::SnapshotPiece {
        vote: Some(cluster::Vote { voted_for, ..LEADER }),
        transfer: 1,
        offset,
        octets: octets.into(),
        last: offset > 0,
    };
    node.handle(Kind::Snapshot, &piece(2, 0, first).encode_to_vec()).await.unwrap();
    let next = "a piece of a snapshot does not follow the one before";
    assert_eq!(refusal(&node, Kind::Snapshot, piece(3, 10, second)).await, next);
    // Nor those of one sender in two terms.
    let mut later = piece(2, 10, second);
    later.vote = Some(cluster::Vote { term: 10, ..LEADER });
    assert_eq!(refusal(&node, Kind::Snapshot, later).await, next);
    node.handle(Kind::Snapshot, &piece(2, 10, second).encode_to_vec()).await.unwrap();
    world.until("it to be installed", || (node.status().applied == 100).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicked_task_counts_as_failed() {
    // What handle refuses, to Raft itself.
    let (world, term) = leader_alone().await;
    let node = world.at(1);
    let blank = |index| EntryOf { log_id: take_log_id(LogId { term: 9, index }), payload: EntryPayload::Blank };
    let request = AppendEntriesRequest {
        vote: take_vote(Some(LEADER)).unwrap(),
        prev_log_id: at(term, 1).map(take_log_id),
        entries: vec![blank(2), blank(2)],
        leader_commit: None,
    };
    assert_eq!(node.failed(), None);
    node.raft.append_entries(request).await.unwrap_err();
    let why = world.until("it to be failed", || node.failed()).await;
    assert_eq!(why, "its task has panicked");
    assert_eq!(world.create(1, "never", WAIT).await, Err(ProposeError::Stopped(why)));
}

struct Nowhere;

impl Transport for Nowhere {
    async fn request(&self, to: u64, _: &Node, _: Kind, _: Vec<u8>) -> Result<Vec<u8>, NotReached> {
        Err(NotReached { node: to, why: "there is nobody".into() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_panics_counts_as_failed() {
    let directory = TempDir::new().unwrap();
    let identity = Identity { cluster: [1; 16], node: 1 };
    let listener: Listener = Box::new(|_| panic!("as a test wants it"));
    let pace = Pace { heartbeat: Duration::from_millis(20), election: Duration::from_millis(60) };
    create_log(directory.path(), &identity).unwrap();
    let node = CatalogRaft::open(directory.path(), opening(pace), Arc::new(Nowhere), listener).await.unwrap();
    node.found([(1, place(1))].into()).await.unwrap();
    assert_eq!(node.failed(), None);
    let outcome = node.propose(1, vec![command::create_vhost("v", "", &[])], WAIT).await;
    assert!(matches!(outcome, Ok(()) | Err(ProposeError::Stopped(_))), "{outcome:?}");
    for _ in 0..200 {
        if node.failed().is_some() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(node.failed().is_some());
    // One that is told to stop is no panic.
    let world = World::strangers(1).await;
    world.at(1).stop().await;
    assert_eq!(world.at(1).failed(), Some("raft stopped".into()));
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![16 => 0..8_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => Just(NUMBER_MAX)]
}

fn vote() -> impl Strategy<Value = Option<cluster::Vote>> {
    let vote = (number(), 0..4_u64, any::<bool>());
    prop::option::weighted(
        0.95,
        vote.prop_map(|(term, voted_for, committed)| cluster::Vote { term, voted_for, committed }),
    )
}

/// One that gets past the first look, and mostly the same one, so that what comes behind it is seen.
fn leader() -> impl Strategy<Value = Option<cluster::Vote>> {
    let leader = |(term, voted_for)| Some(cluster::Vote { term, voted_for, committed: true });
    prop_oneof![3 => Just(Some(LEADER)), 1 => (1..10_u64, 2..4_u64).prop_map(leader)]
}

fn log_id() -> impl Strategy<Value = Option<LogId>> {
    prop::option::weighted(0.9, (number(), number()).prop_map(|(term, index)| LogId { term, index }))
}

fn payload() -> impl Strategy<Value = Payload> {
    let batch = cluster::Batch { origin: Some(cluster::Origin::default()), commands: vec![] };
    prop_oneof![
        Just(Payload::Blank(Blank {})),
        Just(Payload::Batch(batch)),
        Just(Payload::Membership(snapshot().membership.unwrap())),
    ]
}

fn entry() -> impl Strategy<Value = cluster::Entry> {
    (log_id(), payload()).prop_map(|(id, payload)| cluster::Entry { id, payload: Some(payload) })
}

/// Entries that follow each other and make sense on their own.
fn run() -> impl Strategy<Value = (Option<LogId>, Vec<cluster::Entry>)> {
    (0..5_u64, prop::collection::vec((1..4_u64, payload()), 1..5), any::<bool>()).prop_map(|(from, steps, first)| {
        let mut term = 0;
        let mut places = steps.into_iter().zip(from..).map(|((step, payload), index)| {
            term = if index == 0 { 0 } else { (term + step - 1).max(1) };
            cluster::Entry { id: at(term, index), payload: Some(payload) }
        });
        let previous = if from == 0 && first { None } else { places.next().and_then(|entry| entry.id) };
        (previous, places.collect())
    })
}

fn request() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let append = |(vote, (previous, entries), committed)| {
        let request = cluster::AppendRequest { vote, previous, entries, committed };
        (Kind::Append, request.encode_to_vec())
    };
    let entries = (log_id(), prop::collection::vec(entry(), 0..4));
    prop_oneof![
        2 => (prop_oneof![vote(), leader()], entries, log_id()).prop_map(append),
        4 => (leader(), run(), log_id()).prop_map(append),
        2 => (vote(), log_id(), any::<bool>(), any::<bool>()).prop_map(|(vote, last, leadership_transfer, pre)| {
            let request = cluster::VoteRequest { vote, last, leadership_transfer };
            (if pre { Kind::PreVote } else { Kind::Vote }, request.encode_to_vec())
        }),
        1 => (prop_oneof![vote(), leader()], 0..4_u64, log_id()).prop_map(|(from, to, last)| {
            (Kind::Transfer, cluster::TransferRequest { from, to, last }.encode_to_vec())
        }),
        2 => (prop_oneof![vote(), leader()], number(), log_id(), log_id()).prop_map(|(vote, offset, last, at)| {
            let snapshot = cluster::Snapshot { last, membership_at: at, ..snapshot() };
            let offset = if offset < 8 { 0 } else { offset };
            let whole = piece(LEADER, &snapshot);
            (Kind::Snapshot, cluster::SnapshotPiece { vote, offset, ..whole }.encode_to_vec())
        }),
    ]
}

#[test]
fn whatever_is_asked_the_node_goes_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config =
        ProptestConfig { cases: 60, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() };
    // The same requests every time.
    let dice = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, dice);
    let strategy = (any::<bool>(), prop::collection::vec(request(), 1..10));
    let outcome = runner.run(&strategy, |(founded, requests)| {
        let failed = runtime.block_on(async {
            let world = if founded { leader_alone().await.0 } else { World::strangers(1).await };
            for (kind, octets) in requests {
                // An answer or an error.
                let asked = tokio::time::timeout(Duration::from_secs(5), world.at(1).handle(kind, &octets)).await;
                if asked.is_err() {
                    return Some(format!("{kind} is not answered"));
                }
            }
            sleep(Duration::from_millis(10)).await;
            world.at(1).failed()
        });
        prop_assert_eq!(failed, None);
        Ok(())
    });
    outcome.unwrap();
}
