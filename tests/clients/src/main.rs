//! Runs the suites that clients publish with their packages against RabbitMQ and brokerd, and compares test by test.
//!
//! Each suite runs with its broker in a network and a process tree of its own (`unshare`), where the broker has port 5672, as many
//! suites expect, where nothing but the machine itself can be reached, and where everything ends when the suite does.

mod administration;
mod comparison;
mod error;
mod inside;
mod isolation;
mod notes;
mod outcomes;
mod places;
mod programs;
mod subject;
mod suites;

use std::process::ExitCode;

use clap::Parser;

use crate::comparison::Comparison;
use crate::error::Error;
use crate::notes::Notes;
use crate::subject::Subject;
use crate::suites::Suite;

#[derive(Debug, Parser)]
#[command(
    about = "Runs clients' own suites against RabbitMQ and brokerd; exit code 1 when a test that RabbitMQ passes fails on brokerd"
)]
struct Arguments {
    /// The suites to run; all when none is named.
    suites: Vec<String>,
    /// Run against this broker only; the other one's column is what its last run left.
    #[arg(long)]
    only: Option<Subject>,
    /// List the suites.
    #[arg(long)]
    list: bool,
    /// What the program calls itself with, in the network of a suite.
    #[arg(long, hide = true)]
    inside: Option<Subject>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("client-suites: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Error> {
    let suites = chosen(&arguments.suites)?;
    if arguments.list {
        suites.iter().for_each(|suite| println!("{:<12} {}", suite.name, suite.source));
        return Ok(true);
    }
    let left_out = Notes::read("left-out.txt")?;
    if let Some(subject) = arguments.inside {
        return suites.iter().try_for_each(|suite| inside::run(suite, subject, &left_out)).map(|()| true);
    }
    let accepted = Notes::read("accepted.txt")?;
    let mut comparisons = Vec::new();
    for suite in suites {
        for subject in Subject::BOTH.into_iter().filter(|subject| arguments.only.is_none_or(|only| only == *subject)) {
            eprintln!("client-suites: {} against {subject}", suite.name);
            isolation::run(suite, subject)?;
        }
        comparisons.push(Comparison::read(suite, &accepted, &left_out)?);
    }
    comparison::print(&comparisons);
    Ok(comparisons.iter().all(Comparison::holds))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Suite>, Error> {
    if names.is_empty() {
        return Ok(suites::ALL.iter().collect());
    }
    let find = |name: &String| suites::ALL.iter().find(|suite| suite.name == name);
    names.iter().map(|name| find(name).ok_or_else(|| Error::NoSuite { name: name.clone() })).collect()
}
