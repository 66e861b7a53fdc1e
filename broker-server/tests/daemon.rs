//! The daemon as an operator sees it: flags, exit codes, messages, signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const READY: &str = "ready for clients";

/// brokerd with these arguments and no variables of ours.
fn brokerd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brokerd"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end, which must come by itself.
fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("brokerd did not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("ended by a signal"), text(stdout), text(stderr))
}

/// A brokerd that serves a free port with data in a directory; killed when dropped.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_until(data_dir, arguments, READY)
    }

    fn start_until(data_dir: &Path, arguments: &[&str], line: &str) -> Self {
        let mut command = brokerd(arguments);
        command.args(["--data-dir", data_dir.to_str().unwrap()]).env("RABBITMQ_NODE_PORT", "0").stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Ends with the pipe, that is, with the child.
        thread::spawn(move || stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        let running = Self { child, lines };
        running.wait_for_line(line);
        running
    }

    fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with '{part}'"));
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit code, once it has ended by itself.
    fn ended(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("brokerd did not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn help_and_version_go_to_standard_output_with_code_0() {
    let (code, stdout, stderr) = run(&mut brokerd(&["--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for flag in ["--config <FILE>", "--data-dir <DIR>", "--print-config", "SIGTERM", "BROKER__"] {
        assert!(stdout.contains(flag), "{flag} in {stdout}");
    }
    let (code, stdout, _) = run(&mut brokerd(&["--version"]));
    assert_eq!((code, stdout), (0, format!("brokerd {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_flag_is_64() {
    let (code, stdout, stderr) = run(&mut brokerd(&["--port", "5672"]));
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert!(stderr.contains("--port"), "{stderr}");
}

#[test]
fn a_wrong_configuration_is_78_with_every_line_that_is_wrong() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory.path().join("b.conf"), "heartbeat = 60\nhearbeat = 60\nchannel_max = -3\n");
    let data = directory.path().join("data");
    let (code, _, stderr) = run(&mut brokerd(&["--config", &path, "--data-dir", data.to_str().unwrap()]));
    assert_eq!(code, 78);
    assert!(stderr.starts_with("brokerd: 2 configuration errors\n"), "{stderr}");
    assert!(stderr.contains("b.conf:2: unknown key 'hearbeat'; the nearest known key is 'heartbeat'"), "{stderr}");
    assert!(stderr.contains("b.conf:3: channel_max = '-3' is out of range; allowed: 0 to 65535 channels"), "{stderr}");
    assert!(!data.exists());
}

#[test]
fn the_configuration_in_effect_can_be_printed() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory.path().join("b.conf"), "heartbeat = 7\ndefault_pass = s3cret\n");
    let mut command = brokerd(&["--config", &path, "--print-config"]);
    let (code, stdout, stderr) = run(command.env("RABBITMQ_DEFAULT_USER", "ann").current_dir(directory.path()));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains(&format!("heartbeat = 7 # {path}:1\n")), "{stdout}");
    assert!(stdout.contains("default_user = ann # environment variable RABBITMQ_DEFAULT_USER\n"), "{stdout}");
    assert!(stdout.contains("default_pass = <redacted>") && !stdout.contains("s3cret"), "{stdout}");
    assert!(!directory.path().join("data").exists(), "printing must not start anything");
}

#[test]
fn a_taken_port_is_69_and_named() {
    let directory = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = brokerd(&["--data-dir", directory.path().join("data").to_str().unwrap()]);
    command.env("RABBITMQ_NODE_PORT", port.to_string()).env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
    let (code, _, stderr) = run(&mut command);
    assert_eq!(code, 69, "{stderr}");
    let expected =
        format!("brokerd: cannot listen on port {port} of 127.0.0.1 (listeners.tcp.default): another process");
    assert!(stderr.contains(&expected), "{stderr}");
}

#[test]
fn a_locked_directory_is_75_and_its_holder_goes_on() {
    let directory = TempDir::new().unwrap();
    let first = Running::start(directory.path(), &[]);
    let mut second = brokerd(&["--data-dir", directory.path().to_str().unwrap()]);
    let (code, _, stderr) = run(second.env("RABBITMQ_NODE_PORT", "0"));
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains(&format!("is locked by process {}.", first.child.id())), "{stderr}");
    first.signal(Signal::TERM);
    assert_eq!(first.ended(), Some(0));
}

#[test]
fn a_killed_holder_leaves_no_lock() {
    let directory = TempDir::new().unwrap();
    let first = Running::start(directory.path(), &[]);
    first.signal(Signal::KILL);
    assert_eq!(first.ended(), None);
    let second = Running::start(directory.path(), &[]);
    second.signal(Signal::TERM);
    assert_eq!(second.ended(), Some(0));
}

#[test]
fn a_foreign_directory_is_78_and_stays_as_it_is() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("rabbit@host")).unwrap();
    let mut command = brokerd(&["--data-dir", directory.path().to_str().unwrap()]);
    let (code, _, stderr) = run(command.env("RABBITMQ_NODE_PORT", "0"));
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("it holds 'rabbit@host' but no file 'identity'"), "{stderr}");
    assert!(stderr.contains("data directory of RabbitMQ"), "{stderr}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_or_damaged_directory_is_65_and_stays_as_it_is() {
    for (identity, expected) in [
        ("broker data directory\nformat 2\nwhat comes then\n", "has format 2, this version reads up to format 1"),
        ("broker data directory\nformat 1\nnode 12", "identity is damaged at byte 31"),
    ] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("identity"), identity).unwrap();
        let mut command = brokerd(&["--data-dir", directory.path().to_str().unwrap()]);
        let (code, _, stderr) = run(command.env("RABBITMQ_NODE_PORT", "0"));
        assert_eq!(code, 65, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(fs::read_to_string(directory.path().join("identity")).unwrap(), identity);
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_73() {
    let directory = TempDir::new().unwrap();
    let file = write(&directory.path().join("file"), "");
    let mut command = brokerd(&["--data-dir", &format!("{file}/data")]);
    let (code, _, stderr) = run(command.env("RABBITMQ_NODE_PORT", "0"));
    assert_eq!(code, 73, "{stderr}");
    assert!(stderr.contains("cannot create the data directory"), "{stderr}");
}

#[test]
fn a_message_is_said_once() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("letter"), "").unwrap();
    let (_, _, stderr) = run(&mut brokerd(&["--data-dir", directory.path().to_str().unwrap()]));
    assert_eq!(stderr.matches("is not a data directory of this broker").count(), 1, "{stderr}");
}

