//! The daemon: arguments, configuration, log; then the node runs until it is told to stop.

use std::process::ExitCode;

use broker_server::args::Args;
use broker_server::config::{Environment, Loaded, load};
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
    let environment = Environment::of_process();
    let loaded = match load(&args, &environment) {
        Ok(loaded) => loaded,
        Err(errors) => return Failure::from(errors).report(),
    };
    if args.print_config {
        print!("{}", loaded.print());
        return ExitCode::SUCCESS;
    }
    match run(args, environment, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{}", failure.message);
            failure.report()
        }
    }
}

fn run(args: Args, environment: Environment, loaded: Loaded) -> Result<(), Failure> {
    let log = Log::start(&loaded.config.log)
        .map_err(|error| Failure::new(Code::CannotCreate, format!("cannot open the log: {error}")))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    node::run(&loaded.config, Reloader::new(args, environment, log))
}
