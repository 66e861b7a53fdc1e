//! Reads certificates again when their files change or when it is told to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::files::FileState;
use crate::config::TlsConfig;

/// The files are looked at so often.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Configurations that may wait to be taken over.
const WAITING_MAX: usize = 4;

/// Tells the thread that reads certificates. The thread ends when all of these are dropped.
#[derive(Clone, Debug)]
pub struct FileWatcher {
    orders: SyncSender<TlsConfig>,
}

impl FileWatcher {
    /// Starts the thread. `config` is what `endpoint` was made with.
    ///
    /// # Errors
    /// The operating system refuses the thread.
    pub fn start(endpoint: Arc<Endpoint>, config: TlsConfig, look_every: Duration) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(WAITING_MAX);
        // What changes from now on is noticed, also before the thread runs.
        let seen = states(&config);
        let watch = move || watch(&endpoint, config, seen, &receiver, look_every);
        thread::Builder::new().name("certificates".into()).spawn(watch)?;
        Ok(Self { orders })
    }

    /// The configuration was read again: its files are too, whether they changed or not.
    pub fn reload(&self, config: TlsConfig) {
        if self.orders.try_send(config).is_err() {
            tracing::warn!("certificates are being read already; ask again later");
        }
    }
}

fn watch(
    endpoint: &Endpoint,
    mut config: TlsConfig,
    mut seen: [FileState; 3],
    orders: &Receiver<TlsConfig>,
    look_every: Duration,
) {
    loop {
        let ordered = match orders.recv_timeout(look_every) {
            Ok(next) => Some(next),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let wanted = ordered.as_ref().unwrap_or(&config);
        let now = states(wanted);
        if ordered.is_none() && now == seen {
            continue;
        }
        // Also what is wrong is not read again until it changes: a key may follow its certificate a moment later.
        seen = now;
        match endpoint.reload(wanted) {
            Ok(()) => tracing::info!("read the TLS certificates again; new connections use them"),
            Err(problem) => tracing::error!("TLS certificates not taken over, the ones in use stay: {problem}"),
        }
        if let Some(next) = ordered {
            config = next;
        }
    }
}

fn states(config: &TlsConfig) -> [FileState; 3] {
    [&config.certificate, &config.key, &config.authorities]
        .map(|path| path.as_deref().map_or_else(FileState::default, |path: &Path| FileState::of(path)))
}
