//! Checks passwords away from the shard: a modern password hash takes tens of milliseconds on purpose.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

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

/// Starts the thread. It ends when the handle is dropped.
pub fn start(mailbox: Mailbox) -> std::io::Result<LoginHandle> {
    let (requests, receiver) = sync_channel::<(u64, Asker, Login)>(WAITING_MAX);
    std::thread::Builder::new().name("login".into()).spawn(move || {
        while let Ok((connection, asker, login)) = receiver.recv() {
            let outcome = login.verify();
            mailbox.send(Event::Login(LoginResult { connection, asker, login, outcome }));
        }
    })?;
    Ok(LoginHandle { requests })
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
