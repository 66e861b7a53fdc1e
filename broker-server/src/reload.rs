//! What SIGHUP does: the configuration is read again for what can change while running.

use crate::args::Args;
use crate::config::{Config, Environment, load};
use crate::logging::Log;

/// Reads the configuration again from where it was read at the start.
#[derive(Debug)]
pub struct Reloader {
    args: Args,
    environment: Environment,
    log: Log,
}

impl Reloader {
    /// Remembers where the configuration came from, and the log whose levels can change.
    #[must_use]
    pub fn new(args: Args, environment: Environment, log: Log) -> Self {
        Self { args, environment, log }
    }

    /// Takes over the log levels and opens the log file anew, and gives the configuration for others to take from. One
    /// with errors changes nothing; its errors go to the log.
    pub fn reload(&self) -> Option<Config> {
        let loaded = match load(&self.args, &self.environment) {
            Ok(loaded) => loaded,
            Err(errors) => {
                for complaint in errors.0 {
                    tracing::error!("configuration not read again: {complaint}");
                }
                return None;
            }
        };
        match self.log.reload(&loaded.config.log) {
            Ok(()) => {
                tracing::info!(
                    "read log levels and TLS options again and reopened the log file; other changes need a restart"
                )
            }
            Err(error) => tracing::error!(%error, "cannot reopen the log file; the old one is kept"),
        }
        Some(loaded.config)
    }
}
