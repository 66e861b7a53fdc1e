//! Runs the program of a suite; each kind ends in the same lines of outcomes.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::Error;
use crate::notes::Note;
use crate::outcomes::{self, Outcome, Outcomes};
use crate::places;
use crate::suites::{Program, Suite};

/// One Go test, or one test program of a crate, may take this long.
const PROGRAM_LIMIT: Duration = Duration::from_secs(180);
/// One Python test may take this many seconds.
const PYTEST_LIMIT: &str = "--timeout=120";
/// One Node test, and one file of them, may take this many milliseconds. The suite's own limit of a second is for an idle machine.
const NODE_LIMIT: &str = "--test-timeout=120000";
/// How often a program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Where a program runs.
pub struct Surroundings<'a> {
    /// The directory for its logs.
    pub directory: &'a Path,
    /// The file that takes the outcomes.
    pub outcomes: &'a Path,
    /// Tests not to be run.
    pub left_out: Vec<&'a Note>,
    /// What stands for rabbitmqctl.
    pub rabbitmqctl: Option<&'a Path>,
}

impl Surroundings<'_> {
    fn leaves_out(&self, test: &str) -> bool {
        self.left_out.iter().any(|note| note.covers(test))
    }
}

/// Runs a suite to its end. Failed tests are outcomes, not errors.
pub fn run(suite: &Suite, surroundings: &Surroundings<'_>) -> Result<(), Error> {
    match &suite.program {
        Program::Pytest { packages, directory, arguments } => {
            let mut command = Command::new(places::installed().join(packages).join("bin/python"));
            command.args(["-m", "pytest", "-p", "report_outcomes", "-p", "no:cacheprovider", "-v", PYTEST_LIMIT]);
            command.args(*arguments).current_dir(places::installed().join("python-suites").join(directory));
            command.env("PYTHONPATH", places::sources().join("python"));
            whole(suite, surroundings, command)
        }
        Program::Celery => {
            let mut command = Command::new(places::installed().join("celery/bin/python"));
            command.arg("cases.py").current_dir(places::sources().join("celery"));
            whole(suite, surroundings, command)
        }
        Program::Node { directory, files } => {
            let mut command = Command::new("node");
            command.args(["--test", "--test-concurrency=1", NODE_LIMIT]);
            command.arg(format!("--test-reporter={}", places::sources().join("node/report-outcomes.mjs").display()));
            command.arg(format!("--test-reporter-destination={}", surroundings.outcomes.display()));
            command.args(["--test-reporter=spec", "--test-reporter-destination=stdout"]);
            command.args(*files).current_dir(places::installed().join("node-suites").join(directory));
            whole(suite, surroundings, command)
        }
        Program::Go { directory } => go(suite, surroundings, &places::installed().join("go-suites").join(directory)),
        Program::Cargo { directory, arguments } => {
            cargo(suite, surroundings, &places::installed().join("rust-suites").join(directory), arguments)
        }
    }
}

/// A program that runs the whole suite and writes the outcomes itself; how it ends says nothing new.
fn whole(suite: &Suite, surroundings: &Surroundings<'_>, mut command: Command) -> Result<(), Error> {
    let left_out: Vec<&str> = surroundings.left_out.iter().map(|note| note.test.as_str()).collect();
    command.env("SUITE_OUTCOMES", surroundings.outcomes).env("SUITE_LEFT_OUT", left_out.join("\n"));
    finish(suite, surroundings, command, suite.limit).map(|_| ())
}

fn go(suite: &Suite, surroundings: &Surroundings<'_>, directory: &Path) -> Result<(), Error> {
    let program = directory.join("suite.test");
    let mut list = Command::new(&program);
    list.args(["-test.list", "."]).current_dir(directory);
    let listed = finish(suite, surroundings, list, PROGRAM_LIMIT)?;
    let kinds = ["Test", "Example", "Fuzz"];
    for name in listed.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind))) {
        if surroundings.leaves_out(name) {
            continue;
        }
        let mut command = Command::new(&program);
        command.args(["-test.v", "-test.run", &format!("^{name}$")]).current_dir(directory);
        let printed = finish(suite, surroundings, command, PROGRAM_LIMIT)?;
        outcomes::append(surroundings.outcomes, &go_outcomes(name, &printed))?;
    }
    Ok(())
}

/// The leaves among a Go test and its subtests. A test that says nothing at its end went down or hung.
fn go_outcomes(test: &str, printed: &str) -> Outcomes {
    let words = [("--- PASS: ", Outcome::Passed), ("--- FAIL: ", Outcome::Failed), ("--- SKIP: ", Outcome::Skipped)];
    let outcome = |line: &str| {
        let (rest, outcome) = words.iter().find_map(|(word, outcome)| Some((line.split_once(word)?.1, *outcome)))?;
        Some((rest.split(" (").next()?.to_owned(), outcome))
    };
    let all: Outcomes = printed.lines().filter_map(outcome).collect();
    if !all.contains_key(test) {
        return Outcomes::from([(test.to_owned(), Outcome::Failed)]);
    }
    let is_leaf = |name: &str| !all.keys().any(|other| other.starts_with(&format!("{name}/")));
    all.iter().filter(|(name, _)| is_leaf(name)).map(|(name, outcome)| (name.clone(), *outcome)).collect()
}