#[test]
fn both_signals_to_end_give_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = TempDir::new().unwrap();
        let running = Running::start(directory.path(), &[]);
        running.signal(signal);
        assert_eq!(running.ended(), Some(0), "{signal:?}");
    }
}

#[test]
fn hangup_reads_levels_again_and_reopens_the_file() {
    let directory = TempDir::new().unwrap();
    let conf = directory.path().join("b.conf");
    let log = directory.path().join("log/b.log");
    let text = format!("log.file = b.log\nlog.dir = {}\nlog.file.level = ", directory.path().join("log").display());
    let path = write(&conf, &format!("{text}info\n"));
    let running = Running::start(&directory.path().join("data"), &["--config", &path]);
    let renamed = directory.path().join("log/b.log.1");
    // The console has each line a moment before the file has it.
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(&log).unwrap().contains(READY) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    fs::rename(&log, &renamed).unwrap();
    write(&conf, &format!("{text}debug\n"));
    running.signal(Signal::HUP);
    running.wait_for_line("read log levels and TLS options again");
    let deadline = Instant::now() + PATIENCE;
    while !log.exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(log.exists(), "the file was not opened anew");
    write(&conf, "hearbeat = 1\n");
    running.signal(Signal::HUP);
    let line = running.wait_for_line("hearbeat");
    assert!(line.contains("[error]"), "{line}");
    running.signal(Signal::TERM);
    assert_eq!(running.ended(), Some(0));
    assert!(fs::read_to_string(renamed).unwrap().contains(READY));
}

#[test]
fn the_state_can_be_asked_for_and_odd_settings_are_told() {
    let directory = TempDir::new().unwrap();
    let path = write(&directory.path().join("b.conf"), "log.console.formatter = json\nmqtt.prefetch = 3\n");
    let running = Running::start(&directory.path().join("data"), &["--config", &path]);
    // The warning came before the line that says it is ready.
    running.signal(Signal::USR1);
    let line = running.wait_for_line("connections");
    assert!(line.starts_with("{\"time\":") && line.ends_with('}'), "{line}");
    running.signal(Signal::TERM);
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn alarms_are_told_and_do_not_end_anything() {
    let directory = TempDir::new().unwrap();
    let path = write(
        &directory.path().join("b.conf"),
        "vm_memory_high_watermark.absolute = 1MB\ndisk_free_limit.absolute = 1000TB\n",
    );
    let data = directory.path().join("data");
    let running = Running::start_until(&data, &["--config", &path], "memory alarm set: publishers are blocked");
    running.wait_for_line("disk alarm set: publishers are blocked");
    running.wait_for_line(READY);
    running.signal(Signal::TERM);
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn a_log_file_that_cannot_be_made_is_73() {
    let directory = TempDir::new().unwrap();
    let file = write(&directory.path().join("file"), "");
    let path = write(&directory.path().join("b.conf"), &format!("log.file = {file}/b.log\n"));
    let data = directory.path().join("data");
    let (code, _, stderr) = run(&mut brokerd(&["--config", &path, "--data-dir", data.to_str().unwrap()]));
    assert_eq!(code, 73, "{stderr}");
    assert!(stderr.contains("cannot open the log"), "{stderr}");
}
