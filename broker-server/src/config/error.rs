//! What is wrong with a configuration, and where it was said.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a configuration file; lines count from 1.
    File {
        /// The file.
        path: Arc<PathBuf>,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A command line flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(flag) => write!(formatter, "flag {flag}"),
        }
    }
}

/// One complaint: an error if it stands in [`ConfigErrors`], a warning if it stands in `Loaded::warnings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where it was said.
    pub origin: Origin,
    /// What is wrong and what to do; never holds the value of a secret.
    pub text: String,
}

impl Complaint {
    /// A complaint about what `origin` said.
    pub fn new(origin: &Origin, text: impl Into<String>) -> Self {
        Self { origin: origin.clone(), text: text.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.origin, self.text)
    }
}

/// Everything that is wrong with a configuration, all at once; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Complaint>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(formatter, "{count} configuration error{}", if count == 1 { "" } else { "s" })?;
        for complaint in &self.0 {
            write!(formatter, "\n  {complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
