//! What must hold of another node's request before Raft is handed it: of what cannot be Raft makes a fault of its own, and panics.

use std::cmp::Ordering;

use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::{EntryPayload, RaftState};

use super::types::{LogIdOf, Meaningless, SnapshotMetaOf, TypeConfig, VoteOf};

/// Terms and indexes go up to this. No cluster lives to see it, and sums beyond it do not overflow.
pub(super) const NUMBER_MAX: u64 = 1 << 56;

const LATER: Meaningless = Meaningless("an entry of the log is of a later term than its leader");

/// Entries follow each other and what they are said to follow, and can be in one log with what is said to be committed.
pub(super) fn append(node: u64, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), Meaningless> {
    let AppendEntriesRequest { vote, prev_log_id, entries, leader_commit } = request;
    leads(node, vote)?;
    for id in prev_log_id.iter().chain(leader_commit) {
        possible(id, vote)?;
    }
    let mut before = *prev_log_id;
    for entry in entries {
        let id = &entry.log_id;
        possible(id, vote)?;
        if id.index != before.map_or(0, |before| before.index + 1) {
            return Err(Meaningless("entries of the log do not follow each other"));
        }
        if before.is_some_and(|before| term(&before) > term(id)) {
            return Err(Meaningless("terms of the log go backwards"));
        }
        if let EntryPayload::Membership(membership) = &entry.payload
            && membership.get_joint_config().is_empty()
        {
            return Err(Meaningless("a membership has no voters"));
        }
        before = Some(*id);
    }
    match leader_commit {
        Some(committed) if !places(request).all(|id| fit(id, committed)) => {
            Err(Meaningless("what is said to be committed contradicts the entries"))
        }
        _ => Ok(()),
    }
}

pub(super) fn vote(node: u64, request: &VoteRequest<TypeConfig>) -> Result<(), Meaningless> {
    of_another(node, &request.vote, false)?;
    let Some(last) = &request.last_log_id else { return Ok(()) };
    possible(last, &request.vote)?;
    // It asks for the term, so nobody has led in it who could have sent it entries.
    if term(last) == request.vote.leader_id.term { Err(LATER) } else { Ok(()) }
}

pub(super) fn transfer(node: u64, request: &TransferLeaderRequest<TypeConfig>) -> Result<(), Meaningless> {
    leads(node, request.from_leader())?;
    request.last_log_id().map_or(Ok(()), |last| possible(last, request.from_leader()))
}

pub(super) fn snapshot(node: u64, vote: &VoteOf, meta: &SnapshotMetaOf) -> Result<(), Meaningless> {
    leads(node, vote)?;
    let last = meta.last_log_id.ok_or(Meaningless("a snapshot does not say how far it goes"))?;
    possible(&last, vote)?;
    let members = &meta.last_membership;
    let members_at = members.log_id().filter(|_| !members.membership().get_joint_config().is_empty());
    let members_at = members_at.ok_or(Meaningless("a snapshot does not say who belongs to the cluster"))?;
    possible(&members_at, vote)?;
    if members_at.index > last.index || !fit(&members_at, &last) {
        return Err(Meaningless("a snapshot's members are of later than the snapshot"));
    }
    Ok(())
}

/// Whose vote it is leads, as its requests say, and is another node.
pub(super) fn leads(node: u64, vote: &VoteOf) -> Result<(), Meaningless> {
    of_another(node, vote, true)
}

fn of_another(node: u64, vote: &VoteOf, leads: bool) -> Result<(), Meaningless> {
    let leader = &vote.leader_id;
    if !(1..=NUMBER_MAX).contains(&leader.term) || leader.voted_for == 0 {
        return Err(Meaningless("nobody can have such a vote"));
    }
    if leader.voted_for == node {
        return Err(Meaningless("a vote of this node comes from another"));
    }
    if vote.committed != leads {
        return Err(Meaningless("who asks for votes has none, and who leads has"));
    }
    Ok(())
}

/// How far the log here is known to be that of a leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    vote: VoteOf,
    index: u64,
}

impl Sent {
    /// After `vote`'s leader was told that the log here is its own up to `last`.
    pub(super) fn with(before: Option<Sent>, vote: VoteOf, last: Option<LogIdOf>) -> Option<Sent> {
        let Some(last) = last else { return before };
        let before = before.filter(|before| before.vote == vote).map_or(0, |before| before.index);
        Some(Sent { vote, index: last.index.max(before) })
    }
}

