//! What can go wrong while a broker is started, stopped or measured.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the harness could not do what a test asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RabbitMQ is not on this machine; a test that needs it says so and is skipped only then.
    #[error("rabbitmq-server 3.10.8 is not installed ({missing} is missing); apt-get install rabbitmq-server")]
    RabbitMqNotInstalled {
        /// The file that was looked for.
        missing: PathBuf,
    },

    /// The program brokerd is nowhere; a test that needs it fails.
    #[error(
        "no brokerd to test: build it (cargo build -p broker-server) or name it in BROKERD_BIN; looked at {looked_at}"
    )]
    BrokerdMissing {
        /// The places that were tried.
        looked_at: String,
    },

    /// The program ended before it served.
    #[error("{program} ended with {status} before it answered on port {port}; its last words:\n{log}")]
    DiedAtStart {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The port that should have answered.
        port: u16,
        /// The end of its log.
        log: String,
    },

    /// The program runs but did not serve in time.
    #[error("{program} did not answer on port {port} within {waited:?}; its last words:\n{log}")]
    NoAnswer {
        /// The program.
        program: String,
        /// The port that should have answered.
        port: u16,
        /// How long the harness waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },

    /// The program did not stop in time.
    #[error("{program} did not stop within {waited:?} after SIGTERM; its last words:\n{log}")]
    DoesNotStop {
        /// The program.
        program: String,
        /// How long the harness waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },

    /// A measurement was asked of a program that is not running.
    #[error("{program} is not running")]
    NotRunning {
        /// The program.
        program: String,
    },

    /// No port was free.
    #[error("no free TCP port found on 127.0.0.1")]
    NoFreePort,

    /// A node that the cluster does not have, or a network that it is not in.
    #[error("{0}")]
    Mistake(String),

    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The refusal.
        source: io::Error,
    },
}

impl Error {
    /// An input/output error with what was being done.
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::Io { doing: doing.into(), source: source.into() }
    }
}
