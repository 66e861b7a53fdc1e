//! An administrator's commands to a running broker.

use std::ffi::OsString;
use std::io;
use std::process::Command;

use crate::Error;

/// No command of an administrator takes longer; what does is stopped and counts as refused.
const LIMIT_SECONDS: &str = "120";

/// How to run `rabbitmqctl`, or brokerd's own program that understands the same words, against one broker.
#[derive(Debug, Clone)]
pub struct Control {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// True when the program ended with status 0.
    pub succeeded: bool,
    /// What it printed, its errors last.
    pub text: String,
}

impl Control {
    /// The program with the arguments that come before every command, and its environment.
    pub(crate) fn new(
        program: impl Into<OsString>,
        arguments: Vec<OsString>,
        environment: Vec<(String, String)>,
    ) -> Self {
        Control { program: program.into(), arguments, environment }
    }

    /// Runs a command in `rabbitmqctl`'s words. An error means that it could not be run at all.
    pub fn run(&self, arguments: &[&str]) -> Result<Said, Error> {
        // Without `timeout` a program that hangs would hang the test.
        let output = Command::new("timeout")
            .arg(LIMIT_SECONDS)
            .arg(&self.program)
            .args(&self.arguments)
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .output()
            .map_err(|error| Error::io(format!("running {}", self.program.display()), error))?;
        // What `timeout` says of a program that it cannot run (126) or find (127).
        if matches!(output.status.code(), Some(126 | 127)) {
            let words = io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned());
            return Err(Error::io(format!("running {}", self.program.display()), words));
        }
        let text = [output.stdout, output.stderr].concat();
        Ok(Said { succeeded: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_refusal_is_not_a_failure_to_run() {
        let run = |program: &str, words: &[&str]| Control::new(program, Vec::new(), Vec::new()).run(words);
        assert_eq!(run("echo", &["a", "b"]).unwrap(), Said { succeeded: true, text: "a b\n".to_owned() });
        assert!(!run("false", &[]).unwrap().succeeded);
        assert!(run("/nowhere/at/all", &[]).is_err());
    }
}
