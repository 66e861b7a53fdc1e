//! The same scenario against RabbitMQ 3.10.8 and ours; the frame transcripts compared.
//!
//! A *scenario* is a few lines of text in `scenarios/SUBJECT.txt` ([`script`] explains the language). [`play`] carries it
//! out over sockets of its own, with its own codec ([`wire`], [`table`], [`frame`]) that can also send what no client
//! library would, and writes a *transcript*: every line of the scenario, each followed by what the broker answered.
//! What must differ between two runs (generated names, the product's name) is replaced first ([`normalise`]).
//! Transcripts of RabbitMQ 3.10.8 live in `recorded/SUBJECT/NAME.txt` ([`recorded`]), so that comparing needs no Erlang.
//!
//! ```text
//! cargo test -p conformance                 brokerd against the recordings
//! cargo run -p conformance -- list          the names of all scenarios
//! cargo run -p conformance -- record q      record again, against a real RabbitMQ, those whose name contains q
//! cargo run -p conformance -- compare q     both brokers live
//! cargo run -p conformance -- ours q        brokerd live against the recordings
//! cargo run -p conformance -- awaited       strikes off awaited.txt what passes by now, and brings docs/compatibility.md up to date
//! cargo run -p conformance -- pin           what brokerd answers where accepted.txt lets it differ
//! cargo run -p conformance -- run --port N  any broker against the recordings
//! ```

pub mod accepted;
pub mod awaited;
pub mod client;
pub mod frame;
pub mod normalise;
pub mod operator;
pub mod page;
pub mod play;
pub mod recorded;
pub mod script;
pub mod spec;
pub mod suite;
pub mod table;
pub mod text;
pub mod wire;

/// A mistake in a scenario, a missing file, or a broker that could not be reached; never a broker's wrong answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Error {
    /// An error with what is wrong, in words.
    pub fn new(words: impl Into<String>) -> Self {
        Error(words.into())
    }
}

impl From<harness::Error> for Error {
    fn from(error: harness::Error) -> Self {
        Error(error.to_string())
    }
}
