//! `bench`: measures ours beside RabbitMQ 3.10.8 and the null broker and writes a page of ratios.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::brokers::{Kind, Running};
use bench::remembered::Remembered;
use bench::report::{About, Results};
use bench::surroundings;
use bench::workload::{Metrics, Null, Outcome, Scale, Workload};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Measures brokers under the same load in turn. Progress goes to standard error, the page to standard output.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// Only these workloads, as `t16,p1k`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds of each workload; those that need a fresh broker have one.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long producers publish in a run, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The brokers.
    #[arg(long, value_delimiter = ',', default_value = "ours,rabbitmq,null")]
    against: Vec<Kind>,
    /// Messages of a backlog.
    #[arg(long, default_value_t = 2_000_000)]
    backlog: u64,
    /// Idle connections.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Durable queues.
    #[arg(long, default_value_t = 10_000)]
    queues: usize,
    /// Write the page to this file too.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Append each run to this file, a JSON object a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Take the others' figures from an earlier bench where there are some, and measure only ours. For development.
    #[arg(long)]
    remember: bool,
}

/// From here on a page holds what another program has measured: it is kept.
const OTHER_FIGURES: &str = "\n## Scale of small things";

fn main() -> ExitCode {
    match Bench::new(Options::parse()).and_then(Bench::run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

struct Bench {
    options: Options,
    scale: Scale,
    workloads: Vec<Workload>,
    running: Vec<(Kind, bool, Running)>,
    results: Results,
    remembered: Option<Remembered>,
    json: Option<File>,
}

impl Bench {
    fn new(options: Options) -> io::Result<Self> {
        let all = Workload::all();
        if let Some(unknown) = options.only.iter().find(|name| all.iter().all(|workload| workload.name != **name)) {
            let names: Vec<_> = all.iter().map(|workload| workload.name).collect();
            return Err(io::Error::other(format!("no workload {unknown:?}; there are {}", names.join(" "))));
        }
        let chosen =
            |workload: &Workload| options.only.is_empty() || options.only.iter().any(|name| name == workload.name);
        let workloads = all.into_iter().filter(chosen).collect();
        let scale = Scale {
            time: Duration::from_secs_f64(options.seconds),
            backlog: options.backlog,
            connections: options.connections,
            queues: options.queues,
        };
        let json =
            options.json.as_ref().map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        let remembered = options.remember.then(Remembered::load).transpose()?;
        raise_open_files_limit()?;
        Ok(Self { options, scale, workloads, running: Vec::new(), results: Results::default(), remembered, json })
    }

    /// Whether every run counts.
    fn run(mut self) -> io::Result<bool> {
        for workload in std::mem::take(&mut self.workloads) {
            let rounds = if workload.fresh { 1 } else { self.options.rounds };
            for round in 1..=rounds {
                for kind in self.options.against.clone() {
                    self.one(&workload, kind, round)?;
                }
            }
        }
        self.running.clear();
        let page = self.results.page(&self.about(), &self.options.against);
        println!("{page}");
        if let Some(path) = &self.options.out {
            let earlier = fs::read_to_string(path).unwrap_or_default();
            let kept = earlier.find(OTHER_FIGURES).and_then(|from| earlier.get(from..)).unwrap_or_default();
            fs::write(path, page + kept)?;
        }
        Ok(self.results.spoilt() == 0)
    }

    fn one(&mut self, workload: &Workload, kind: Kind, round: u32) -> io::Result<()> {
        if kind == Kind::Null && workload.null == Null::Absent {
            return Ok(());
        }
        if kind != Kind::Ours
            && let Some(metrics) = self.remembered.as_ref().and_then(|all| all.find(workload.name, kind))
        {
            self.results.add_remembered(kind);
            self.results.add(workload.name, kind, metrics);
            return Ok(());
        }
        let fsync = workload.null == Null::Fsync;
        if workload.fresh {
            self.running.retain(|(of, _, _)| *of != kind);
        }
        let scale = self.scale;
        let result = self
            .broker(kind, if kind == Kind::Null { fsync } else { workload.tls })
            .and_then(|broker| workload.run(broker, scale));
        match result {
            Ok(outcome) if outcome.faults.count() > 0 => {
                eprintln!("{:9} {kind:9} COUNTS FOR NOTHING: {}", workload.name, outcome.faults);
                self.results.add_spoilt(workload.name, kind, &outcome.faults);
                // Whatever went wrong may be left in it.
                self.running.retain(|(of, _, _)| *of != kind);
            }
            Ok(Outcome { metrics, .. }) => {
                self.tell(workload, kind, round, &metrics)?;
                self.results.add(workload.name, kind, metrics);
            }
            Err(error) => {
                eprintln!("{:9} {kind:9} failed: {error}", workload.name);
                if let Some((_, _, broker)) = self.running.iter().find(|(of, _, _)| *of == kind) {
                    eprintln!("{}", broker.log_tail());
                }
                self.results.add_failed(workload.name, kind, &error);
                self.running.retain(|(of, _, _)| *of != kind);
            }
        }
        if workload.fresh {
            self.running.retain(|(of, _, _)| *of != kind);
        }
        Ok(())
    }

    fn tell(&mut self, workload: &Workload, kind: Kind, round: u32, metrics: &Metrics) -> io::Result<()> {
        let words: Vec<_> = metrics.iter().map(|(metric, value)| format!("{} {value:.3}", metric.title())).collect();
        eprintln!("{:9} {kind:9} {}", workload.name, words.join(", "));
        if let Some(file) = &mut self.json {
            let named: serde_json::Map<_, _> =
                metrics.iter().map(|(metric, value)| (format!("{metric:?}"), (*value).into())).collect();
            let line = serde_json::json!({
                "workload": workload.name, "broker": kind.to_string(), "round": round, "metrics": named,
            });
            writeln!(file, "{line}")?;
        }
        if kind != Kind::Ours
            && let Some(remembered) = &mut self.remembered
        {
            remembered.keep(workload.name, kind, metrics)?;
        }
        Ok(())
    }

    /// The running broker of this kind, special or not ([`Running::start`]), started if need be.
    fn broker(&mut self, kind: Kind, special: bool) -> io::Result<&mut Running> {
        let place = self.running.iter().position(|(of, so, _)| *of == kind && *so == special);
        let place = match place {
            Some(place) => place,
            None => {
                self.running.push((kind, special, Running::start(kind, special)?));
                self.running.len() - 1
            }
        };
        self.running.get_mut(place).map(|(_, _, broker)| broker).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn about(&self) -> About {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let seconds = self.options.seconds;
        About {
            machine: surroundings::machine(),
            when: surroundings::when(),
            command: format!("./dev bench {}", arguments.join(" ")),
            scale: format!(
                "{} rounds of {seconds} s, backlog {} messages, {} idle connections, {} queues",
                self.options.rounds, self.scale.backlog, self.scale.connections, self.scale.queues
            ),
        }
    }
}

/// The idle workload needs a socket for each connection, here and in the brokers, which inherit the limit.
fn raise_open_files_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
