//! One seed's life: rounds of work, each ended by a stop, a crash or a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use broker_core::queue::StoredEntry;
use broker_core::store::disk::{Crash, Fault, SimDisk};
use broker_core::store::{
    Journal, JournalBatch, Page, QueueId, Ranges, Recovered, RunId, Segments, Seq, StoreError, StoreOptions, recover,
};

use super::oracle::{Known, Model, Oracle, Stage, entry, expires_ms, lanes, message};
use crate::random::Random;

const DIR: &str = "/node/store";
const ROUNDS: u64 = 8;
const STEPS: u64 = 120;
const FILE_BYTES: u64 = 64 * 1024;

/// What may go wrong besides crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    Crashes,
    /// Failing writes, syncs and reads, full disks, machines that go off in the middle of anything.
    Errors,
    /// Bits that flip while the node is down or up.
    Rot,
}

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A digest of everything that happened: the same for the same seed.
    pub trace: u64,
    /// Messages found again at starts.
    pub recovered: u64,
    /// Starts, also those that failed for a fault.
    pub starts: u64,
    /// Calls that failed for a fault.
    pub errors: u64,
    /// Journal files given up.
    pub retired: u64,
    /// Calls refused for a full disk.
    pub full: u64,
    /// Lines of damage reported.
    pub reports: u64,
}

struct World {
    random: Random,
    faults: Faults,
    disk: SimDisk,
    oracle: Oracle,
    deleted: BTreeSet<QueueId>,
    next_queue: u64,
    outcome: Outcome,
    /// Damage was reported since the disk last rotted.
    reported: bool,
    /// What the last read could not read.
    lost: Ranges,
    rotten: bool,
}

/// The store while it runs.
struct Node {
    journal: Journal,
    segments: Segments,
    batches: Vec<JournalBatch>,
    /// What the oracle believes to be in each run.
    runs: BTreeMap<RunId, (QueueId, Vec<Seq>)>,
    /// Queues that have not answered about the oldest journal file.
    asked: Vec<(QueueId, Seq)>,
    /// A commit with enqueues in it found the disk full: the same batches must be committed next.
    refused: bool,
}

/// Lives through a seed. An error says what promise was broken.
pub fn run(seed: u64, faults: Faults) -> Result<Outcome, String> {
    let mut world = World {
        random: Random::new(seed),
        faults,
        disk: SimDisk::new(seed),
        oracle: Oracle::new(),
        deleted: BTreeSet::new(),
        next_queue: 1,
        outcome: Outcome::default(),
        reported: false,
        lost: Ranges::new(),
        rotten: false,
    };
    let mut clean = None;
    for round in 0..ROUNDS {
        let broken = |what: String| format!("seed {seed}, {faults:?}, round {round}: {what}");
        let node = world.start(clean).map_err(broken)?;
        clean = world.live(node).map_err(broken)?;
    }
    world.disk.set_capacity(None);
    world.start(clean).map_err(|what| format!("seed {seed}, {faults:?}, last start: {what}"))?;
    Ok(world.outcome)
}

fn options(salt: u64) -> StoreOptions {
    StoreOptions {
        journal_file_bytes: FILE_BYTES,
        journal_budget_bytes: 3 * FILE_BYTES,
        segment_file_bytes: 16 * 1024,
        ..StoreOptions::new(DIR, salt)
    }
}

impl World {
    /// Starts until it works, and checks what is found. `clean` is whether the stop before was, if there was one.
    fn start(&mut self, clean: Option<bool>) -> Result<Node, String> {
        let mut clean = clean;
        for attempt in 0.. {
            self.outcome.starts += 1;
            if self.faults == Faults::Errors && attempt < 3 {
                self.plan_faults(200);
            }
            if self.faults == Faults::Rot && attempt == 0 && clean.is_some() {
                self.rot();
            }
            let known: BTreeSet<QueueId> = self.oracle.keys().copied().collect();
            let salt = self.random.draw();
            let found = recover(Arc::new(self.disk.clone()), &options(salt), &|queue| {
                known.contains(&queue).then(|| lanes(queue))
            });
            match found {
                Ok((journal, segments, recovered)) => {
                    self.trace(&format!("{recovered:?}"));
                    return self.check(journal, segments, recovered, clean);
                }
                Err(error) => {
                    self.trace(&error.to_string());
                    self.outcome.errors += 1;
                    if attempt > 20 {
                        return Err(format!("does not start: {error}"));
                    }
                    // A start that failed for a full disk or a bad read leaves everything for the next one; a clean stop stays one
                    // unless the new journal has begun.
                    self.disk = self.disk.crash(if self.random.one_in(3) { Crash::KeepAll } else { Crash::Torn });
                    clean = None;
                }
            }
        }
        Err("never".into())
    }

