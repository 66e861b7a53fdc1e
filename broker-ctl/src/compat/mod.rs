//! The words of `rabbitmqctl`: its commands, options, output and exit codes, so that scripts written for it run unchanged.

mod checks;
mod cluster;
mod commands;
mod lists;
mod words;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use proto::admin::v1::Reason;

use crate::exit::{Exit, Failure};
use words::Words;

/// The tool that is spoken as.
const TOOL: &str = "rabbitmqctl";
/// The same commands are taken under this name, which its checks have there.
const DIAGNOSTICS: &str = "rabbitmq-diagnostics";

/// What follows the name of the tool, if the program was called by it.
pub fn arguments_of(arguments: &[String]) -> Option<Vec<String>> {
    let (program, rest) = arguments.split_first()?;
    let name = Path::new(program).file_name()?;
    [TOOL, DIAGNOSTICS].iter().any(|tool| name == OsStr::new(tool)).then(|| rest.to_vec())
}

/// What follows `brokerctl compat`: the tool's name first.
pub fn from_words(words: &[String]) -> ExitCode {
    match words.split_first() {
        Some((tool, rest)) if tool == TOOL || tool == DIAGNOSTICS => main(rest),
        Some((tool, _)) => {
            let text = format!("there is no '{tool}' here; only {TOOL} and {DIAGNOSTICS} are spoken");
            end(&Failure::usage(text), false)
        }
        None => end(&Failure::usage(format!("usage: brokerctl compat {TOOL} COMMAND ...")), false),
    }
}

/// Runs a command of the old tool.
pub fn main(arguments: &[String]) -> ExitCode {
    let result = Words::parse(arguments).and_then(|words| commands::run(&words));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure, true),
    }
}

fn end(failure: &Failure, as_rabbitmq: bool) -> ExitCode {
    let Failure { exit, text, reason } = failure;
    // There is nobody left to tell if standard error is gone.
    let _ = match reason {
        // RabbitMQ says this one without a heading.
        Some(Reason::NoSuchVhost) if *exit == Exit::Data => writeln!(io::stderr(), "{text}"),
        _ if as_rabbitmq && *exit != Exit::Usage => writeln!(io::stderr(), "Error:\n{text}"),
        _ => writeln!(io::stderr(), "Error: {text}"),
    };
    ExitCode::from(*exit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_it_was_called_by_decides() {
        let called = |program: &str| arguments_of(&[program.to_owned(), "status".to_owned()]);
        assert_eq!(called("/usr/sbin/rabbitmqctl"), Some(vec!["status".to_owned()]));
        assert_eq!(called("rabbitmq-diagnostics"), Some(vec!["status".to_owned()]));
        assert_eq!(called("brokerctl"), None);
    }
}
