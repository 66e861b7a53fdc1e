//! The differences from RabbitMQ that we keep on purpose: `accepted.txt`, a line each, `scenario: reason`.

use crate::Error;

/// Scenario and reason of every accepted difference.
pub fn all() -> Result<Vec<(&'static str, &'static str)>, Error> {
    let lines = include_str!("../accepted.txt").lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair =
        |line: &'static str| line.split_once(": ").ok_or_else(|| Error::new(format!("not scenario: reason: {line}")));
    lines.map(pair).collect()
}
