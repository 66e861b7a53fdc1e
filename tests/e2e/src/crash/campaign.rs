//! Rounds of load, strike, restart, drain and check on one data directory.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Broker, Options};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::checker::violations;
use super::fault::Fault;
use super::history::{Attempt, Delivery, Fate, History};
use super::load::{self, CONSUMERS, Log, Manner, PRODUCERS, consume, produce};
use super::message::QUEUES;
use crate::start_subject;

/// The strike comes this long after the load has got going.
const STRIKE_AFTER_MS: std::ops::Range<u64> = 500..2_500;
/// The load has got going when this many publishes are confirmed, or after this time.
const GOING_CONFIRMS: usize = 300;
const GOING_LIMIT: Duration = Duration::from_secs(20);
/// One round in this many is struck a second time, this long after the broker is back.
const SECOND_STRIKE_EVERY: u32 = 3;
const SECOND_STRIKE_AFTER_MS: std::ops::Range<u64> = 0..400;
/// One round in this many ends with a clean stop and start, after which every queue must still be empty.
const CLEAN_RESTART_EVERY: u32 = 5;
/// A round with fewer confirmed publishes says nothing.
const MIN_CONFIRMED: usize = 200;
/// A round whose drain takes longer has failed.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// What a round came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every promise was kept.
    Sound,
    /// Too little was confirmed before the strike to say anything.
    Inconclusive,
    /// Promises that were broken.
    Broken(Vec<String>),
}

/// The figures of a round.
#[derive(Debug)]
pub struct RoundReport {
    /// Its number, from 1.
    pub round: u32,
    /// The fault.
    pub fault: &'static str,
    /// Load before the strike.
    pub loaded: Duration,
    /// True if the broker was struck again while it drained.
    pub struck_twice: bool,
    /// From starting the broker to its answer, the longest of this round.
    pub recovery: Duration,
    /// Publishes.
    pub attempted: usize,
    /// Publishes that were confirmed.
    pub confirmed: usize,
    /// Deliveries, and those flagged as redelivered.
    pub delivered: usize,
    /// Deliveries flagged as redelivered.
    pub redelivered: usize,
    /// What it came to.
    pub outcome: Outcome,
}

impl fmt::Display for RoundReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "round {}: {}{} after {:.2} s; {} published, {} confirmed, {} delivered, {} redelivered; back in {:.2} s: ",
            self.round,
            self.fault,
            if self.struck_twice { " (twice)" } else { "" },
            self.loaded.as_secs_f64(),
            self.attempted,
            self.confirmed,
            self.delivered,
            self.redelivered,
            self.recovery.as_secs_f64(),
        )?;
        match &self.outcome {
            Outcome::Sound => write!(formatter, "ok"),
            Outcome::Inconclusive => write!(formatter, "inconclusive"),
            Outcome::Broken(violations) => write!(formatter, "FAILED, {} violations", violations.len()),
        }
    }
}

/// Many rounds on one broker and one data directory.
pub struct Campaign {
    // Dropped first: the broker must be gone before its disk is unmounted.
    broker: Box<dyn Broker>,
    fault: Box<dyn Fault>,
    runtime: Runtime,
    random: fastrand::Rng,
    round: u32,
    sessions: u32,
}

impl Campaign {
    /// Starts the broker and declares what the rounds use. The seed decides when each strike comes.
    pub fn start(fault: Box<dyn Fault>, seed: u64) -> Result<Self, String> {
        let options = Options::default().data_dir(fault.data_dir());
        let broker = start_subject(options).map_err(|error| error.to_string())?;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let random = fastrand::Rng::with_seed(seed);
        let campaign = Campaign { broker, fault, runtime, random, round: 0, sessions: 0 };
        let declared = campaign.runtime.block_on(load::declare(&campaign.url()));
        declared.map_err(|error| format!("declaring: {error}"))?;
        Ok(campaign)
    }

