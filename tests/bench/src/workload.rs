//! The workloads: what each does, and what it measures.

mod backlog;
mod churn;
mod idle;
mod lone;
mod ping_pong;
mod queues;
mod restart;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::brokers::Running;
use crate::checker::Faults;
use crate::usage::Usage;

/// What a workload measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// Broker CPU for a message delivered, in microseconds.
    CpuUs,
    /// Broker CPU for a message taken in, in microseconds.
    CpuInUs,
    /// Broker CPU for a message given out, in microseconds.
    CpuOutUs,
    /// Messages consumed a second.
    Rate,
    /// Median time to the confirm, in milliseconds.
    ConfirmP50Ms,
    /// The time to the confirm that one in a hundred exceeds, in milliseconds.
    ConfirmP99Ms,
    /// Median time of a round, in microseconds.
    RoundP50Us,
    /// Broker CPU for a round, in microseconds.
    RoundCpuUs,
    /// Broker CPU for a connection that comes and goes, in milliseconds.
    ChurnCpuMs,
    /// The highest resident memory of the run, in MiB.
    PeakMib,
    /// How much resident memory grew, in MiB.
    GrowthMib,
    /// Resident memory of a broker that holds nothing, in MiB.
    EmptyMib,
    /// Resident memory of one of many, in KiB.
    EachKib,
    /// Queues declared a second.
    DeclareRate,
    /// From starting the broker after SIGKILL to the first message out of its backlog, in seconds.
    KilledS,
    /// From starting the broker after SIGTERM to the first message out of its backlog, in seconds.
    TerminatedS,
    /// Broker CPU from starting it after SIGKILL to the first message, in seconds.
    KilledCpuS,
}

/// The metrics of one run.
pub type Metrics = BTreeMap<Metric, f64>;

/// What came of one run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was measured.
    pub metrics: Metrics,
    /// What was wrong; with any fault the metrics count for nothing.
    pub faults: Faults,
}

/// How large the runs are.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// How long producers publish in a run.
    pub time: Duration,
    /// Messages of a backlog.
    pub backlog: u64,
    /// Idle connections.
    pub connections: usize,
    /// Durable queues.
    pub queues: usize,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name, for `--only` and the table.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Whether the null broker can do it, and whether it must sync then.
    pub null: Null,
    /// Whether it needs a broker that did nothing before, and is so long that one round must do.
    pub fresh: bool,
    /// Whether the brokers must serve with TLS.
    pub tls: bool,
    run: fn(&mut Running, Scale) -> io::Result<Outcome>,
}

/// How the null broker takes part in a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// Not at all: it has no queues.
    Absent,
    /// It frames and forwards.
    Plain,
    /// It syncs persistent messages before it confirms them.
    Fsync,
}

impl Workload {
    /// All workloads, in the order of the table.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let one = |name, about, null, fresh, run| Self { name, about, null, fresh, tls: false, run };
        vec![
            one("t16", "16 B, transient, auto-ack, 1 producer, 1 consumer", Null::Plain, false, stream::t16),
            one("t1k", "1 KiB, transient, auto-ack, 1 producer, 1 consumer", Null::Plain, false, stream::t1k),
            one("t64k", "64 KiB, transient, auto-ack, 1 producer, 1 consumer", Null::Plain, false, stream::t64k),
            one("ack1", "100 B, transient, prefetch 200, an ack each", Null::Plain, false, stream::ack1),
            one(
                "compete",
                "100 B, transient, auto-ack, 5 producers, 5 consumers, 1 queue",
                Null::Plain,
                false,
                stream::compete,
            ),
            one(
                "many",
                "100 B, transient, auto-ack, 100 queues with a producer and a consumer each",
                Null::Plain,
                false,
                stream::many,
            ),
            one(
                "fan10",
                "100 B, transient, auto-ack, fanout to 10 queues with a consumer each; a delivery",
                Null::Plain,
                false,
                stream::fan10,
            ),
            one("p16", "16 B, persistent, confirms (window 1,000), acks of 100", Null::Fsync, false, stream::p16),
            one("p1k", "1 KiB, persistent, confirms (window 1,000), acks of 100", Null::Fsync, false, stream::p1k),
            Self { tls: true, ..one("t1k-tls", "t1k over TLS", Null::Absent, false, stream::t1k_tls) },
            Self { tls: true, ..one("t64k-tls", "t64k over TLS", Null::Absent, false, stream::t64k_tls) },
            Self { tls: true, ..one("p1k-tls", "p1k over TLS", Null::Absent, false, stream::p1k_tls) },
            one("lone", "100 B, persistent, confirms, one at a time, 100 a second", Null::Fsync, false, lone::run),
            one(
                "pingpong",
                "100 B, transient, auto-ack, one at a time; a round is publish and delivery",
                Null::Plain,
                false,
                ping_pong::run,
            ),
            one("churn", "connect, open a channel, declare an exclusive queue, close", Null::Plain, false, churn::run),
            one(
                "backlog",
                "100 B, transient, into a durable queue without consumer; then out with acks of 100",
                Null::Absent,
                true,
                backlog::transient,
            ),
            one(
                "pbacklog",
                "100 B, persistent, confirms (window 1,000), into a durable queue; then out with acks of 100",
                Null::Absent,
                true,
                backlog::persistent,
            ),
            one(
                "restart",
                "as pbacklog into the queue; SIGKILL, start, get one; SIGTERM, start, get one; growth is after the starts",
                Null::Absent,
                true,
                restart::run,
            ),
            one("idle", "idle connections, each with a channel, a queue and a consumer", Null::Absent, true, idle::run),
            one("queues", "durable queues, declared pipelined by 50", Null::Absent, true, queues::run),
        ]
    }

    /// Runs it once.
    ///
    /// # Errors
    /// When the broker cannot be prepared for it or dies. What the broker delivers wrong is in the outcome.
    pub fn run(&self, broker: &mut Running, scale: Scale) -> io::Result<Outcome> {
        (self.run)(broker, scale)
    }
}

