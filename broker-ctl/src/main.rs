//! The program: `brokerctl NOUN VERB`, `brokerctl compat rabbitmqctl COMMAND`, or, called as `rabbitmqctl`, the latter.

use std::process::ExitCode;

use broker_ctl::{compat, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    match compat::arguments_of(&arguments) {
        Some(rest) => compat::main(&rest),
        None => run::main(&arguments),
    }
}
