//! The daemon: arguments, configuration, log; then the node runs until it is told to stop.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use broker_server::args::Args;
use broker_server::config::{Environment, load};
use broker_server::exit::{Code, Failure, end_on_panic, of_arguments};
use broker_server::logging::Log;
use broker_server::node::{self, Ending};
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
        Ok(Ending::Stopped) => ExitCode::SUCCESS,
        Ok(Ending::Again) => start_again().report(),
        Err(failure) => failure.report(),
    }
}

/// Becomes the same program with the same arguments: the process keeps its number, and whoever watches over it notices nothing. Returns only if that failed.
fn start_again() -> Failure {
    let failed = |error: io::Error| Failure::new(Code::Software, format!("cannot start again: {error}. Start brokerd"));
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(error),
    };
    // Of a program that was replaced while it ran, Linux says so behind its name.
    let renewed = program.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "brokerd".into());
    failed(Command::new(renewed.unwrap_or(program)).arg0(name).args(arguments).exec())
}

fn run(args: Args) -> Result<Ending, Failure> {
    let environment = Environment::of_process();
    let loaded = load(&args, &environment)?;
    if args.print_config {
        let written = io::stdout().write_all(loaded.print().as_bytes());
        written.map_err(|error| Failure::new(Code::Io, format!("cannot write to standard output: {error}")))?;
        return Ok(Ending::Stopped);
    }
    let log = Log::start(&loaded.config.log)
        .map_err(|error| Failure::new(Code::CannotCreate, format!("cannot open the log: {error}")))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    node::run(&loaded.config, Reloader::new(args, environment, log))
}
