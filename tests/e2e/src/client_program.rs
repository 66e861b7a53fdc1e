//! One language's client program: how it is started, and what it reports.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use harness::Broker;

/// All cases of one program must be through in this time, restarts of the broker included.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// The names in cases.txt, in order.
pub fn case_names() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("../cases.txt").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next())
}

/// A program that runs the cases through one client library.
#[derive(Debug)]
pub struct ClientProgram {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The directory it runs in.
    pub directory: PathBuf,
}

/// What a program reported.
#[derive(Debug, Default)]
pub struct Report {
    /// Case name to `None` (ok) or why it failed.
    pub cases: BTreeMap<String, Option<String>>,
    /// What went wrong with the run as a whole: the start, a restart, the time limit, the exit code.
    pub problems: Vec<String>,
}

impl Report {
    /// Every case that did not pass, with the reason, and every problem of the run.
    pub fn failures(&self) -> Vec<String> {
        let failed = case_names().filter_map(|name| match self.cases.get(name) {
            Some(None) => None,
            Some(Some(why)) => Some(format!("{name}: {why}")),
            None => Some(format!("{name}: did not report")),
        });
        failed.chain(self.problems.iter().cloned()).collect()
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("ok ") {
            self.cases.insert(name.to_owned(), None);
        } else if let Some((name, why)) = line.strip_prefix("FAIL ").and_then(|rest| rest.split_once(": ")) {
            self.cases.insert(name.to_owned(), Some(why.to_owned()));
        } else {
            self.problems.push(format!("said {line:?}"));
        }
    }
}

impl ClientProgram {
    /// Runs all cases against `broker`, restarting it when the program asks.
    pub fn run(&self, broker: &mut dyn Broker) -> Report {
        let mut report = Report::default();
        match self.start(broker.amqp_port()) {
            Ok((mut child, stdin)) => {
                follow(&mut child, stdin, broker, &mut report);
                // Ends it if it ran out of time; else it has closed its output and is about to end by itself.
                if !report.problems.is_empty() {
                    let _ = child.kill();
                }
                match child.wait() {
                    Ok(status) if status.success() == report.cases.values().all(Option::is_none) => {}
                    other => report.problems.push(format!("ended with {other:?}")),
                }
            }
            Err(error) => {
                report.problems.push(format!("{:?} did not start, run tests/e2e/install: {error}", self.command))
            }
        }
        report
    }

    fn start(&self, port: u16) -> std::io::Result<(Child, ChildStdin)> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(std::io::Error::other("no command"));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(&self.directory)
            .env("E2E_URL", format!("amqp://guest:guest@127.0.0.1:{port}/%2f"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| std::io::Error::other("no standard input"))?;
        Ok((child, stdin))
    }
}

/// Reads the program's lines until it closes its output, and restarts the broker when asked.
fn follow(child: &mut Child, mut stdin: ChildStdin, broker: &mut dyn Broker, report: &mut Report) {
    let Some(stdout) = child.stdout.take() else {
        report.problems.push("no standard output".into());
        return;
    };
    let (sender, lines) = channel();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let end = Instant::now() + RUN_LIMIT;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_prefix("restart ") {
                Some(how) => {
                    if let Err(problem) = restart(how, broker, &mut stdin) {
                        report.problems.push(problem);
                        return;
                    }
                }
                None => report.line(&line),
            },
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                report.problems.push(format!("no end after {RUN_LIMIT:?}"));
                return;
            }
        }
    }
}

fn restart(how: &str, broker: &mut dyn Broker, stdin: &mut ChildStdin) -> Result<(), String> {
    let stopped = match how {
        "term" => broker.terminate(),
        "kill" => broker.kill_9(),
        _ => return Err(format!("wants an unknown restart {how:?}")),
    };
    stopped.and_then(|()| broker.restart()).map_err(|error| error.to_string())?;
    writeln!(stdin, "restarted").and_then(|()| stdin.flush()).map_err(|error| error.to_string())
}
