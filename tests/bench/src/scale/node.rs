//! The broker that a step is done on.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Outcome;
use super::bulk::open_channels;
use super::probe::Probe;
use crate::brokers::{Ending, Kind, Running};
use crate::session::Session;
use crate::usage::{Usage, run_time};

/// A broker that was started for one step.
pub(crate) struct Node {
    broker: Running,
    pub kind: Kind,
    /// How long to look at what the processor does while nothing happens; not at all if zero.
    pub idle_time: Duration,
}

impl Node {
    pub fn start(kind: Kind, idle_time: Duration) -> io::Result<Self> {
        Ok(Node { broker: Running::start(kind, false)?, kind, idle_time })
    }

    pub fn address(&self) -> SocketAddr {
        self.broker.address
    }

    /// A connection to the vhost that is always there, with channels to ask in bulk.
    pub fn session(&self) -> io::Result<Session> {
        self.session_in("/")
    }

    pub fn session_in(&self, vhost: &str) -> io::Result<Session> {
        let mut session = Session::connect_in(self.address(), vhost)?;
        open_channels(&mut session)?;
        Ok(session)
    }

    pub fn administer(&self, words: &[&str]) -> io::Result<String> {
        let said = self.broker.control()?.run(words).map_err(io::Error::other)?;
        if said.succeeded { Ok(said.text) } else { Err(io::Error::other(format!("{words:?}: {}", said.text))) }
    }

    /// Kills the broker and starts it again. What it needs until it serves is what its process has run by then.
    pub fn kill_and_restart(&mut self) -> io::Result<Outcome> {
        let elapsed = self.broker.restart(Ending::Killed)?;
        Ok(Outcome { elapsed, cpu: run_time(self.broker.pid)?, ..Outcome::default() })
    }

    /// Does what is judged, with an unrelated client beside it.
    pub fn timed(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<Outcome> {
        let probe = Probe::start(self.address())?;
        let (started, before) = (Instant::now(), run_time(self.broker.pid)?);
        let done = work();
        let elapsed = started.elapsed();
        let cpu = run_time(self.broker.pid)?.saturating_sub(before);
        let beside = Some(probe.stop()?);
        done?;
        Ok(Outcome { elapsed, cpu, beside, ..Outcome::default() })
    }

    /// The same, with the memory that what came of it takes, and the processor's time while it does nothing.
    pub fn timed_and_weighed(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<Outcome> {
        // A first login takes memory that is not given back.
        Session::open(self.address())?.close()?;
        let before = self.resident()?;
        let outcome = self.timed(work)?;
        let grown_bytes = Some(self.resident()? as f64 - before as f64);
        Ok(Outcome { grown_bytes, idle_cpu: self.idle_cpu()?, ..outcome })
    }

    /// Memory once it has stopped to change.
    fn resident(&self) -> io::Result<u64> {
        let mut last = Usage::of(self.broker.pid)?.resident;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(250));
            let now = Usage::of(self.broker.pid)?.resident;
            if now.abs_diff(last) < 256 * 1024 {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    /// The share of one core that is used while nobody asks for anything; none if there is no time to look.
    fn idle_cpu(&self) -> io::Result<Option<f64>> {
        if self.idle_time.is_zero() {
            return Ok(None);
        }
        // What was asked for before is to be over.
        std::thread::sleep(Duration::from_secs(1));
        let before = Usage::of(self.broker.pid)?.cpu;
        std::thread::sleep(self.idle_time);
        let used = Usage::of(self.broker.pid)?.cpu.saturating_sub(before);
        Ok(Some(used.as_secs_f64() / self.idle_time.as_secs_f64()))
    }
}