    fn check(
        &mut self,
        journal: Journal,
        mut segments: Segments,
        recovered: Recovered,
        clean: Option<bool>,
    ) -> Result<Node, String> {
        self.note_report(&recovered.report)?;
        if clean == Some(true) && !recovered.clean && !self.rotten {
            return Err(format!("a clean stop was not seen as one: {:?}", recovered.report));
        }
        if clean == Some(false) && recovered.clean {
            return Err("a crash was taken for a clean stop".into());
        }
        let mut runs: BTreeMap<RunId, (QueueId, Vec<Seq>)> = BTreeMap::new();
        let mut found: BTreeMap<QueueId, BTreeMap<Seq, StoredEntry>> = BTreeMap::new();
        for queue in &recovered.queues {
            let here = found.entry(queue.queue).or_default();
            let mut order = Vec::new();
            for part in &queue.runs {
                let mut seqs = Vec::new();
                let lane = part.lane;
                self.read_run(&mut segments, part.run, part.first, usize::MAX, |entry| {
                    if entry.seq > part.last {
                        return Ok(());
                    }
                    seqs.push(entry.seq);
                    order.push((lane, entry.seq));
                    if (entry.lane, lanes(queue.queue).of(entry.message.header())) != (lane, lane) {
                        return Err(format!("{} {} is in a run of lane {lane}", queue.queue, entry.seq));
                    }
                    here.insert(entry.seq, entry).map_or(Ok(()), |entry| Err(format!("{} twice", entry.seq)))
                })?;
                if !self.rotten && seqs.len() as u64 != part.count {
                    return Err(format!("{part:?} has {seqs:?}"));
                }
                runs.entry(part.run).or_insert((queue.queue, Vec::new())).1.extend(seqs);
            }
            if !order.is_sorted() {
                return Err(format!("{} not in order: {order:?}", queue.queue));
            }
            for entry in here.values() {
                let flagged = entry.redelivered;
                if flagged != queue.redelivered.contains(entry.seq) || (!recovered.clean && !flagged) {
                    return Err(format!("{} {}: flagged {flagged}, clean {}", queue.queue, entry.seq, recovered.clean));
                }
            }
            if here.last_key_value().is_some_and(|(last, _)| *last >= queue.next_seq) {
                return Err(format!("{} would hand out a number again", queue.queue));
            }
            if !self.rotten && here.len() as u64 != queue.messages {
                return Err(format!("{}: {} messages said, {} there", queue.queue, queue.messages, here.len()));
            }
        }
        let rotten = self.rotten;
        let mut missing = Vec::new();
        for (queue, model) in &mut self.oracle {
            let here = found.remove(queue).unwrap_or_default();
            for (seq, known) in &model.messages {
                match here.get(seq) {
                    None if known.promised() => missing.push(format!("{queue} {seq} {known:?} lost")),
                    Some(_) if known.gone() && known.settled == Stage::Durable => {
                        missing.push(format!("{queue} {seq} {known:?} came back"));
                    }
                    Some(_) if known.gone() => return Err(format!("{queue} {seq} {known:?} was never stored")),
                    Some(entry) => {
                        if entry.message != message(*queue, *seq, known.body_len) {
                            return Err(format!("{queue} {seq} has other octets"));
                        }
                        if entry.expires_ms != expires_ms(*seq) {
                            return Err(format!("{queue} {seq} expires at another time"));
                        }
                        let flagged = entry.redelivered;
                        if recovered.clean && flagged != known.flagged && !rotten {
                            return Err(format!("{queue} {seq} {known:?} flagged {flagged} after a clean stop"));
                        }
                    }
                    None => {}
                }
            }
            if let Some(seq) = here.keys().find(|seq| !model.messages.contains_key(seq)) {
                return Err(format!("{queue} {seq} was never published"));
            }
            let mut next = Model { next_seq: model.next_seq, messages: BTreeMap::new() };
            for (seq, entry) in here {
                self.outcome.recovered += 1;
                let body_len = entry.message.body_len();
                let flagged = entry.redelivered;
                next.messages.insert(
                    seq,
                    Known {
                        body_len,
                        persistent: true,
                        flagged,
                        enqueued: Stage::No,
                        paging: true,
                        paged: true,
                        settled: Stage::No,
                    },
                );
            }
            *model = next;
        }
        if let Some((queue, _)) = found.into_iter().next() {
            return Err(format!("{queue} does not exist"));
        }
        if !(missing.is_empty() || rotten && self.reported) {
            return Err(missing.join("; "));
        }
        let mut node = Node { journal, segments, batches: Vec::new(), runs, asked: Vec::new(), refused: false };
        for _ in 0..2 {
            node.batches.push(node.journal.batch());
        }
        while self.oracle.len() < 3 {
            self.oracle.insert(QueueId(self.next_queue), Model { next_seq: 1, messages: BTreeMap::new() });
            self.next_queue += 1;
        }
        Ok(node)
    }

