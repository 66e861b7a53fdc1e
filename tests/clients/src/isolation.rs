//! Starts a suite's run in a network and a process tree of its own, and ends it when its time is over.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::outcomes::{self, Outcome, Outcomes};
use crate::places;
use crate::subject::Subject;
use crate::suites::Suite;

/// The name under which a run that did not end well stands among the tests.
pub const THE_RUN: &str = "(the run itself)";
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Runs a suite against a broker; its outcomes lie in a file afterwards. A run that was cut off, or could not begin, is a
/// failed test of its own.
pub fn run(suite: &Suite, subject: Subject) -> Result<(), Error> {
    let directory = places::run_directory(suite, subject);
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(Error::io(format!("clearing {}", directory.display())))?;
    }
    fs::create_dir_all(&directory).map_err(Error::io(format!("making {}", directory.display())))?;
    let outcome = isolated(suite, subject)?;
    outcomes::append(&places::outcomes(suite, subject), &Outcomes::from([(THE_RUN.to_owned(), outcome)]))
}

fn isolated(suite: &Suite, subject: Subject) -> Result<Outcome, Error> {
    let program = env::current_exe().map_err(Error::io("looking for this program"))?;
    let log = places::run_directory(suite, subject).join("run.log");
    let log = fs::File::create(&log).map_err(Error::io(format!("making {}", log.display())))?;
    let errors = log.try_clone().map_err(Error::io("duplicating the log file"))?;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // The first process of the tree is this program again: when it ends, or is killed, the kernel ends all the others.
    command.args(["--net", "--pid", "--mount-proc", "--fork", "--kill-child"]).arg(program);
    command.args(["--inside", subject.name(), suite.name]).stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut child = command.spawn().map_err(Error::io("starting unshare (util-linux)"))?;
    let give_up = Instant::now() + suite.limit;
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("waiting for the run"))? {
            return Ok(if status.success() { Outcome::Passed } else { Outcome::Failed });
        }
        if Instant::now() >= give_up {
            child.kill().and_then(|()| child.wait()).map_err(Error::io("ending the run"))?;
            return Ok(Outcome::Failed);
        }
        thread::sleep(POLL);
    }
}
