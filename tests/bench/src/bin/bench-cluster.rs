//! `bench-cluster`: three nodes of ours as a cluster beside three of RabbitMQ 3.10.8. It ends by itself, with an error if something could not be measured.

use std::process::ExitCode;

use bench::cluster;
use clap::Parser;

fn main() -> ExitCode {
    match cluster::run(&cluster::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}