    /// Works until the round ends. Returns whether it ended cleanly.
    fn live(&mut self, mut node: Node) -> Result<Option<bool>, String> {
        if self.faults == Faults::Errors {
            self.plan_faults(STEPS);
        }
        let steps = self.random.below(STEPS);
        for _ in 0..steps {
            match self.step(&mut node) {
                Ok(()) => {}
                Err(Stop::Broken(what)) => return Err(what),
                Err(Stop::Died(error)) => {
                    self.trace(&error.to_string());
                    self.outcome.errors += 1;
                    // After an error nothing more may be promised.
                    let mut batch = [node.journal.batch()];
                    if !matches!(error, StoreError::Read { .. })
                        && node.journal.commit_synced(&mut batch).is_ok()
                        && !self.segments_failed(&node)
                    {
                        return Err(format!("goes on after {error}"));
                    }
                    drop(node);
                    self.crash();
                    return Ok(None);
                }
            }
        }
        if self.random.one_in(3) {
            return self.stop_cleanly(node);
        }
        drop(node);
        self.crash();
        Ok(Some(false))
    }

    fn step(&mut self, node: &mut Node) -> Result<(), Stop> {
        match self.random.below(20) {
            0..=5 => self.publish(node),
            6..=8 => self.settle(node),
            9..=12 => self.commit(node)?,
            13 => {
                self.died(node.journal.sync())?;
                if node.journal.is_durable() {
                    self.written_is_durable();
                }
            }
            14 | 15 => self.page_out(node)?,
            16 => self.read(node)?,
            17 => self.maintain(node)?,
            18 => self.spare(node)?,
            _ if self.random.one_in(6) => self.delete_queue(node)?,
            _ => self.change_capacity(),
        }
        self.retire(node)
    }

    fn publish(&mut self, node: &mut Node) {
        let queues: Vec<QueueId> = self.oracle.keys().copied().collect();
        let Some(&queue) = self.random.pick(&queues) else { return };
        let count = 1 + self.random.below(12);
        for _ in 0..count {
            let body_len = match self.random.below(60) {
                0 => 20_000 + self.random.below(90_000) as usize,
                1..=9 => self.random.below(5_000) as usize,
                _ => self.random.below(300) as usize,
            };
            let (persistent, flagged) = (!self.random.one_in(5), self.random.one_in(7));
            let hold = self.random.one_in(6);
            let Some(model) = self.oracle.get_mut(&queue) else { return };
            let seq = model.next_seq;
            model.next_seq += 1 + u64::from(self.random.one_in(9)) * self.random.below(700);
            let mut known = Known {
                body_len,
                persistent,
                flagged,
                enqueued: Stage::No,
                paging: false,
                paged: false,
                settled: Stage::No,
            };
            if persistent && !hold && !node.refused {
                known.enqueued = Stage::Batched;
                if let Some(batch) = node.batches.get_mut((queue.0 % 2) as usize) {
                    batch.enqueue(queue, seq, known.flagged, expires_ms(seq), &message(queue, seq, body_len));
                }
            }
            model.messages.insert(seq, known);
        }
    }

