//! The files in which people say why a test is left out (left-out.txt) or may differ (accepted.txt): `suite | test | reason`.

use std::fs;

use crate::error::Error;
use crate::places;
use crate::suites::{self, Suite};

/// The lines of such a file.
#[derive(Debug)]
pub struct Notes(Vec<Note>);

/// What is said about one test, or about all whose names begin with `test` when it ends in `*`.
#[derive(Debug)]
pub struct Note {
    suite: String,
    /// The test.
    pub test: String,
    /// Why.
    pub reason: String,
}

impl Notes {
    /// Reads a file of this crate's directory.
    pub fn read(file: &str) -> Result<Self, Error> {
        let path = places::sources().join(file);
        let text = fs::read_to_string(&path).map_err(Error::io(format!("reading {}", path.display())))?;
        Self::parse(file, &text)
    }

    /// What is said about the tests of a suite.
    pub fn of(&self, suite: &Suite) -> impl Iterator<Item = &Note> {
        self.0.iter().filter(|note| note.suite == suite.name)
    }

    /// What is said about one test.
    pub fn about(&self, suite: &Suite, test: &str) -> Option<&Note> {
        self.of(suite).find(|note| note.covers(test))
    }

    /// Reads the text of such a file.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let notes = lines.map(|(index, line)| {
            Note::parse(line).ok_or_else(|| Error::BadNote { file: file.to_owned(), line: index + 1 })
        });
        notes.collect::<Result<_, _>>().map(Notes)
    }
}

impl Note {
    /// True when this is about the test.
    pub fn covers(&self, test: &str) -> bool {
        self.test.strip_suffix('*').map_or(self.test == test, |beginning| test.starts_with(beginning))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, " | ").map(|field| field.trim().to_owned());
        let (suite, test, reason) = (fields.next()?, fields.next()?, fields.next()?);
        let known = suites::ALL.iter().any(|known| known.name == suite);
        (known && !test.is_empty() && !reason.is_empty()).then_some(Note { suite, test, reason })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_files_are_well_formed() {
        Notes::read("accepted.txt").unwrap();
        Notes::read("left-out.txt").unwrap();
    }

    #[test]
    fn a_note_needs_a_suite_a_test_and_a_reason() {
        let parse = |line| Notes::parse("file", line);
        assert!(parse("# words\n\nlapin | a | because").is_ok());
        assert!(parse("lapin | a").is_err());
        assert!(parse("lapin | a | ").is_err());
        assert!(parse("nobody | a | because").is_err());
    }

    #[test]
    fn a_star_covers_what_begins_so() {
        let note = Note::parse("lapin | a::* | because").unwrap();
        assert!(note.covers("a::b"));
        assert!(!note.covers("b::a::"));
        assert!(!Note::parse("lapin | a | because").unwrap().covers("ab"));
    }
}
