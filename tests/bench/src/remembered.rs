//! Figures of the other brokers from an earlier bench on this machine, for those who work on ours and measure it often.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::brokers::Kind;
use crate::workload::{Metric, Metrics};

/// The file, and what stands in it.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    rounds: BTreeMap<String, Vec<(Metric, f64)>>,
}

impl Remembered {
    /// Reads the file in the system's temporary directory; without one, nothing is remembered.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn load() -> io::Result<Self> {
        let path = std::env::temp_dir().join("bench-remembered.json");
        let rounds = match fs::read(&path) {
            Ok(octets) => serde_json::from_slice(&octets)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, rounds })
    }

    /// What was measured last.
    #[must_use]
    pub fn find(&self, workload: &str, kind: Kind) -> Option<Metrics> {
        self.rounds.get(&key(workload, kind)).map(|metrics| metrics.iter().copied().collect())
    }

    /// Keeps what was measured.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&mut self, workload: &str, kind: Kind, metrics: &Metrics) -> io::Result<()> {
        self.rounds.insert(key(workload, kind), metrics.iter().map(|(metric, value)| (*metric, *value)).collect());
        fs::write(&self.path, serde_json::to_vec(&self.rounds)?)
    }
}

fn key(workload: &str, kind: Kind) -> String {
    format!("{workload}/{kind}")
}
