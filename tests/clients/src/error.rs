//! What can go wrong around a suite; what goes wrong in it is an outcome.

use std::io;

/// Why a suite could not be run or judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No suite has this name.
    #[error("no suite {name}; --list names them")]
    NoSuite {
        /// The name asked for.
        name: String,
    },

    /// A line of accepted.txt or left-out.txt is not `suite | test | reason`, or names no suite.
    #[error("{file}:{line}: not `suite | test | reason` with a suite that exists")]
    BadNote {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
    },

    /// The broker did not start.
    #[error("{0}")]
    Harness(#[from] harness::Error),

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
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }
}