    /// Settles messages of one queue, in order from the first or anywhere.
    fn settle(&mut self, node: &mut Node) {
        let queues: Vec<QueueId> = self.oracle.keys().copied().collect();
        let Some(&queue) = self.random.pick(&queues) else { return };
        let count = 1 + self.random.below(40);
        let anywhere = self.random.one_in(2);
        for _ in 0..count {
            let Some(model) = self.oracle.get_mut(&queue) else { return };
            let alive: Vec<Seq> =
                model.messages.iter().filter(|(_, known)| known.alive()).map(|(seq, _)| *seq).collect();
            let seq = if anywhere { self.random.pick(&alive).copied() } else { alive.first().copied() };
            let Some(seq) = seq else { return };
            // What lies between two settled messages and is no more can be settled again.
            let vacant = (seq + 1..model.next_seq.min(seq + 4)).take_while(|next| !model.messages.contains_key(next));
            let last = vacant.last().unwrap_or(seq);
            let Some(known) = model.messages.get_mut(&seq) else { return };
            if known.enqueued == Stage::No && !known.paged {
                // It never left memory.
                model.messages.remove(&seq);
                continue;
            }
            known.settled = Stage::Batched;
            if known.paged {
                let _ = node.segments.settle(queue, seq, last);
            }
            if let Some(batch) = node.batches.get_mut((queue.0 % 2) as usize) {
                batch.settle(queue, seq, last);
            }
        }
    }

    fn commit(&mut self, node: &mut Node) -> Result<(), Stop> {
        let synced = self.random.one_in(3);
        let result =
            if synced { node.journal.commit_synced(&mut node.batches) } else { node.journal.commit(&mut node.batches) };
        node.refused = matches!(result, Err(StoreError::Full { .. }));
        if !self.died(result)? {
            return Ok(());
        }
        for known in self.oracle.values_mut().flat_map(|model| model.messages.values_mut()) {
            for stage in [&mut known.enqueued, &mut known.settled] {
                if *stage == Stage::Batched {
                    *stage = Stage::Written;
                }
            }
        }
        if node.journal.is_durable() {
            self.written_is_durable();
        }
        let promised = |known: &&Known| known.enqueued == Stage::Written;
        if self.oracle.values().flat_map(|model| model.messages.values()).any(|known| promised(&known)) {
            return Err(Stop::Broken("a commit with messages returned without being durable".into()));
        }
        Ok(())
    }

    fn page_out(&mut self, node: &mut Node) -> Result<(), Stop> {
        let mut pages = Vec::new();
        for (queue, model) in &self.oracle {
            if self.random.one_in(2) {
                continue;
            }
            let (most, skip) = (1 + self.random.below(60) as usize, self.random.below(3));
            let fit = |(seq, known): &(&Seq, &Known)| known.alive() && !known.paged && *seq % 4 >= skip;
            let seqs: Vec<Seq> = model.messages.iter().filter(fit).map(|(seq, _)| *seq).take(most).collect();
            if !seqs.is_empty() {
                pages.push((*queue, seqs));
            }
        }
        self.write_pages(node, pages).map(|_| ())
    }