    /// Runs one round. An error means that the broker did not come back, or that the machine did not let us strike.
    pub fn round(&mut self) -> Result<RoundReport, String> {
        self.round += 1;
        let mut history = History::default();
        let (start, confirmed) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let clients = self.spawn_load(&confirmed);
        while confirmed.load(Ordering::Relaxed) < GOING_CONFIRMS && start.elapsed() < GOING_LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(self.random.u64(STRIKE_AFTER_MS)));
        let loaded = start.elapsed();
        self.strike(&mut history)?;
        self.collect(clients, true, &mut history);
        let mut recovery = self.restart()?;
        let struck_twice = self.round.is_multiple_of(SECOND_STRIKE_EVERY);
        if struck_twice {
            let drain = self.spawn_drain(&mut history);
            std::thread::sleep(Duration::from_millis(self.random.u64(SECOND_STRIKE_AFTER_MS)));
            self.strike(&mut history)?;
            self.collect((Vec::new(), drain), true, &mut history);
            recovery = recovery.max(self.restart()?);
        }
        let drain = self.spawn_drain(&mut history);
        self.collect((Vec::new(), drain), false, &mut history);
        if self.round.is_multiple_of(CLEAN_RESTART_EVERY) {
            self.broker.restart().map_err(|error| error.to_string())?;
        }
        let counts = self.runtime.block_on(load::counts(&self.url())).map_err(|error| format!("counting: {error}"))?;
        history.left_over.extend(counts.into_iter().filter(|(_, count)| *count > 0));
        Ok(self.report(&history, loaded, struck_twice, recovery))
    }

    /// The broker's last words.
    pub fn log_tail(&self) -> String {
        self.broker.log_tail()
    }

    /// Keeps the data directory for a post-mortem.
    pub fn keep_data(&mut self) -> PathBuf {
        self.fault.keep()
    }

    fn url(&self) -> String {
        // A heartbeat of 0: a client that the kernel starves must not take itself for a failure of the broker.
        format!("amqp://guest:guest@127.0.0.1:{}/%2f?heartbeat=0", self.broker.amqp_port())
    }

    fn strike(&mut self, history: &mut History) -> Result<(), String> {
        let begun = Instant::now();
        self.fault.strike(self.broker.as_mut())?;
        history.faults.push((begun, Instant::now()));
        Ok(())
    }

    fn restart(&mut self) -> Result<Duration, String> {
        let start = Instant::now();
        self.broker.restart().map_err(|error| error.to_string())?;
        Ok(start.elapsed())
    }

    fn spawn_load(&mut self, confirmed: &Arc<AtomicUsize>) -> Clients {
        let (url, round) = (self.url(), self.round);
        let producer = |number| self.runtime.spawn(produce(url.clone(), round, number, Arc::clone(confirmed)));
        let producers = (0..PRODUCERS).map(producer).collect();
        let consumers = CONSUMERS.map(|(queue, manner)| self.spawn_consumer(queue, manner));
        (producers, consumers.into())
    }

    fn spawn_drain(&mut self, history: &mut History) -> Vec<JoinHandle<Log<Delivery>>> {
        history.draining_sessions.extend(self.sessions..self.sessions + u32::from(QUEUES));
        (0..QUEUES).map(|queue| self.spawn_consumer(queue, Manner::Drains)).collect()
    }

    fn spawn_consumer(&mut self, queue: u8, manner: Manner) -> JoinHandle<Log<Delivery>> {
        self.sessions += 1;
        self.runtime.spawn(consume(self.url(), queue, self.sessions - 1, manner))
    }

    /// Waits for the clients, which a strike ended or which end by themselves, and adds what they saw.
    fn collect(&self, (producers, consumers): Clients, struck: bool, history: &mut History) {
        for client in producers {
            let log = self.wait(client, struck, history);
            history.attempts.extend(log.into_iter().flat_map(|log| log.entries));
        }
        for client in consumers {
            let log = self.wait(client, struck, history);
            history.left_over.extend(log.iter().filter_map(|log| log.left_over));
            let deliveries = log.map(|log| log.entries).unwrap_or_default();
            if struck {
                history.add_struck(deliveries);
            } else {
                history.deliveries.extend(deliveries);
            }
        }
    }

    /// A client's log. Its error is a violation unless it came after the strike that ended it.
    fn wait<T>(&self, client: JoinHandle<Log<T>>, struck: bool, history: &mut History) -> Option<Log<T>> {
        match self.runtime.block_on(within(DRAIN_LIMIT, client)) {
            Some(Ok(log)) => {
                let last_strike = history.faults.last().filter(|_| struck);
                let unexpected = |at: &Instant| last_strike.is_none_or(|(begun, _)| at < begun);
                if let Some((_, error)) = log.error.as_ref().filter(|(at, _)| unexpected(at)) {
                    history.client_errors.push(error.clone());
                }
                Some(log)
            }
            Some(Err(panic)) => {
                history.client_errors.push(panic.to_string());
                None
            }
            None => {
                history.client_errors.push(format!("a client did not end within {DRAIN_LIMIT:?}"));
                None
            }
        }
    }

    fn report(&self, history: &History, loaded: Duration, struck_twice: bool, recovery: Duration) -> RoundReport {
        let confirmed = history.attempts.iter().filter(|attempt| attempt.fate == Fate::Confirmed).count();
        let found = violations(history, self.round);
        RoundReport {
            round: self.round,
            fault: self.fault.name(),
            loaded,
            struck_twice,
            recovery,
            attempted: history.attempts.len(),
            confirmed,
            delivered: history.deliveries.len(),
            redelivered: history.deliveries.iter().filter(|delivery| delivery.redelivered).count(),
            outcome: match found {
                found if !found.is_empty() => Outcome::Broken(found),
                _ if confirmed < MIN_CONFIRMED => Outcome::Inconclusive,
                _ => Outcome::Sound,
            },
        }
    }
}

/// Running producers and consumers.
type Clients = (Vec<JoinHandle<Log<Attempt>>>, Vec<JoinHandle<Log<Delivery>>>);

/// The result of `future`, or `None` if it takes longer than `limit`.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}
