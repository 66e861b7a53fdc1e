//! Command line flags of brokerd.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

/// A message broker that speaks AMQP 0-9-1. Without flags it serves port 5672 and keeps its data in ./data.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "brokerd", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file in RabbitMQ's `key = value` format; conf.d/*.conf beside it is read too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of all data, created if missing [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print the configuration in effect, where each value comes from, and exit
    #[arg(long)]
    pub print_config: bool,
}

const AFTER_HELP: &str = "\
Environment: RABBITMQ_CONFIG_FILE, RABBITMQ_NODE_PORT, RABBITMQ_DEFAULT_USER and others of RabbitMQ's image;
BROKER__SECTION__KEY for any key (BROKER__LOG__CONSOLE__LEVEL=debug). Flags win over the environment, which
wins over files. The keys are listed in docs/operating/configuration.md.
Signals: SIGTERM and SIGINT shut down, SIGHUP reads log levels, certificates and definitions again, SIGUSR1 logs the state of the node.";

impl Args {
    /// Reads the arguments, the program's name first.
    ///
    /// # Errors
    /// A wrong flag, or the text of `--help` or `--version`: [`clap::Error::use_stderr`] tells which.
    pub fn read<I>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator,
        I::Item: Into<OsString> + Clone,
    {
        Self::try_parse_from(arguments)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_are_read_and_none_is_needed() {
        let args = Args::read(["brokerd", "--config", "a.conf", "--data-dir=d", "--print-config"]).unwrap();
        assert_eq!(args.config, Some("a.conf".into()));
        assert_eq!(args.data_dir, Some("d".into()));
        assert!(args.print_config);
        let none = Args::read(["brokerd"]).unwrap();
        assert!(none.config.is_none() && none.data_dir.is_none() && !none.print_config);
    }

    #[test]
    fn a_wrong_flag_is_an_error_and_help_is_not() {
        assert!(Args::read(["brokerd", "--nope"]).unwrap_err().use_stderr());
        assert!(!Args::read(["brokerd", "--help"]).unwrap_err().use_stderr());
    }
}
