//! `record`: plays the matrix against a real RabbitMQ and keeps what it answered.

use std::process::ExitCode;

use access::matrix;
use conformance::Error;
use harness::{Broker, RabbitMq};

/// Where the recording is kept.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded/matrix.txt");

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("record") => record(),
        _ => Err(Error::new("usage: access record")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn record() -> Result<(), Error> {
    let mut broker = RabbitMq::start()?;
    let port = broker.amqp_port();
    let played = matrix::to_text(&matrix::play(&mut broker, port)?);
    std::fs::write(RECORDED, &played).map_err(|error| Error::new(format!("{RECORDED}: {error}")))?;
    let same = played == matrix::to_text(&matrix::expected());
    println!(
        "{} operations recorded; the table says {}",
        matrix::OPERATIONS.len(),
        if same { "the same" } else { "something else" }
    );
    Ok(())
}
