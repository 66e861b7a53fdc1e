//! `bench-scale`: many small things at once, and whether twice as many take twice as long. It ends by itself, with an error if something does not hold.

use std::process::ExitCode;

use bench::scale;
use clap::Parser;

fn main() -> ExitCode {
    match scale::run(&scale::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-scale: {error}");
            ExitCode::FAILURE
        }
    }
}
