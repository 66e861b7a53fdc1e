//! `sim store [--seeds N] [--from SEED] [--faults crashes|errors|rot]`: lives through many seeds and says which ones broke a promise.
//! `sim operations [--operations N] [--seed S] [--from OPERATION | --only OPERATION,...]`: catalog, queues and access beside their model.
//! `sim store-child DIR`: what tests/crash_points.rs kills.

use std::process::ExitCode;
use std::time::Instant;

use sim::store::{Faults, run};

/// Operations between two lines of progress.
const PROGRESS_EVERY: u64 = 500_000;
/// Lives after which the allocator has what it needs.
const SETTLED_AFTER: u64 = 10;
/// What may be resident at the end beyond what was then.
const GROWN_MAX_KIB: u64 = 8 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    if let [command, dir] = arguments.as_slice()
        && command == "store-child"
    {
        return match sim::store::child::live(dir.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                eprintln!("{what}");
                ExitCode::FAILURE
            }
        };
    }
    let command = arguments.first().map(String::as_str);
    if !matches!(command, Some("store" | "operations")) {
        eprintln!("usage: sim store [--seeds N] [--from SEED] [--faults crashes|errors|rot]");
        eprintln!("       sim operations [--operations N] [--seed S] [--from OPERATION | --only OPERATION,...]");
        return ExitCode::from(2);
    }
    let number = |name: &str, otherwise: u64| value(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise);
    if command == Some("operations") {
        let seed = number("--seed", 0);
        return match value("--only") {
            Some(steps) => operations_only(seed, &steps),
            None => operations(seed, number("--from", 0), number("--operations", 1_000_000)),
        };
    }
    let (from, seeds) = (number("--from", 0), number("--seeds", 1000));
    let faults: Vec<Faults> = match value("--faults").as_deref() {
        Some("crashes") => vec![Faults::Crashes],
        Some("errors") => vec![Faults::Errors],
        Some("rot") => vec![Faults::Rot],
        _ => vec![Faults::Crashes, Faults::Errors, Faults::Rot],
    };
    let mut broken = 0;
    let mut recovered = 0;
    for seed in from..from + seeds {
        for &faults in &faults {
            match run(seed, faults) {
                Ok(outcome) => recovered += outcome.recovered,
                Err(what) => {
                    broken += 1;
                    println!("{what}");
                }
            }
        }
    }
    println!("{seeds} seeds, {recovered} messages recovered, {broken} broken");
    ExitCode::from(u8::from(broken > 0))
}

fn operations(seed: u64, from: u64, operations: u64) -> ExitCode {
    let began = Instant::now();
    let (mut lives, mut first, mut last) = (0_u64, None, 0);
    let outcome = sim::state::run(seed, from, operations, &mut |done| {
        (lives, last) = (lives + 1, resident_kib());
        if lives == SETTLED_AFTER {
            first = Some(last);
        }
        if done % PROGRESS_EVERY == 0 {
            println!("{done} operations, {:.0} s, {last} KiB resident", began.elapsed().as_secs_f64());
        }
    });
    let tally = match outcome {
        Ok(tally) => tally,
        Err(what) => {
            println!("{what}");
            return ExitCode::FAILURE;
        }
    };
    let (seconds, first) = (began.elapsed().as_secs_f64(), first.unwrap_or(last));
    println!(
        "seed {seed}: {operations} operations without a difference, {:.0} each second",
        operations as f64 / seconds
    );
    println!("{tally:?}");
    println!("resident: {first} KiB after {SETTLED_AFTER} lives, {last} KiB at the end");
    if last > first + GROWN_MAX_KIB {
        println!("that is {GROWN_MAX_KIB} KiB more or worse: something is not given back");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Does some operations only, and tells them.
fn operations_only(seed: u64, steps: &str) -> ExitCode {
    let steps: Result<Vec<u64>, _> = steps.split(',').map(str::parse).collect();
    let Ok(steps) = steps else {
        eprintln!("--only takes numbers of operations, with commas between them");
        return ExitCode::from(2);
    };
    let (told, outcome) = sim::state::run_only(seed, &steps);
    told.iter().for_each(|line| println!("{line}"));
    match outcome {
        Ok(tally) => {
            println!("no difference: {tally:?}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// What the kernel says of this process's memory; 0 where it says nothing.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}
