//! Strikes a broker under load, again and again, and checks what came back.
//!
//! `crash-rounds kill --rounds 200` or, as root, `crash-rounds powercut --rounds 50`. E2E_BROKER=rabbitmq strikes RabbitMQ.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use e2e::crash::{Campaign, Fault, KillNine, Outcome, PowerCut};

/// A round that says nothing is run again, this often in a row at most.
const INCONCLUSIVE_LIMIT: u32 = 2;
/// How many violations of a round are printed.
const PRINTED_VIOLATIONS: usize = 20;

/// Strikes a broker under load and checks that nothing confirmed is lost, doubled without flag, or out of order.
#[derive(Debug, Parser)]
struct Arguments {
    /// How to strike.
    fault: Kind,
    /// Rounds that must say something.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Decides when each strike comes; printed at the start.
    #[arg(long)]
    seed: Option<u64>,
}

/// The faults by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// kill -9 of the broker.
    Kill,
    /// The power of the data disk is cut.
    Powercut,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{} rounds, seed {seed}", arguments.rounds);
    let fault: Box<dyn Fault> = match arguments.fault {
        Kind::Kill => Box::new(KillNine::new().map_err(|error| error.to_string())?),
        Kind::Powercut => Box::new(PowerCut::new().map_err(|error| error.to_string())?),
    };
    let mut campaign = Campaign::start(fault, seed)?;
    let (mut sound, mut inconclusive, mut confirmed) = (0, 0, 0);
    while sound < arguments.rounds {
        let report = campaign.round().map_err(|error| post_mortem(&mut campaign, &error))?;
        println!("{report}");
        confirmed += report.confirmed;
        match report.outcome {
            Outcome::Sound => (sound, inconclusive) = (sound + 1, 0),
            Outcome::Inconclusive if inconclusive < INCONCLUSIVE_LIMIT => inconclusive += 1,
            Outcome::Inconclusive => return Err(post_mortem(&mut campaign, "too many inconclusive rounds")),
            Outcome::Broken(violations) => {
                let shown: Vec<String> = violations.into_iter().take(PRINTED_VIOLATIONS).collect();
                return Err(post_mortem(&mut campaign, &shown.join("\n")));
            }
        }
    }
    println!("{sound} rounds sound; {confirmed} publishes confirmed, none lost");
    Ok(())
}

fn post_mortem(campaign: &mut Campaign, why: &str) -> String {
    let tail = campaign.log_tail();
    format!("{why}\nthe broker's last words:\n{tail}\nits data is kept in {}", campaign.keep_data().display())
}
