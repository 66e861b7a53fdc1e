//! What became of each test of a suite: lines of `outcome<TAB>name`, whatever wrote them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::Error;

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, hung, or took its program down.
    Failed,
    /// Its suite chose not to run it.
    Skipped,
}

/// The tests of a run by name.
pub type Outcomes = BTreeMap<String, Outcome>;

impl Outcome {
    const ALL: [Outcome; 3] = [Outcome::Passed, Outcome::Failed, Outcome::Skipped];

    fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The outcomes in a file; none when the file is not there, as when nothing ran yet.
pub fn read(path: &Path) -> Outcomes {
    parse(&fs::read_to_string(path).unwrap_or_default())
}

/// Adds outcomes to a file.
pub fn append(path: &Path, outcomes: &Outcomes) -> Result<(), Error> {
    let text: String = outcomes.iter().map(|(name, outcome)| format!("{outcome}\t{name}\n")).collect();
    let file = fs::File::options().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io(format!("writing {}", path.display())))
}

/// A test that one run reports twice has the worse of its outcomes.
pub fn parse(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for (word, name) in text.lines().filter_map(|line| line.split_once('\t')) {
        let Some(outcome) = Outcome::ALL.into_iter().find(|outcome| outcome.word() == word) else { continue };
        let known = outcomes.entry(name.to_owned()).or_insert(outcome);
        if outcome == Outcome::Failed {
            *known = outcome;
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_worse_of_two_outcomes_counts_and_other_lines_do_not() {
        let outcomes = parse("failed\ta\npassed\ta\npassed\tb\tc\nnoise\n");
        assert_eq!(outcomes.get("a"), Some(&Outcome::Failed));
        assert_eq!(outcomes.get("b\tc"), Some(&Outcome::Passed));
        assert_eq!(outcomes.len(), 2);
    }
}
