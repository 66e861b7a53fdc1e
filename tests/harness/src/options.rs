//! How a broker is started.

use std::path::PathBuf;

/// What a test may ask for when it starts a broker; the default is an empty broker with a temporary data directory.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(crate) conf: String,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) arguments: Vec<String>,
    pub(crate) plugins: Vec<String>,
    pub(crate) amqp_port: Option<u16>,
}

impl Options {
    /// Adds lines to the configuration file (`key = value`, the same keys for brokerd and RabbitMQ).
    #[must_use]
    pub fn conf(mut self, lines: &str) -> Self {
        self.conf.push_str(lines);
        self.conf.push('\n');
        self
    }

    /// Keeps the data in this directory, which outlives the broker handle; otherwise it is temporary.
    #[must_use]
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Sets an environment variable of the broker process.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts this program instead of the brokerd that would be found; RabbitMQ ignores it.
    #[must_use]
    pub fn binary(mut self, program: impl Into<PathBuf>) -> Self {
        self.binary = Some(program.into());
        self
    }

    /// Adds a command line argument of brokerd; RabbitMQ ignores it.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Enables a plugin that comes with RabbitMQ; brokerd has none and ignores it.
    #[must_use]
    pub fn plugin(mut self, name: &str) -> Self {
        self.plugins.push(name.to_owned());
        self
    }

    /// Listens for AMQP on this port instead of a free one; for clients that know no other than 5672, which then run with
    /// the broker in a network of their own.
    #[must_use]
    pub fn amqp_port(mut self, port: u16) -> Self {
        self.amqp_port = Some(port);
        self
    }
}
