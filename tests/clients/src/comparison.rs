//! The outcomes of a suite on both brokers, side by side.

use crate::error::Error;
use crate::isolation::THE_RUN;
use crate::notes::{Note, Notes};
use crate::outcomes::{self, Outcome, Outcomes};
use crate::places;
use crate::subject::Subject;
use crate::suites::Suite;

/// What both brokers made of a suite.
pub struct Comparison<'a> {
    suite: &'a Suite,
    rabbitmq: Outcomes,
    brokerd: Outcomes,
    accepted: &'a Notes,
    left_out: &'a Notes,
}

impl<'a> Comparison<'a> {
    /// From the files that the last runs left; tests that are left out meanwhile do not count.
    pub fn read(suite: &'a Suite, accepted: &'a Notes, left_out: &'a Notes) -> Result<Self, Error> {
        let read = |subject| {
            let mut outcomes = outcomes::read(&places::outcomes(suite, subject));
            outcomes.retain(|test, _| left_out.about(suite, test.split('[').next().unwrap_or(test)).is_none());
            outcomes.retain(|test, _| left_out.about(suite, test).is_none());
            outcomes
        };
        let (rabbitmq, brokerd) = (read(Subject::RabbitMq), read(Subject::Brokerd));
        Ok(Comparison { suite, rabbitmq, brokerd, accepted, left_out })
    }

    /// False when a test that RabbitMQ passes does not pass on brokerd and accepted.txt does not say why, and when the run
    /// against RabbitMQ says nothing because it did not come to its end.
    pub fn holds(&self) -> bool {
        self.rabbitmq.get(THE_RUN) == Some(&Outcome::Passed)
            && self.regressions().all(|test| self.accepted(test).is_some())
    }

    /// Tests that RabbitMQ passes and brokerd does not, even when it never came to them.
    fn regressions(&self) -> impl Iterator<Item = &str> {
        let passed = self.rabbitmq.iter().filter(|(_, outcome)| **outcome == Outcome::Passed);
        passed.map(|(test, _)| test.as_str()).filter(|test| self.brokerd.get(*test) != Some(&Outcome::Passed))
    }

    fn accepted(&self, test: &str) -> Option<&Note> {
        self.accepted.about(self.suite, test)
    }

    fn print_names(&self) {
        if !self.rabbitmq.is_empty() && self.brokerd.keys().all(|test| test == THE_RUN) {
            let log = places::run_directory(self.suite, Subject::Brokerd).join("run.log");
            println!("DIFFERENT  {} | no test was reached on brokerd; see {}", self.suite.name, log.display());
            return;
        }
        for test in self.regressions() {
            let brokerd = self.brokerd.get(test).map_or("was not reached".to_owned(), ToString::to_string);
            match self.accepted(test) {
                Some(note) => println!("accepted   {} | {test}: {}", self.suite.name, note.reason),
                None => println!("DIFFERENT  {} | {test}: passed on rabbitmq, {brokerd} on brokerd", self.suite.name),
            }
        }
        for (test, outcome) in self.rabbitmq.iter().filter(|(_, outcome)| **outcome == Outcome::Failed) {
            let brokerd = self.brokerd.get(test).map_or("was not reached".to_owned(), ToString::to_string);
            println!("on both    {} | {test}: {outcome} on rabbitmq, {brokerd} on brokerd", self.suite.name);
        }
        let is_regression = |note: &Note| self.regressions().any(|test| note.covers(test));
        for note in self.accepted.of(self.suite).filter(|note| !is_regression(note)) {
            println!("no longer  {} | {}: accepted.txt can do without it", self.suite.name, note.test);
        }
    }
}

/// The differences by name, then a table of counts.
pub fn print(comparisons: &[Comparison<'_>]) {
    comparisons.iter().for_each(Comparison::print_names);
    println!("{:<12} {:>22} {:>22} {:>10} {:>9}", "", "rabbitmq", "brokerd", "", "");
    println!(
        "{:<12} {:>8} {:>6} {:>6} {:>8} {:>6} {:>6} {:>10} {:>9}",
        "suite", "passed", "failed", "skip", "passed", "failed", "skip", "different", "left out"
    );
    for comparison in comparisons {
        let count = |outcomes: &Outcomes, wanted| {
            outcomes.iter().filter(|(test, outcome)| *test != THE_RUN && **outcome == wanted).count()
        };
        let [passed, failed, skipped] = [Outcome::Passed, Outcome::Failed, Outcome::Skipped];
        println!(
            "{:<12} {:>8} {:>6} {:>6} {:>8} {:>6} {:>6} {:>10} {:>9}",
            comparison.suite.name,
            count(&comparison.rabbitmq, passed),
            count(&comparison.rabbitmq, failed),
            count(&comparison.rabbitmq, skipped),
            count(&comparison.brokerd, passed),
            count(&comparison.brokerd, failed),
            count(&comparison.brokerd, skipped),
            comparison.regressions().count(),
            comparison.left_out.of(comparison.suite).count(),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::suites;

    fn outcomes(word: &str) -> Outcomes {
        let text = if word.is_empty() { String::new() } else { format!("{word}\ttest\npassed\t{THE_RUN}\n") };
        outcomes::parse(&text)
    }

    fn holds(suite: &str, rabbitmq: &str, brokerd: &str) -> bool {
        let accepted = Notes::parse("accepted.txt", "kombu | test | because").unwrap();
        let left_out = Notes::parse("left-out.txt", "").unwrap();
        let suite = suites::ALL.iter().find(|known| known.name == suite).unwrap();
        let (rabbitmq, brokerd) = (outcomes(rabbitmq), outcomes(brokerd));
        Comparison { suite, rabbitmq, brokerd, accepted: &accepted, left_out: &left_out }.holds()
    }

    #[test]
    fn only_what_rabbitmq_passes_is_asked_of_brokerd() {
        assert!(holds("lapin", "passed", "passed"));
        assert!(!holds("lapin", "passed", "failed"));
        assert!(!holds("lapin", "passed", "skipped"));
        assert!(holds("lapin", "failed", "failed"));
        assert!(holds("lapin", "failed", "passed"));
    }

    #[test]
    fn without_rabbitmqs_run_there_is_no_measure() {
        assert!(!holds("lapin", "", "passed"));
    }

    #[test]
    fn accepted_differences_hold() {
        assert!(holds("kombu", "passed", "failed"));
        assert!(!holds("lapin", "passed", "failed"));
    }
}
