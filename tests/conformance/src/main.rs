//! Lists, records, compares and runs scenarios from the command line.

use std::process::ExitCode;

use conformance::recorded::Whose;
use conformance::suite::{self, Played};
use conformance::{Error, accepted, awaited, page, recorded, script};

const USAGE: &str = "usage: conformance list [FILTER]
       conformance record [FILTER]        record against a real RabbitMQ 3.10.8, each scenario twice
       conformance compare [FILTER]       RabbitMQ and brokerd live
       conformance ours [FILTER]          brokerd against the recordings
       conformance pin [FILTER]           keep brokerd's answers where they differ and accepted.txt says so
       conformance awaited                strike off awaited.txt what brokerd passes, update docs/compatibility.md
       conformance run --port P [FILTER]  whatever listens on 127.0.0.1:P against the recordings";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["list", filter @ ..] => list(filter),
        ["record", filter @ ..] => record(filter),
        ["compare", filter @ ..] => compare(filter),
        ["ours", filter @ ..] => ours(filter),
        ["pin", filter @ ..] => pin(filter),
        ["awaited"] => strike_off(),
        ["run", "--port", port, filter @ ..] => run(port, filter),
        _ => Err(Error::new(USAGE)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn list(filter: &[&str]) -> Result<bool, Error> {
    for scenario in script::matching(&filter.join(" "))? {
        println!("{}", scenario.name);
    }
    Ok(true)
}

/// Plays everything twice; only what was the same both times is kept.
fn record(filter: &[&str]) -> Result<bool, Error> {
    let scenarios = script::matching(&filter.join(" "))?;
    let mut broker = suite::rabbitmq()?;
    let first = suite::against(&scenarios, &mut broker);
    let second = suite::against(&scenarios, &mut broker);
    let mut stable = 0;
    for (one, other) in first.iter().zip(&second) {
        match (&one.transcript, &other.transcript) {
            (Ok(one_lines), Ok(other_lines)) if one_lines == other_lines => {
                recorded::store(Whose::RabbitMqs, &one.name, one_lines)?;
                stable += 1;
            }
            (Ok(one_lines), Ok(other_lines)) => {
                println!("UNSTABLE {}\n{}", one.name, recorded::difference(one_lines, other_lines));
            }
            (Err(error), _) | (_, Err(error)) => println!("FAILED {error}"),
        }
    }
    println!("{stable} of {} scenarios recorded", scenarios.len());
    print_slowest(&second);
    Ok(stable == scenarios.len())
}

fn compare(filter: &[&str]) -> Result<bool, Error> {
    let scenarios = script::matching(&filter.join(" "))?;
    let theirs = suite::against(&scenarios, &mut suite::rabbitmq()?);
    let ours = suite::against(&scenarios, &mut suite::brokerd()?);
    let expected: Vec<_> = theirs.into_iter().map(|played| played.transcript).collect();
    report(&ours, &mut expected.into_iter())
}

fn ours(filter: &[&str]) -> Result<bool, Error> {
    let scenarios = script::matching(&filter.join(" "))?;
    let ours = suite::against(&scenarios, &mut suite::brokerd()?);
    report(&ours, &mut ours.iter().map(|played| recorded::load(Whose::RabbitMqs, &played.name)))
}

fn pin(filter: &[&str]) -> Result<bool, Error> {
    let accepted = accepted::all()?;
    let mut scenarios = script::matching(&filter.join(" "))?;
    scenarios.retain(|scenario| accepted.iter().any(|(name, _)| *name == scenario.name));
    for played in suite::against(&scenarios, &mut suite::brokerd()?) {
        recorded::store(Whose::Ours, &played.name, &played.transcript?)?;
    }
    println!("{} scenarios pinned", scenarios.len());
    Ok(true)
}

fn strike_off() -> Result<bool, Error> {
    let done = suite::awaited(&script::all()?, &mut suite::brokerd()?);
    done.iter().for_each(|line| println!("{line}"));
    println!("{} of {} lines struck off", done.len(), awaited::all().len());
    awaited::store(&awaited::without(&done))?;
    let left: Vec<&str> = awaited::all().into_iter().filter(|line| !done.contains(line)).collect();
    let accepted: Vec<&str> = accepted::all()?.into_iter().map(|(name, _)| name).collect();
    page::store(&page::with_status(&page::load()?, &left, &accepted))?;
    Ok(true)
}

fn run(port: &str, filter: &[&str]) -> Result<bool, Error> {
    let port = port.parse().map_err(|_| Error::new(format!("not a port: {port}")))?;
    let scenarios = script::matching(&filter.join(" "))?;
    let played = suite::alone(&scenarios, &[port]);
    println!("{} scenarios that need an administrator or a restart are left out", scenarios.len() - played.len());
    report(&played, &mut played.iter().map(|played| recorded::load(Whose::RabbitMqs, &played.name)))
}

/// Prints every difference and says whether there was none but accepted ones.
fn report(played: &[Played], expected: &mut dyn Iterator<Item = Result<Vec<String>, Error>>) -> Result<bool, Error> {
    let accepted = accepted::all()?;
    let (mut same, mut kept) = (0, 0);
    for (played, expected) in played.iter().zip(expected) {
        let words = match (&played.transcript, &expected) {
            (Ok(got), Ok(expected)) => recorded::difference(expected, got),
            (Err(error), _) | (_, Err(error)) => format!("  {error}\n"),
        };
        if words.is_empty() {
            same += 1;
        } else if accepted.iter().any(|(name, _)| *name == played.name) {
            kept += 1;
        } else {
            println!("DIFFERENT {}\n{words}", played.name);
        }
    }
    println!("{same} of {} scenarios agree, {kept} differences are accepted", played.len());
    print_slowest(played);
    Ok(same + kept == played.len())
}

fn print_slowest(played: &[Played]) {
    let mut by_time: Vec<&Played> = played.iter().collect();
    by_time.sort_by_key(|played| std::cmp::Reverse(played.took));
    let total: std::time::Duration = played.iter().map(|played| played.took).sum();
    let slowest: Vec<String> = by_time.iter().take(8).map(|one| format!("{} {:.1?}", one.name, one.took)).collect();
    println!("{total:.1?} in all; slowest: {}", slowest.join(", "));
}
