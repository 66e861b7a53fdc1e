//! Group commit for `--fsync`: one preallocated file, written round and round, and fdatasync before a confirm.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use mio::Waker;

/// Octets of the file. Its blocks are written once before the start, so that a sync has no metadata to write.
const LOG_LENGTH: u64 = 256 * 1024 * 1024;

/// What one sync covers.
#[derive(Debug, Default)]
pub struct Batch {
    /// The octets to be on disk.
    pub octets: Vec<u8>,
    /// Whom to confirm then: slot, generation, channel, the highest publish.
    pub confirms: Vec<(usize, u64, u16, u64)>,
}

/// The log and the thread that syncs it.
#[derive(Debug)]
pub struct Log {
    to_thread: Sender<Batch>,
    synced: Receiver<io::Result<Batch>>,
    /// Whether a batch is under way.
    pub busy: bool,
}

impl Log {
    /// Fills the file and starts the thread, which calls `waker` after each sync.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path, waker: Arc<Waker>) -> io::Result<Self> {
        let file = File::create(path)?;
        let zeroes = vec![0; 1024 * 1024];
        for part in 0..LOG_LENGTH / zeroes.len() as u64 {
            file.write_all_at(&zeroes, part * zeroes.len() as u64)?;
        }
        file.sync_all()?;
        let (to_thread, batches) = mpsc::channel::<Batch>();
        let (done, synced) = mpsc::channel();
        std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
            let mut position = 0;
            for batch in batches {
                let result = write(&file, &mut position, &batch.octets).map(|()| batch);
                if done.send(result).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { to_thread, synced, busy: false })
    }

    /// Hands a batch to the thread.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn write(&mut self, batch: Batch) -> io::Result<()> {
        self.busy = true;
        self.to_thread.send(batch).map_err(io::Error::other)
    }

    /// A batch that is on disk, if there is a new one.
    ///
    /// # Errors
    /// When the sync failed.
    pub fn finished(&mut self) -> io::Result<Option<Batch>> {
        match self.synced.try_recv() {
            Ok(result) => {
                self.busy = false;
                result.map(Some)
            }
            Err(_) => Ok(None),
        }
    }
}

fn write(file: &File, position: &mut u64, octets: &[u8]) -> io::Result<()> {
    if octets.is_empty() {
        return Ok(());
    }
    if *position + octets.len() as u64 > LOG_LENGTH {
        *position = 0;
    }
    file.write_all_at(octets, *position)?;
    *position += octets.len() as u64;
    file.sync_data()
}
