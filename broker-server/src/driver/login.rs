//! Checks passwords away from the shard: a modern password hash takes tens of milliseconds on purpose. In a simulation of whole nodes there is no
//! thread: they are checked in steps.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use broker_core::access::{Login, LoginRefused};

use super::events::Event;
use super::mailbox::Mailbox;
use super::throttle::Asker;

/// Logins that may wait for the thread; more are refused.
const WAITING_MAX: usize = 1024;

/// How it went.
pub struct LoginResult {
    /// The connection's number.
    pub connection: u64,
    /// Who asked, also if the connection is gone by now.
    pub asker: Asker,
    /// Who wanted in.
    pub login: Login,
    /// What the log is told if it was refused.
    pub outcome: Result<(), LoginRefused>,
}

/// The shard's handle.
pub struct LoginHandle {
    requests: SyncSender<(u64, Asker, Login)>,
}

/// Checks what is asked: a thread, or whoever steps it.
pub struct Worker {
    requests: Receiver<(u64, Asker, Login)>,
    mailbox: Mailbox,
}

/// Starts the thread. It ends when the handle is dropped.
pub fn start(mailbox: Mailbox) -> std::io::Result<LoginHandle> {
    let (handle, worker) = in_steps(mailbox);
    std::thread::Builder::new().name("login".into()).spawn(move || {
        while let Ok(request) = worker.requests.recv() {
            worker.check(request);
        }
    })?;
    Ok(handle)
}

/// Without a thread: what is asked waits for [`Worker::step`].
pub fn in_steps(mailbox: Mailbox) -> (LoginHandle, Worker) {
    let (requests, receiver) = sync_channel(WAITING_MAX);
    (LoginHandle { requests }, Worker { requests: receiver, mailbox })
}

impl Worker {
    /// Checks all that was asked.
    pub fn step(&self) {
        self.requests.try_iter().for_each(|request| self.check(request));
    }

    fn check(&self, (connection, asker, login): (u64, Asker, Login)) {
        let outcome = login.verify();
        self.mailbox.send(Event::Login(LoginResult { connection, asker, login, outcome }));
    }
}

impl LoginHandle {
    /// Asks for a check. `false` if too many wait.
    pub fn check(&self, connection: u64, asker: Asker, login: Login) -> bool {
        match self.requests.try_send((connection, asker, login)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}