    /// Whether it was written.
    fn write_pages(&mut self, node: &mut Node, wanted: Vec<(QueueId, Vec<Seq>)>) -> Result<bool, Stop> {
        // A page is of one lane.
        let mut lane_by_lane: BTreeMap<(QueueId, u8), Vec<Seq>> = BTreeMap::new();
        for (queue, seq) in wanted.into_iter().flat_map(|(queue, seqs)| seqs.into_iter().map(move |seq| (queue, seq))) {
            let lane = lanes(queue).of(message(queue, seq, 0).header());
            lane_by_lane.entry((queue, lane)).or_default().push(seq);
        }
        let wanted: Vec<(QueueId, Vec<Seq>)> =
            lane_by_lane.into_iter().map(|((queue, _), seqs)| (queue, seqs)).collect();
        let pages: Vec<Page> = wanted
            .iter()
            .filter_map(|(queue, seqs)| {
                let model = self.oracle.get(queue)?;
                let entries = seqs.iter().filter_map(|seq| Some(entry(*queue, *seq, model.messages.get(seq)?)));
                Some(Page { queue: *queue, entries: entries.collect() })
            })
            .collect();
        for (queue, seqs) in &wanted {
            for seq in seqs {
                if let Some(known) = self.oracle.get_mut(queue).and_then(|model| model.messages.get_mut(seq)) {
                    known.paging = true;
                }
            }
        }
        let result = node.segments.write(&pages, false);
        let runs = match result {
            Ok(runs) => runs,
            Err(error) => return self.died(Err(error)),
        };
        if runs.len() != wanted.len() {
            return Err(Stop::Broken(format!("{} pages became {} runs", wanted.len(), runs.len())));
        }
        for ((queue, seqs), run) in wanted.into_iter().zip(runs) {
            let model = self.oracle.entry(queue).or_default();
            for seq in &seqs {
                if let Some(known) = model.messages.get_mut(seq) {
                    known.paged = true;
                }
            }
            if (run.first, run.last, run.count) != (seqs[0], seqs[seqs.len() - 1], seqs.len() as u64) {
                return Err(Stop::Broken(format!("{run:?} for {seqs:?}")));
            }
            node.runs.insert(run.id, (queue, seqs));
        }
        Ok(true)
    }

    fn read(&mut self, node: &mut Node) -> Result<(), Stop> {
        let ids: Vec<RunId> = node.runs.keys().copied().collect();
        let Some(&id) = self.random.pick(&ids) else { return Ok(()) };
        let Some((queue, seqs)) = node.runs.get(&id) else { return Ok(()) };
        let mut expected = Vec::new();
        if let Some(model) = self.oracle.get(queue) {
            expected.extend(seqs.iter().copied().filter(|seq| model.messages.get(seq).is_some_and(Known::alive)));
        }
        let max_bytes = 1 + self.random.below(20_000) as usize;
        let mut found = Vec::new();
        let (queue, mut wrong) = (*queue, None);
        self.read_run(&mut node.segments, id, 0, max_bytes, |entry| {
            if entry.message != message(queue, entry.seq, entry.message.body_len()) {
                wrong = Some(entry.seq);
            }
            found.push(entry.seq);
            Ok(())
        })
        .map_err(Stop::Broken)?;
        for (first, last) in self.lost.clone().iter() {
            self.settle_lost(node, queue, first, last);
        }
        expected.retain(|seq| !self.lost.contains(*seq));
        if found != expected || wrong.is_some() {
            // A read that failed for an injected error yields nothing.
            if found.is_empty() && self.faults == Faults::Errors {
                return Ok(());
            }
            return Err(Stop::Broken(format!(
                "{id} of {queue}: read {found:?}, expected {expected:?}, wrong {wrong:?}"
            )));
        }
        Ok(())
    }

    /// What cannot be read is gone.
    fn settle_lost(&mut self, node: &mut Node, queue: QueueId, first: Seq, last: Seq) {
        let _ = node.segments.settle(queue, first, last);
        if let Some(batch) = node.batches.get_mut((queue.0 % 2) as usize) {
            batch.settle(queue, first, last);
        }
        let Some(model) = self.oracle.get_mut(&queue) else { return };
        for (_, known) in model.messages.range_mut(first..=last).filter(|(_, known)| known.alive()) {
            known.settled = Stage::Batched;
        }
    }

