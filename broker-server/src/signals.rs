//! Signals of the operating system, turned into requests on a thread of their own.

use std::io;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

/// What an operator asks for with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: finish what is under way and end.
    Shutdown,
    /// SIGHUP: read log levels, TLS certificates and definitions again, reopen the log file.
    Reload,
    /// SIGUSR1: write the state of the node to the log.
    Dump,
}

/// Watches for signals until it is dropped. After that signals are no longer noticed, nor do they end the process.
#[derive(Debug)]
pub struct SignalWatcher {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SignalWatcher {
    /// Calls `on_request` for every signal, on a thread of its own.
    ///
    /// # Errors
    /// The operating system refuses the handlers or the thread.
    pub fn start(mut on_request: impl FnMut(Request) + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        let handle = signals.handle();
        let run = move || signals.forever().filter_map(request_of).for_each(&mut on_request);
        let thread = thread::Builder::new().name("signals".into()).spawn(run)?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for SignalWatcher {
    fn drop(&mut self) {
        self.handle.close();
        let finished = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = finished {
            tracing::error!("the signal thread panicked");
        }
    }
}

fn request_of(signal: i32) -> Option<Request> {
    match signal {
        SIGTERM | SIGINT => Some(Request::Shutdown),
        SIGHUP => Some(Request::Reload),
        SIGUSR1 => Some(Request::Dump),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn signals_become_requests() {
        let (sender, receiver) = mpsc::channel();
        let watcher = SignalWatcher::start(move |request| sender.send(request).unwrap()).unwrap();
        for (signal, expected) in [(SIGHUP, Request::Reload), (SIGUSR1, Request::Dump), (SIGTERM, Request::Shutdown)] {
            signal_hook::low_level::raise(signal).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(expected));
        }
        drop(watcher);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