fn cargo(suite: &Suite, surroundings: &Surroundings<'_>, directory: &Path, arguments: &[&str]) -> Result<(), Error> {
    let mut build = Command::new("cargo");
    build.args(["test", "--no-run", "--offline", "--locked", "--quiet", "--lib", "--tests", "--message-format=json"]);
    build.arg("--target-dir").arg(places::installed().join("rust-build")).args(arguments).current_dir(directory);
    let built = finish(suite, surroundings, build, suite.limit)?;
    for (name, program) in built.lines().filter_map(test_program) {
        let mut list = Command::new(&program);
        list.arg("--list").current_dir(directory);
        let listed = finish(suite, surroundings, list, PROGRAM_LIMIT)?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let (left_out, run): (Vec<_>, Vec<_>) =
            tests.partition(|test| surroundings.leaves_out(&format!("{name}::{test}")));
        let mut command = Command::new(&program);
        command.arg("--exact").args(left_out.iter().flat_map(|test| ["--skip", test])).current_dir(directory);
        let printed = finish(suite, surroundings, command, PROGRAM_LIMIT)?;
        let outcomes = run.iter().map(|test| (format!("{name}::{test}"), cargo_outcome(test, &printed))).collect();
        outcomes::append(surroundings.outcomes, &outcomes)?;
    }
    Ok(())
}

/// The name and path of a test program in a line of cargo's messages.
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let program = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(program)))
}

/// A test that says nothing at its end hung, or its program went down.
fn cargo_outcome(test: &str, printed: &str) -> Outcome {
    let lines = printed.lines().filter_map(|line| line.strip_prefix("test "));
    let mut words = lines.filter_map(|line| line.rsplit_once(" ... ")).filter(|(name, _)| {
        // `should_panic` and `ignored` add words to the name.
        name.split(" - ").next() == Some(test)
    });
    match words.next() {
        Some((_, "ok")) => Outcome::Passed,
        Some((_, word)) if word.starts_with("ignored") => Outcome::Skipped,
        _ => Outcome::Failed,
    }
}

/// Runs a command to its end, or until its time is over, and gives back what it printed, which also goes into the log.
fn finish(
    suite: &Suite,
    surroundings: &Surroundings<'_>,
    mut command: Command,
    limit: Duration,
) -> Result<String, Error> {
    let printed = surroundings.directory.join("printed.txt");
    let output = File::create(&printed).map_err(Error::io(format!("making {}", printed.display())))?;
    let log = File::options().create(true).append(true).open(surroundings.directory.join("program.log"));
    let mut log = log.map_err(Error::io("opening the log of the suite's program"))?;
    let errors = log.try_clone().map_err(Error::io("duplicating the log file"))?;
    command.envs(suite.environment.iter().copied()).stdin(Stdio::null()).stdout(output).stderr(errors);
    command
        .envs(amqpstorms_certificates())
        .envs(surroundings.rabbitmqctl.map(|path| ("RABBITMQ_RABBITMQCTL_PATH", path)));
    let mut child = command.process_group(0).spawn().map_err(Error::io(format!("starting {command:?}")))?;
    let give_up = Instant::now() + limit;
    while child.try_wait().map_err(Error::io("waiting for the suite's program"))?.is_none() {
        if Instant::now() >= give_up {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // It may have ended by itself in this moment.
            _ = group.map(|group| kill_process_group(group, Signal::KILL));
            child.wait().map_err(Error::io("waiting for the suite's program"))?;
            break;
        }
        thread::sleep(POLL);
    }
    let mut octets = Vec::new();
    let read = File::open(&printed).and_then(|mut file| file.read_to_end(&mut octets));
    read.and_then(|_| std::io::Write::write_all(&mut log, &octets))
        .map_err(Error::io("keeping what the program printed"))?;
    fs::remove_file(&printed).map_err(Error::io(format!("removing {}", printed.display())))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// The one suite that is told where its certificates lie.
fn amqpstorms_certificates() -> [(&'static str, PathBuf); 3] {
    let certificate = |name: &str| places::installed().join("certs").join(name);
    [
        ("AMQP_CAFILE", certificate("ca_certificate.pem")),
        ("AMQP_CERTFILE", certificate("client_certificate.pem")),
        ("AMQP_KEYFILE", certificate("client_key.pem")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_leaves_count_and_silence_is_failure() {
        let printed = "=== RUN TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/one (0.00s)\n    --- FAIL: TestA/two (1.00s)\n";
        let expected = [("TestA/one", Outcome::Passed), ("TestA/two", Outcome::Failed)];
        let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome));
        assert_eq!(go_outcomes("TestA", printed), Outcomes::from(expected));
        assert_eq!(go_outcomes("TestA", "panic: no"), Outcomes::from([("TestA".to_owned(), Outcome::Failed)]));
    }

    #[test]
    fn rust_tests_that_end_in_silence_failed() {
        let printed =
            "test a ... ok\ntest b ... FAILED\ntest c ... ignored, slow\ntest d - should panic ... ok\ntest e ... ";
        let outcomes = ["a", "b", "c", "d", "e"].map(|test| cargo_outcome(test, printed));
        use Outcome::{Failed, Passed, Skipped};
        assert_eq!(outcomes, [Passed, Failed, Skipped, Passed, Failed]);
    }
}