impl Metric {
    /// The words of the table, with the unit.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU µs a message",
            Self::CpuInUs => "CPU µs a message in",
            Self::CpuOutUs => "CPU µs a message out",
            Self::Rate => "messages a second",
            Self::ConfirmP50Ms => "confirm p50 ms",
            Self::ConfirmP99Ms => "confirm p99 ms",
            Self::RoundP50Us => "round p50 µs",
            Self::RoundCpuUs => "CPU µs a round",
            Self::ChurnCpuMs => "CPU ms a connection",
            Self::PeakMib => "peak RSS MiB",
            Self::GrowthMib => "RSS growth MiB",
            Self::EmptyMib => "RSS empty MiB",
            Self::EachKib => "RSS KiB each",
            Self::DeclareRate => "declares a second",
            Self::KilledS => "s from start to first message, after SIGKILL",
            Self::TerminatedS => "s from start to first message, after SIGTERM",
            Self::KilledCpuS => "CPU s from start to first message, after SIGKILL",
        }
    }

    /// Whether more is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::Rate | Self::DeclareRate)
    }

    /// The value that stands for several rounds: CPU and memory the lowest, as only disturbance adds to them; rates and
    /// times the median.
    #[must_use]
    pub fn of_rounds(self, values: &[f64]) -> Option<f64> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        match self {
            Self::Rate | Self::DeclareRate | Self::ConfirmP50Ms | Self::ConfirmP99Ms | Self::RoundP50Us => {
                sorted.get(sorted.len() / 2).copied()
            }
            _ => sorted.first().copied(),
        }
    }
}

/// The broker CPU between two looks, divided among `count`, in microseconds.
fn cpu_us_each(before: Usage, after: Usage, count: u64) -> f64 {
    after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / count.max(1) as f64
}

fn mebibytes(octets: u64) -> f64 {
    octets as f64 / (1024.0 * 1024.0)
}

/// Waits until resident memory has stopped moving, so that what a broker frees late is not charged to what comes next.
fn settled(pid: u32) -> io::Result<Usage> {
    const PAUSE: Duration = Duration::from_millis(500);
    const LONGEST: u32 = 10;
    let mut last = Usage::of(pid)?;
    for _ in 0..LONGEST {
        std::thread::sleep(PAUSE);
        let now = Usage::of(pid)?;
        let still = now.resident.abs_diff(last.resident) < 256 * 1024 && now.cpu.saturating_sub(last.cpu) < PAUSE / 20;
        last = now;
        if still {
            break;
        }
    }
    Ok(last)
}

/// A queue name of this workload.
fn queue_name(workload: &str, number: usize) -> String {
    format!("bench.{workload}.{number}")
}

/// Whatever could not be cleaned up is told: the next workload would meet it.
fn clean_up(address: SocketAddr, queues: &[String], exchange: Option<&str>) -> io::Result<()> {
    let mut session = crate::session::Session::open(address)?;
    for queue in queues {
        session.delete_queue(queue)?;
    }
    if let Some(exchange) = exchange {
        session.delete_exchange(exchange)?;
    }
    session.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_summed_up_as_the_metric_asks() {
        assert_eq!(Metric::CpuUs.of_rounds(&[3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(Metric::Rate.of_rounds(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(Metric::Rate.of_rounds(&[]), None);
    }

    #[test]
    fn workloads_have_different_names() {
        let mut names: Vec<_> = Workload::all().iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Workload::all().len());
    }
}
