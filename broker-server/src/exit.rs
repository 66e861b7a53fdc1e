//! How brokerd ends: exit codes as in sysexits.h, and messages that say what happened, to what, and what to do.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::{self, ExitCode};
use std::{panic, thread};

use crate::config::{ConfigErrors, Listener};
use crate::data_dir::DataDirError;

/// The exit codes of brokerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 64: a wrong flag.
    Usage = 64,
    /// 65: data in the data directory is damaged or of a newer format.
    Data = 65,
    /// 69: a port cannot be had.
    Unavailable = 69,
    /// 70: a fault of brokerd itself.
    Software = 70,
    /// 73: the data directory cannot be made or written to.
    CannotCreate = 73,
    /// 74: reading or writing failed.
    Io = 74,
    /// 75: another process has the data directory.
    Locked = 75,
    /// 78: the configuration is wrong, or names a directory that is not ours.
    Config = 78,
}

/// Why brokerd ends other than by being asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What happened, to what, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A listener that could not be opened.
    #[must_use]
    pub fn listening(listener: &Listener, error: &io::Error) -> Self {
        let key = listener.key();
        Self::listening_at(&key, &format!("{key} or RABBITMQ_NODE_PORT"), listener.ip, listener.port, error)
    }

    /// The same for what was set with `key`; `ways` is where another port can be set.
    #[must_use]
    pub fn listening_at(key: &str, ways: &str, ip: Option<IpAddr>, port: u16, error: &io::Error) -> Self {
        let place = ip.map_or_else(|| "all interfaces".into(), |ip| ip.to_string());
        let what = format!("cannot listen on port {port} of {place} ({key})");
        let message = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{what}: another process has the port. Stop it (`ss -ltnp 'sport = :{port}'` names it) or set another \
                 port with {ways}"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "{what}: not permitted. Ports below 1024 need the capability CAP_NET_BIND_SERVICE; set another port \
                 with {key}"
            ),
            io::ErrorKind::AddrNotAvailable => {
                format!("{what}: no interface of this machine has that address. Correct {key}")
            }
            _ => format!("{what}: {error}"),
        };
        Self::new(Code::Unavailable, message)
    }

    /// Reading or writing `path` failed while doing `action`.
    #[must_use]
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(Code::Io, format!("cannot {action} {}: {error}", path.display()))
    }

    /// Writes the message to standard error and to the log file, and gives the code to end with.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        tracing::error!(target: crate::logging::ENDING, "{}", self.message);
        // There is nobody left to tell if standard error is gone.
        let _ = writeln!(io::stderr(), "brokerd: {}", crate::logging::one_screen(&self.message));
        ExitCode::from(self.code as u8)
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Code::Config, errors.to_string())
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        let code = match error {
            DataDirError::CannotCreate { .. } | DataDirError::NotWritable { .. } => Code::CannotCreate,
            DataDirError::Locked { .. } => Code::Locked,
            DataDirError::Foreign { .. } => Code::Config,
            DataDirError::Newer { .. } | DataDirError::Damaged { .. } => Code::Data,
            DataDirError::Io { .. } => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}

/// Ends a run that the command line itself decides: help and version go to standard output with code 0, a wrong flag
/// to standard error with code 64.
#[must_use]
pub fn of_arguments(error: &clap::Error) -> ExitCode {
    // A reader that went away, as in `brokerd --help | head -1`, is no failure.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS }
}

/// From now on a panic of any thread ends the process with code 70 and a message that says where it was.
///
/// A node with a missing thread would hang its clients; one that ends is started again and recovers what was confirmed.
pub fn end_on_panic() {
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name").to_string();
        let place = info.location().map_or_else(String::new, |location| format!(" at {location}"));
        let reason = info.payload_as_str().unwrap_or("no reason given");
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
        let message = format!("a fault in thread '{name}'{place}: {reason}. Please report it with the log{trace}");
        let _ = Failure::new(Code::Software, message).report();
        process::exit(Code::Software as i32);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        Listener { name: "default".into(), ip: None, port: 5672, tls: false }
    }

    #[test]
    fn a_taken_port_is_named_with_the_way_out() {
        let failure = Failure::listening(&listener(), &io::Error::from(io::ErrorKind::AddrInUse));
        assert_eq!(failure.code, Code::Unavailable);
        assert!(failure.message.contains("cannot listen on port 5672 of all interfaces (listeners.tcp.default)"));
        assert!(failure.message.contains("RABBITMQ_NODE_PORT"));
    }

    #[test]
    fn data_directory_errors_have_their_codes() {
        let locked = DataDirError::Locked { path: "d".into(), pid: Some(7) };
        let failure = Failure::from(locked);
        assert_eq!((failure.code, failure.code as u8), (Code::Locked, 75));
        assert!(failure.message.contains("locked by process 7"));
        assert_eq!(Failure::from(DataDirError::Newer { path: "d".into(), found: 2 }).code as u8, 65);
    }
}