/// What is known here of a leader that sends something.
struct Leader<'a> {
    state: &'a RaftState<TypeConfig>,
    /// The log here is its own up to this.
    shared: Option<LogIdOf>,
}

/// Entries as Raft may be handed them. What is said to be committed ends where the log here is known to be the leader's: Raft would remember more, and
/// later apply entries that it does not have.
pub(super) fn append_agrees(
    state: &RaftState<TypeConfig>,
    sent: Option<Sent>,
    mut request: AppendEntriesRequest<TypeConfig>,
) -> Result<AppendEntriesRequest<TypeConfig>, Meaningless> {
    let vote = request.vote;
    let Some(mut leader) = Leader::of(state, sent, &vote) else {
        request.leader_commit = None;
        return Ok(request);
    };
    if request.prev_log_id.is_none_or(|id| leader.has(&id)) {
        leader.shared = leader.shared.max(request.prev_log_id);
        leader.agrees(places(&request).chain(&request.leader_commit))?;
        leader.shared = leader.shared.max(places(&request).last().copied());
    } else {
        leader.agrees(places(&request).chain(&request.leader_commit))?;
    }
    request.leader_commit = request.leader_commit.min(leader.shared);
    Ok(request)
}

/// The same of a snapshot.
pub(super) fn snapshot_agrees(
    state: &RaftState<TypeConfig>,
    sent: Option<Sent>,
    (vote, meta): (VoteOf, SnapshotMetaOf),
) -> Result<(VoteOf, SnapshotMetaOf), Meaningless> {
    if let Some(leader) = Leader::of(state, sent, &vote) {
        leader.agrees(meta.last_log_id.iter())?;
    }
    Ok((vote, meta))
}

impl<'a> Leader<'a> {
    /// None of one of the past, or another of the same term: it may well contradict what came after it, and has to be told of its successor; Raft does.
    fn of(state: &'a RaftState<TypeConfig>, sent: Option<Sent>, vote: &VoteOf) -> Option<Leader<'a>> {
        let is_present = matches!(vote.partial_cmp(state.vote_ref()), Some(Ordering::Equal | Ordering::Greater));
        let sent = sent.filter(|sent| sent.vote == *vote).map(|sent| sent.index);
        let shared = sent.and_then(|index| state.log_ids.get(index));
        is_present.then_some(Leader { state, shared })
    }

    /// It has every committed entry, and never changes what it sent.
    fn agrees<'b>(&self, mut places: impl Iterator<Item = &'b LogIdOf>) -> Result<(), Meaningless> {
        places.try_for_each(|id| {
            if !self.state.local_committed().is_none_or(|committed| fit(id, committed)) {
                return Err(Meaningless("a request contradicts what is committed"));
            }
            let here = || self.state.log_ids.get(id.index);
            let as_before = self.shared.is_none_or(|shared| {
                fit(id, &shared) && (id.index > shared.index || here().is_none_or(|here| here == *id))
            });
            if as_before { Ok(()) } else { Err(Meaningless("a leader contradicts what it sent before")) }
        })
    }

    /// Whether the log here has an entry, perhaps in a snapshot.
    fn has(&self, id: &LogIdOf) -> bool {
        let is_committed = self.state.local_committed().is_some_and(|committed| id.index <= committed.index);
        is_committed || self.state.log_ids.get(id.index) == Some(*id)
    }
}

fn places(request: &AppendEntriesRequest<TypeConfig>) -> impl Iterator<Item = &LogIdOf> {
    request.prev_log_id.iter().chain(request.entries.iter().map(|entry| &entry.log_id))
}

/// The entry that founds a cluster is the first and of no term; all others are of one, at most that of whoever has them.
fn possible(id: &LogIdOf, vote: &VoteOf) -> Result<(), Meaningless> {
    if id.index > NUMBER_MAX || term(id) > NUMBER_MAX || (id.index == 0) != (term(id) == 0) {
        return Err(Meaningless("a term or an index of the log is out of all bounds"));
    }
    if term(id) > vote.leader_id.term { Err(LATER) } else { Ok(()) }
}

/// Whether one log can have both.
fn fit(one: &LogIdOf, other: &LogIdOf) -> bool {
    match one.index.cmp(&other.index) {
        Ordering::Less => term(one) <= term(other),
        Ordering::Equal => one == other,
        Ordering::Greater => term(one) >= term(other),
    }
}

fn term(id: &LogIdOf) -> u64 {
    id.leader_id.term
}
