//! `cluster-sim [--seeds N] [--from SEED] [--broken RULE] [--faults SECONDS]`: lives through many seeds, each in a process of its own, and says in which a
//! promise was broken. `cluster-sim one SEED [--broken RULE] [--faults SECONDS] [--trace]`: one seed. Things go wrong for so many seconds.

use std::process::ExitCode;
use std::{fs, io};

use cluster_sim::broken::Broken;
use cluster_sim::world::{self, FAULTS_MS};
use cluster_sim::{disks_of, in_a_process};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let known = ["--seeds", "--from", "--faults", "--broken", "--trace"];
    if let Some(unknown) =
        arguments.iter().find(|argument| argument.starts_with('-') && !known.contains(&argument.as_str()))
    {
        eprintln!("{unknown} is no option; there are {known:?}, and `one SEED` before them");
        return ExitCode::from(2);
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let rule = value("--broken");
    let broken = rule.as_deref().and_then(Broken::of);
    if rule.is_some() && broken.is_none() {
        eprintln!("rules that can be broken: {:?}", Broken::ALL.iter().map(|(name, _)| name).collect::<Vec<_>>());
        return ExitCode::from(2);
    }
    if let [command, seed, ..] = arguments.as_slice()
        && command == "one"
        && let Ok(seed) = seed.parse()
    {
        let faults_ms = value("--faults")
            .and_then(|seconds| seconds.parse().ok())
            .map_or(FAULTS_MS, |seconds: u64| seconds * 1_000);
        return one(seed, broken, faults_ms, arguments.iter().any(|argument| argument == "--trace"));
    }
    let number = |name: &str, otherwise: u64| value(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise);
    let (from, seeds) = (number("--from", 0), number("--seeds", 100));
    let faults = value("--faults");
    let options = [("--broken", &rule), ("--faults", &faults)];
    let more: Vec<&str> =
        options.iter().filter_map(|(name, value)| Some([*name, value.as_deref()?])).flatten().collect();
    let mut bad = 0;
    for seed in from..from + seeds {
        match child(seed, &more) {
            Ok(true) => {}
            Ok(false) => bad += 1,
            Err(error) => {
                eprintln!("seed {seed} was not begun: {error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{seeds} seeds from {from}, {bad} broken");
    ExitCode::from(u8::from(bad > 0))
}

fn child(seed: u64, more: &[&str]) -> io::Result<bool> {
    let output = in_a_process(&std::env::current_exe()?, seed, more)?;
    if !output.status.success() {
        let told = [output.stdout, output.stderr].concat();
        print!("{}", String::from_utf8_lossy(&told));
        let more = more.join(" ");
        println!(
            "seed {seed} ended with {}; again: cargo run -p cluster-sim -- one {seed} {more} --trace",
            output.status
        );
    }
    Ok(output.status.success())
}

fn one(seed: u64, broken: Option<Broken>, faults_ms: u64, trace: bool) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().init();
    }
    let root = disks_of(std::process::id());
    // What is made of chance in this process comes after it, on a thread that has none yet: hash maps, Raft's timers, the choices of tokio.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let outcome = std::thread::scope(|scope| {
        let lived = scope.spawn(|| fs::create_dir_all(&root).and_then(|()| world::run(seed, broken, faults_ms, &root)));
        lived.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    });
    drop(fs::remove_dir_all(&root));
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            println!("seed {seed} was not lived through: {error}");
            return ExitCode::from(2);
        }
    };
    if trace {
        outcome.trace.iter().for_each(|line| println!("{line}"));
    }
    let (faults, acknowledged, confirmed) = (outcome.faults, outcome.acknowledged, outcome.confirmed);
    let snapshots = outcome.snapshots;
    println!(
        "seed {seed}: {faults} faults, {acknowledged} changes acknowledged, {confirmed} messages confirmed, {snapshots} snapshots sent"
    );
    match outcome.wrong {
        None => ExitCode::SUCCESS,
        Some(what) => {
            println!("seed {seed} broke a promise: {what}");
            ExitCode::FAILURE
        }
    }
}
