//! Scale of small things: declares, binds, deletes and closes in bulk, each for a number of objects and for twice as many, with what an object takes
//! of memory, what all of them take of the processor while nothing happens, and how long an unrelated client waits for its messages meanwhile.
//!
//! What takes more than [`LINEAR_MAX`] times as much of the processor for twice as many grows faster than it should.

pub(crate) mod bulk;
mod node;
mod probe;
mod step;

use std::io;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::brokers::Kind;
use node::Node;
use step::Step;

/// Twice as many may take the broker this many times as much of the processor's time: a quadratic step takes 4, and measurements on a busy
/// machine vary. Time by the clock is no measure there.
const LINEAR_MAX: f64 = 3.0;
/// What takes less of it is not judged: such times are noise.
const JUDGED_FROM: Duration = Duration::from_millis(20);
/// What does not hold is measured again, so often in all: what grows too fast does so each time, and a busy machine's noise does not.
const ATTEMPTS: u32 = 3;
/// Memory is not judged where all that the second half may take is less than this: a password's hash alone takes 19 MiB, and gives it back late.
const MEMORY_JUDGED_FROM_BYTES: f64 = 24.0 * 1024.0 * 1024.0;
/// Objects that do nothing may take this much of one core together.
const IDLE_CPU_MAX: f64 = 0.03;

/// What is measured.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench-scale")]
pub struct Options {
    /// Only the steps whose name contains one of these, as `vhost,topic`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Divides the number of objects.
    #[arg(long, default_value_t = 1)]
    pub divide: usize,
    /// Divides it once more for RabbitMQ, which takes many times as long.
    #[arg(long, default_value_t = 10)]
    pub divide_rabbitmq: usize,
    /// The brokers, as `ours,rabbitmq`. Only ours is judged.
    #[arg(long, value_delimiter = ',', default_value = "ours")]
    pub against: Vec<Kind>,
    /// Seconds without anything to do over which the processor's time is taken.
    #[arg(long, default_value_t = 10)]
    pub idle_seconds: u64,
    /// Milliseconds that an unrelated client may wait for a message before it counts as held up. A busy machine needs more.
    #[arg(long, default_value_t = 100)]
    pub wait_ms: u64,
    /// Lists the steps and ends.
    #[arg(long)]
    pub list: bool,
}

/// What a step came to, for some number of objects.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// How long the part that is judged took.
    pub elapsed: Duration,
    /// The broker's time on the processor meanwhile.
    pub cpu: Duration,
    /// Octets of memory that all objects took together.
    pub grown_bytes: Option<f64>,
    /// The share of one core that all objects take while nothing happens.
    pub idle_cpu: Option<f64>,
    /// How long an unrelated client waited for a message meanwhile: 99 of 100 times, and the longest time.
    pub beside: Option<(Duration, Duration)>,
}

/// A step's outcomes for half as many objects, and for all.
struct Measured {
    objects: usize,
    half: Outcome,
    full: Outcome,
}

/// Runs the steps and prints a line for each. `false`: something does not hold.
///
/// # Errors
/// When a broker does not start or does not do what it is asked.
pub fn run(options: &Options) -> io::Result<bool> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let wanted =
        |step: &&Step| options.only.is_empty() || options.only.iter().any(|only| step.name.contains(only.as_str()));
    let steps: Vec<&Step> = step::STEPS.iter().filter(wanted).collect();
    if steps.is_empty() {
        return Err(io::Error::other("no step has such a name; --list names them"));
    }
    if options.list {
        steps.iter().for_each(|step| println!("{:>7} {}", step.many, step.name));
        return Ok(true);
    }
    println!(
        "| step | broker | n | ms | CPU ms | 2n | ms | CPU ms | CPU ratio | each, KiB | idle CPU, % | beside: p99, ms | longest, ms | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut holds = true;
    for step in steps {
        for &kind in &options.against {
            let mut faults = String::new();
            let mut measured = None;
            for _ in 0..ATTEMPTS {
                let of_step = |error| io::Error::other(format!("{} ({kind}): {error}", step.name));
                let latest = measured.insert(measure(step, kind, options).map_err(of_step)?);
                let wait_max = Duration::from_millis(options.wait_ms);
                faults = if kind == Kind::Ours { self::faults(step, latest, wait_max) } else { String::new() };
                if faults.is_empty() {
                    break;
                }
            }
            let Some(measured) = measured else { continue };
            holds &= faults.is_empty();
            println!("{}", row(step, kind, &measured, &faults));
        }
    }
    Ok(holds)
}

