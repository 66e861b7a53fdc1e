//! Reads certificates again when their files change or when it is told to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::files::FileState;
use super::handshakes::Handshakes;
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
    /// Starts the thread. `config` is what `handshakes` were made with.
    ///
    /// # Errors
    /// The operating system refuses the thread.
    pub fn start(handshakes: Arc<Handshakes>, config: TlsConfig, look_every: Duration) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(WAITING_MAX);
        // What changes from now on is noticed, also before the thread runs.
        let seen = states(&config);
        let watch = move || watch(&handshakes, config, seen, &receiver, look_every);
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
    handshakes: &Handshakes,
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
        match handshakes.reload(wanted) {
            Ok(()) => tracing::info!(
                listener = wanted.keys.listener,
                "read the TLS certificates again; new connections use them"
            ),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::time::Instant;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write_pair(config: &TlsConfig) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(config.certificate.as_ref().unwrap(), certificate.pem()).unwrap();
        fs::write(config.key.as_ref().unwrap(), key.serialize_pem()).unwrap();
    }

    fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn changed_files_are_read_again_and_wrong_ones_are_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| Some(directory.path().join(name));
        let config = TlsConfig { certificate: path("crt"), key: path("key"), ..TlsConfig::default() };
        write_pair(&config);
        let handshakes = Arc::new(Handshakes::new(&config, &[]).unwrap());
        let first = handshakes.current();
        let _watcher = FileWatcher::start(handshakes.clone(), config.clone(), Duration::from_millis(10)).unwrap();

        fs::write(config.key.as_ref().unwrap(), "nothing of use").unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(Arc::ptr_eq(&first, &handshakes.current()), "what is wrong is not taken over, nor what did not change");

        write_pair(&config);
        wait_until("the new certificate is taken over", || !Arc::ptr_eq(&first, &handshakes.current()));
    }

    #[test]
    fn an_order_reads_files_that_did_not_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| Some(directory.path().join(name));
        let config = TlsConfig { certificate: path("crt"), key: path("key"), ..TlsConfig::default() };
        write_pair(&config);
        let handshakes = Arc::new(Handshakes::new(&config, &[]).unwrap());
        let first = handshakes.current();
        let watcher = FileWatcher::start(handshakes.clone(), config.clone(), LOOK_EVERY).unwrap();
        watcher.reload(config);
        wait_until("the order is carried out", || !Arc::ptr_eq(&first, &handshakes.current()));
    }
}