    fn read_run(
        &mut self,
        segments: &mut Segments,
        id: RunId,
        from: Seq,
        max_bytes: usize,
        mut take: impl FnMut(StoredEntry) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut from = Some(from);
        self.lost = Ranges::new();
        let mut failures = 0;
        while let Some(at) = from {
            match segments.read(id, at, max_bytes) {
                Ok(loaded) => {
                    let report = segments.reports();
                    self.note_report(&report)?;
                    if !loaded.lost.is_empty() && !self.reported {
                        return Err(format!("{:?} lost without a report", loaded.lost));
                    }
                    self.lost.extend(&loaded.lost);
                    loaded.entries.into_iter().try_for_each(&mut take)?;
                    from = loaded.next;
                }
                Err(StoreError::Read { .. }) if self.faults == Faults::Errors && failures < 3 => failures += 1,
                Err(error) => {
                    // The machine went off: the round ends at the next step.
                    self.trace(&error.to_string());
                    return if self.faults == Faults::Errors { Ok(()) } else { Err(error.to_string()) };
                }
            }
        }
        Ok(())
    }

    fn maintain(&mut self, node: &mut Node) -> Result<(), Stop> {
        for _ in 0..4 {
            match node.segments.maintain() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.died(Err(error)).map(|_| ()),
            }
        }
        let stats = node.segments.stats();
        self.trace(&format!("{stats:?}"));
        Ok(())
    }

    fn spare(&mut self, node: &mut Node) -> Result<(), Stop> {
        let Some(maker) = node.journal.wants_spare() else { return Ok(()) };
        match maker.make() {
            Ok(spare) => node.journal.add_spare(spare),
            Err(error) => {
                node.journal.spare_failed();
                self.died(Err(error))?;
            }
        }
        Ok(())
    }

    fn delete_queue(&mut self, node: &mut Node) -> Result<(), Stop> {
        let queues: Vec<QueueId> = self.oracle.keys().copied().collect();
        let Some(&queue) = self.random.pick(&queues) else { return Ok(()) };
        self.oracle.remove(&queue);
        self.deleted.insert(queue);
        let dropped = node.segments.drop_queue(queue);
        self.died(dropped)?;
        let forgotten = node.journal.forget_queue(queue);
        self.died(forgotten)?;
        node.asked.retain(|(asked, _)| *asked != queue);
        self.oracle.insert(QueueId(self.next_queue), Model { next_seq: 1, messages: BTreeMap::new() });
        self.next_queue += 1;
        Ok(())
    }

    fn change_capacity(&mut self) {
        if self.faults == Faults::Errors {
            let room = self.random.below(4) * 40_000;
            let capacity = self.random.one_in(2).then(|| self.disk.used() + room);
            self.disk.set_capacity(capacity);
        }
    }

    /// Plays the driver's part in giving up the oldest journal file.
    fn retire(&mut self, node: &mut Node) -> Result<(), Stop> {
        node.asked.extend(node.journal.retire_candidates());
        let result = node.journal.retire();
        self.died(result)?;
        if node.asked.is_empty() || self.random.one_in(2) {
            return Ok(());
        }
        let (queue, through) = node.asked.swap_remove(self.random.below(node.asked.len() as u64) as usize);
        let mut seqs = Vec::new();
        if let Some(model) = self.oracle.get(&queue) {
            let only_there = |(_, known): &(&Seq, &Known)| known.alive() && known.enqueued > Stage::No && !known.paged;
            seqs.extend(model.messages.range(..=through).filter(only_there).map(|(seq, _)| *seq));
        }
        if !seqs.is_empty() && !self.write_pages(node, vec![(queue, seqs)])? {
            node.asked.push((queue, through));
            return Ok(());
        }
        let state = match node.segments.state_of(queue) {
            Ok(state) => state,
            Err(error) => {
                node.asked.push((queue, through));
                return self.died(Err(error)).map(|_| ());
            }
        };
        let result = node.journal.paged(queue, through, state);
        let is_given_up = self.died(result)? && node.asked.is_empty();
        self.outcome.retired += u64::from(is_given_up);
        Ok(())
    }

    fn stop_cleanly(&mut self, mut node: Node) -> Result<Option<bool>, String> {
        for (queue, model) in &mut self.oracle {
            for (seq, known) in &mut model.messages {
                // What never reached the store is stored now or forgotten.
                if known.alive() && (known.enqueued > Stage::No || known.paged) && self.random.one_in(4) {
                    known.flagged = true;
                    if let Some(batch) = node.batches.get_mut((queue.0 % 2) as usize) {
                        batch.delivered(*queue, *seq, *seq);
                    }
                }
            }
        }
        match node.journal.stop(&mut node.batches) {
            Ok(()) => {}
            Err(StoreError::Full { .. }) => {
                self.outcome.full += 1;
                drop(node);
                self.crash();
                return Ok(None);
            }
            Err(error) => {
                if self.faults != Faults::Errors {
                    return Err(error.to_string());
                }
                drop(node);
                self.crash();
                return Ok(None);
            }
        }
        for known in self.oracle.values_mut().flat_map(|model| model.messages.values_mut()) {
            for stage in [&mut known.enqueued, &mut known.settled] {
                if *stage > Stage::No {
                    *stage = Stage::Durable;
                }
            }
        }
        drop(node);
        self.crash();
        Ok(Some(true))
    }

    fn crash(&mut self) {
        let how = match self.random.below(5) {
            0 => Crash::KeepAll,
            1 => Crash::LoseAll,
            _ => Crash::Torn,
        };
        self.disk = self.disk.crash(how);
        self.trace(&format!("{how:?}"));
    }

    fn plan_faults(&mut self, steps: u64) {
        let nth = 1 + self.random.below(steps);
        match self.random.below(8) {
            0 => self.disk.fail(Fault::Write, nth),
            1 => self.disk.fail(Fault::Sync, nth),
            2 => self.disk.fail(Fault::SyncDir, 1 + nth / 20),
            3 => self.disk.fail(Fault::Read, nth),
            4 | 5 => self.disk.stop_at(self.disk.changes() + nth),
            _ => {}
        }
    }

    fn rot(&mut self) {
        let files = self.disk.files();
        let of_store: Vec<_> = files.iter().filter(|path| path.starts_with(Path::new(DIR))).collect();
        self.reported = false;
        for _ in 0..1 + self.random.below(3) {
            if let Some(path) = self.random.pick(&of_store) {
                let bit = self.random.draw();
                self.rotten |= self.disk.flip(path, bit);
            }
        }
    }

    fn written_is_durable(&mut self) {
        for known in self.oracle.values_mut().flat_map(|model| model.messages.values_mut()) {
            for stage in [&mut known.enqueued, &mut known.settled] {
                if *stage == Stage::Written {
                    *stage = Stage::Durable;
                }
            }
        }
    }

    /// Whether it worked; not if the disk was full.
    fn died(&mut self, result: Result<(), StoreError>) -> Result<bool, Stop> {
        match result {
            Ok(()) => Ok(true),
            Err(StoreError::Full { .. }) if self.faults == Faults::Errors => {
                self.outcome.full += 1;
                Ok(false)
            }
            Err(error) if self.faults == Faults::Errors => Err(Stop::Died(error)),
            Err(error) => Err(Stop::Broken(format!("an error out of nothing: {error}"))),
        }
    }

    /// After an error of the segments the journal may still work.
    fn segments_failed(&self, node: &Node) -> bool {
        let _ = node;
        self.outcome.errors > 0
    }

    fn note_report(&mut self, report: &[String]) -> Result<(), String> {
        for line in report {
            self.trace(line);
            self.outcome.reports += 1;
            let damage = line.contains("damaged");
            if damage && !self.rotten && self.faults != Faults::Errors {
                return Err(format!("damage reported where there is none: {line}"));
            }
            self.reported = true;
        }
        Ok(())
    }

    fn trace(&mut self, what: &str) {
        for octet in what.bytes() {
            self.outcome.trace = (self.outcome.trace ^ u64::from(octet)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

/// Why a round ends early.
enum Stop {
    /// The store reported a fault that was ordered.
    Died(StoreError),
    /// A promise was broken.
    Broken(String),
}
