//! Clusters of three nodes on this machine: ours beside RabbitMQ 3.10.8's, in turn under the same load.
//!
//! ```text
//!  nodes     the clusters, and what they use of the processor
//!  flows     messages between clients of the queue's node, of another one, and of two others
//!  shares    processors for each node alone
//!  rounds    one request at a time: confirms, and calls over reply queues
//!  declares  queues that come and go
//!  idle      what nodes do that nobody asks for anything
//!  deaths    a node is killed, and what clients of another one notice of it
//!  joining   a node joins a cluster that has many queues
//!  figures   what was measured, and the table
//! ```

mod deaths;
mod declares;
mod figures;
mod flows;
mod idle;
mod joining;
mod nodes;
mod rounds;
mod shares;

use std::io;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::brokers::Kind;
use crate::surroundings::{self, load};
use figures::{Figure, Results};
use nodes::Cluster;

/// What is measured.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench-cluster")]
pub struct Options {
    /// Only these steps, as `flows,join`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The brokers, as `ours,rabbitmq`.
    #[arg(long, value_delimiter = ',', default_value = "ours,rabbitmq")]
    pub against: Vec<Kind>,
    /// Rounds of the steps that can be repeated.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 0.7)]
    pub seconds: f64,
    /// Seconds over which idle nodes are looked at.
    #[arg(long, default_value_t = 10)]
    pub idle_seconds: u64,
    /// Durable queues, each bound, that the cluster has when a node dies or joins, and for idle-many.
    #[arg(long, default_value_t = 50_000)]
    pub queues: usize,
    /// The same for RabbitMQ, which takes long to declare them.
    #[arg(long, default_value_t = 3_000)]
    pub queues_rabbitmq: usize,
    /// Lists the steps and ends.
    #[arg(long)]
    pub list: bool,
}

/// How large the steps are for one of the clusters.
#[derive(Clone, Copy, Debug)]
struct Size {
    time: Duration,
    idle: Duration,
    queues: usize,
}

/// What can be measured by itself. Later ones leave more behind.
struct Step {
    name: &'static str,
    about: &'static str,
    /// Whether one round must do.
    once: bool,
    run: fn(&mut Cluster, Size) -> io::Result<Vec<Figure>>,
}

const STEPS: &[Step] = &[
    step("idle", "an empty cluster: the CPU of the node that takes most", true, idle::run),
    step(
        "flows",
        "t1k, ack1 and p1k of `./dev bench`, with clients on the queue's node (local), on another one (forwarded), and on the two others (apart)",
        false,
        flows::run,
    ),
    step(
        "flows-own",
        "as flows, each node with a sixth of the processors and no other's, the generator with the other half: as on machines of their own (needs root)",
        false,
        flows::run_with_shares,
    ),
    step(
        "confirm",
        "100 B, transient or persistent, confirmed, one at a time, on the queue's node and on another one",
        false,
        rounds::confirms,
    ),
    step(
        "rpc",
        "requests and replies of 100 B, the server on its queue's node, the client on another one; one at a time and 50 at a time",
        false,
        rounds::calls,
    ),
    step(
        "declare",
        "queues declared and deleted, 50 on their way on each channel: one channel, and 16 over the three nodes",
        false,
        declares::run,
    ),
    step("idle-many", "as idle, with many durable queues", true, idle::run_with_queues),
    step("kill", "a follower is killed, and started again", true, deaths::follower),
    step(
        "lead",
        "the node that leads the catalog is killed (of RabbitMQ the first one), and started again",
        true,
        deaths::leader,
    ),
    step("join", "a fresh node joins the cluster with many queues", true, joining::run),
];

const fn step(
    name: &'static str,
    about: &'static str,
    once: bool,
    run: fn(&mut Cluster, Size) -> io::Result<Vec<Figure>>,
) -> Step {
    Step { name, about, once, run }
}

/// Runs the steps and prints the table. `false`: something could not be measured.
///
/// # Errors
/// When the options make no sense or a cluster does not start.
pub fn run(options: &Options) -> io::Result<bool> {
    if options.list {
        STEPS.iter().for_each(|step| println!("{:10} {}", step.name, step.about));
        return Ok(true);
    }
    if let Some(unknown) = options.only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(io::Error::other(format!("no step {unknown:?}; --list names them")));
    }
    if options.against.contains(&Kind::Null) {
        return Err(io::Error::other("the null broker forms no clusters"));
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let (started, load_before) = (Instant::now(), load());
    let mut clusters = options.against.iter().map(|kind| Cluster::start(*kind)).collect::<io::Result<Vec<_>>>()?;
    let mut results = Results::default();
    let chosen = |step: &&Step| options.only.is_empty() || options.only.iter().any(|name| name == step.name);
    for step in STEPS.iter().filter(chosen) {
        for _ in 0..if step.once { 1 } else { options.rounds } {
            for cluster in &mut clusters {
                one(step, cluster, options, &mut results)?;
            }
        }
    }
    drop(clusters);
    println!("- machine: {}\n- when: {}", surroundings::machine(), surroundings::when());
    println!("- load average before {load_before}, after {}; took {:.0?}", load(), started.elapsed());
    println!("{}", results.page(&STEPS.iter().map(|step| (step.name, step.about)).collect::<Vec<_>>()));
    Ok(results.is_whole())
}

fn one(step: &Step, cluster: &mut Cluster, options: &Options, results: &mut Results) -> io::Result<()> {
    let queues = if cluster.kind == Kind::RabbitMq { options.queues_rabbitmq } else { options.queues };
    let (time, idle) = (Duration::from_secs_f64(options.seconds), Duration::from_secs(options.idle_seconds));
    match (step.run)(cluster, Size { time, idle, queues }) {
        Ok(figures) => {
            for figure in figures {
                eprintln!("{:10} {:9} {} {:.3}", step.name, cluster.kind, figure.name, figure.value);
                results.add(step.name, cluster.kind, figure);
            }
            Ok(())
        }
        Err(error) => {
            eprintln!("{:10} {:9} FAILED: {error}\n{}", step.name, cluster.kind, cluster.log_tails());
            results.add_failed(step.name, cluster.kind, &error);
            // Whatever went wrong may be left in it.
            *cluster = Cluster::start(cluster.kind)?;
            Ok(())
        }
    }
}