fn measure(step: &Step, kind: Kind, options: &Options) -> io::Result<Measured> {
    let divide = if kind == Kind::RabbitMq { options.divide * options.divide_rabbitmq } else { options.divide };
    let objects = (step.many / divide.max(1)).max(2);
    let mut node = Node::start(kind, Duration::ZERO)?;
    let half = (step.run)(&mut node, objects / 2)?;
    if kind == Kind::Ours {
        // A fresh one: what half as many have left over would hide what the others take.
        node = Node::start(kind, Duration::ZERO)?;
    }
    node.idle_time = Duration::from_secs(options.idle_seconds);
    let full = (step.run)(&mut node, objects)?;
    Ok(Measured { objects, half, full })
}

impl Measured {
    fn ratio(&self) -> f64 {
        self.full.cpu.as_secs_f64() / self.half.cpu.as_secs_f64().max(1e-6)
    }

    /// What each object of the second half takes: what is set up once is charged to none.
    fn each_bytes(&self) -> Option<f64> {
        let (half, full) = self.half.grown_bytes.zip(self.full.grown_bytes)?;
        Some((full - half) / (self.objects - self.objects / 2) as f64)
    }
}

fn faults(step: &Step, measured: &Measured, wait_max: Duration) -> String {
    let full = &measured.full;
    let too_long = full.cpu >= JUDGED_FROM && measured.ratio() > LINEAR_MAX;
    let second_half = (measured.objects - measured.objects / 2) as f64;
    let too_much = step
        .each_max_bytes
        .zip(measured.each_bytes())
        .is_some_and(|(max, each)| max * second_half >= MEMORY_JUDGED_FROM_BYTES && each > max);
    let not_idle = full.idle_cpu.is_some_and(|share| share > IDLE_CPU_MAX);
    let stalled = full.beside.is_some_and(|(_, longest)| longest > wait_max);
    let all = [
        (too_long, "NOT LINEAR"),
        (too_much, "TOO MUCH MEMORY"),
        (not_idle, "NOT IDLE"),
        (stalled, "OTHERS WAIT TOO LONG"),
    ];
    all.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
}

fn row(step: &Step, kind: Kind, measured: &Measured, faults: &str) -> String {
    let Measured { objects, half, full } = measured;
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    let or_nothing = |figure: Option<String>| figure.unwrap_or_default();
    [
        step.name.to_owned(),
        kind.to_string(),
        (objects / 2).to_string(),
        ms(half.elapsed),
        ms(half.cpu),
        objects.to_string(),
        ms(full.elapsed),
        ms(full.cpu),
        format!("{:.2}", measured.ratio()),
        or_nothing(measured.each_bytes().map(|each| format!("{:.2}", each / 1024.0))),
        or_nothing(full.idle_cpu.map(|share| format!("{:.2}", share * 100.0))),
        or_nothing(full.beside.map(|(p99, _)| ms(p99))),
        or_nothing(full.beside.map(|(_, longest)| ms(longest))),
        faults.to_owned(),
    ]
    .iter()
    .fold("|".to_owned(), |row, cell| row + " " + cell + " |")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(half_ms: u64, full: Outcome) -> String {
        let step = Step { name: "", many: 0, each_max_bytes: Some(1024.0), run: |_, _| Ok(Outcome::default()) };
        let half = Outcome { cpu: Duration::from_millis(half_ms), grown_bytes: Some(1e6), ..Outcome::default() };
        faults(&step, &Measured { objects: 50_000, half, full }, Duration::from_millis(250))
    }

    #[test]
    fn what_grows_with_the_square_is_found_and_what_is_over_at_once_is_not_judged() {
        let took = |ms| Outcome { cpu: Duration::from_millis(ms), ..Outcome::default() };
        assert_eq!(judged(100, took(290)), "");
        assert_eq!(judged(100, took(390)), "NOT LINEAR");
        assert_eq!(judged(4, took(16)), "");
    }

    #[test]
    fn memory_idle_time_and_waits_have_bounds() {
        let fine = Outcome { grown_bytes: Some(1e6 + 25_000.0 * 1_000.0), idle_cpu: Some(0.01), ..Outcome::default() };
        assert_eq!(judged(1, fine), "");
        assert_eq!(judged(1, Outcome { grown_bytes: Some(1e6 + 25_000.0 * 1_050.0), ..fine }), "TOO MUCH MEMORY");
        assert_eq!(judged(1, Outcome { idle_cpu: Some(0.05), ..fine }), "NOT IDLE");
        let beside = Some((Duration::from_millis(1), Duration::from_millis(300)));
        assert_eq!(judged(1, Outcome { beside, ..fine }), "OTHERS WAIT TOO LONG");
    }
}
