//! The scenarios that brokerd does not pass yet: `awaited.txt`, a line each, `subject/name` or `subject/*`.
//!
//! The list may only shrink: a scenario on it that passes must be struck off, and what is not on it must pass.

use std::fs;
use std::path::Path;

use crate::Error;
use crate::recorded::{self, Whose};
use crate::suite::Played;

/// The lines of the list.
pub fn all() -> Vec<&'static str> {
    let lines = include_str!("../awaited.txt").lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// True when a line names the scenario or its whole subject.
pub fn covers(line: &str, scenario: &str) -> bool {
    match line.strip_suffix('*') {
        Some(subject) => subject.ends_with('/') && scenario.starts_with(subject),
        None => line == scenario,
    }
}

/// True when brokerd does not pass the scenario yet.
pub fn names(scenario: &str) -> bool {
    all().into_iter().any(|line| covers(line, scenario))
}

/// The lines of which every scenario was played as it is recorded.
pub fn done(played: &[Played]) -> Vec<&'static str> {
    let passes = |played: &&Played| match (&played.transcript, recorded::load(Whose::RabbitMqs, &played.name)) {
        (Ok(got), Ok(expected)) => *got == expected,
        _ => false,
    };
    all()
        .into_iter()
        .filter(|line| played.iter().filter(|one| covers(line, &one.name)).all(|one| passes(&one)))
        .collect()
}

/// The list without the lines that are done, its comments kept.
pub fn without(done: &[&str]) -> String {
    let left = include_str!("../awaited.txt").lines().filter(|line| !done.contains(&line.trim()));
    left.map(|line| format!("{line}\n")).collect()
}

/// Writes the list anew.
pub fn store(text: &str) -> Result<(), Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("awaited.txt");
    fs::write(&path, text).map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_subject() {
        assert!(covers("dead_letter/*", "dead_letter/expired"));
        assert!(!covers("dead_letter/*", "dead_letters/expired"));
        assert!(!covers("dead*", "dead_letter/expired"));
        assert!(covers("ttl/zero", "ttl/zero") && !covers("ttl/zero", "ttl/zero_again"));
    }
}
