//! `sim store [--seeds N] [--from SEED] [--faults crashes|errors|rot]`: lives through many seeds and says which ones broke a promise.
//! `sim store-child DIR`: what tests/crash_points.rs kills.

use std::process::ExitCode;

use sim::store::{Faults, run};

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
    if arguments.first().map(String::as_str) != Some("store") {
        eprintln!("usage: sim store [--seeds N] [--from SEED] [--faults crashes|errors|rot]");
        return ExitCode::from(2);
    }
    let number = |name: &str, otherwise: u64| value(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise);
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
