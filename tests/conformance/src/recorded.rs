//! Kept transcripts: `recorded/SUBJECT/NAME.txt` as RabbitMQ 3.10.8 gave them, and `accepted/SUBJECT/NAME.txt` as brokerd
//! gives them where it differs on purpose.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Whose transcripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// RabbitMQ's, of every scenario.
    RabbitMqs,
    /// brokerd's, where it differs on purpose.
    Ours,
}

impl Whose {
    fn directory(self) -> PathBuf {
        let name = if self == Whose::RabbitMqs { "recorded" } else { "accepted" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    fn path(self, name: &str) -> PathBuf {
        self.directory().join(format!("{name}.txt"))
    }

    fn command(self) -> &'static str {
        if self == Whose::RabbitMqs { "record" } else { "pin" }
    }
}

/// The transcript of a scenario as it was kept.
pub fn load(whose: Whose, name: &str) -> Result<Vec<String>, Error> {
    let (path, command) = (whose.path(name), whose.command());
    let text = fs::read_to_string(&path).map_err(|error| {
        Error::new(format!("{}: {error}; make it: cargo run -p conformance -- {command} {name}", path.display()))
    })?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Keeps a transcript of a scenario.
pub fn store(whose: Whose, name: &str, transcript: &[String]) -> Result<(), Error> {
    let path = whose.path(name);
    let parent = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, transcript.join("\n") + "\n"));
    written.map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

/// The names of all scenarios of which a transcript is kept.
pub fn names(whose: Whose) -> Result<Vec<String>, Error> {
    let wrong = |error: std::io::Error| Error::new(format!("{}: {error}", whose.directory().display()));
    let mut names = Vec::new();
    for subject in fs::read_dir(whose.directory()).map_err(wrong)? {
        let subject = subject.map_err(wrong)?;
        for file in fs::read_dir(subject.path()).map_err(wrong)? {
            let file = file.map_err(wrong)?.file_name().to_string_lossy().into_owned();
            let name = file.strip_suffix(".txt").unwrap_or(&file);
            names.push(format!("{}/{name}", subject.file_name().to_string_lossy()));
        }
    }
    names.sort();
    Ok(names)
}

/// The differing lines of two transcripts under the steps where they occur; empty when they are equal.
pub fn difference(expected: &[String], got: &[String]) -> String {
    let (expected, got) = (blocks(expected), blocks(got));
    let mut text = String::new();
    for number in 0..expected.len().max(got.len()) {
        let empty = Vec::new();
        let (one, other) = (expected.get(number).unwrap_or(&empty), got.get(number).unwrap_or(&empty));
        if one == other {
            continue;
        }
        let step = one.first().or(other.first()).map(String::as_str).unwrap_or_default();
        text.push_str(&format!("  {step}\n"));
        one.iter().skip(1).for_each(|line| text.push_str(&format!("    expected {}\n", line.trim_start_matches("< "))));
        other
            .iter()
            .skip(1)
            .for_each(|line| text.push_str(&format!("    got      {}\n", line.trim_start_matches("< "))));
        if one.first() != other.first() {
            text.push_str("    (the steps differ: the recording is of another version of the scenario)\n");
        }
    }
    text
}

/// A transcript cut at its steps.
fn blocks(transcript: &[String]) -> Vec<Vec<String>> {
    transcript.chunk_by(|_, next| !next.starts_with("> ")).map(<[String]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differing_steps_are_shown() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let one = lines("> a\n< 1\n> b\n< 2\n< 3");
        assert_eq!(difference(&one, &one), "");
        let other = lines("> a\n< 1\n> b\n< 2");
        assert_eq!(difference(&one, &other), "  > b\n    expected 2\n    expected 3\n    got      2\n");
    }
}
