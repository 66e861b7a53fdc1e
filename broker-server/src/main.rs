//! The daemon: arguments, configuration, log; then the node runs until it is told to stop.

use std::io::{self, Write};
use std::process::ExitCode;

use broker_server::args::Args;
use broker_server::config::{Environment, load};
use broker_server::exit::{Code, Failure, end_on_panic, of_arguments};
use broker_server::logging::Log;
use broker_server::node;
use broker_server::reload::Reloader;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    end_on_panic();
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return of_arguments(&error),
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let loaded = load(&args, &environment)?;
    if args.print_config {
        let written = io::stdout().write_all(loaded.print().as_bytes());
        return written.map_err(|error| Failure::new(Code::Io, format!("cannot write to standard output: {error}")));
    }
    let log = Log::start(&loaded.config.log)
        .map_err(|error| Failure::new(Code::CannotCreate, format!("cannot open the log: {error}")))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    node::run(&loaded.config, Reloader::new(args, environment, log))
}
