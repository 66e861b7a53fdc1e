//! What stands in for the shard where links are handed over: it keeps each open, speaks now and then, and notices when it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_server::cluster::links::Taker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// A shard says how far it has come so often when nothing else is to be said.
const SPEAKS_EVERY: Duration = Duration::from_secs(1);
/// It gives a link up that was silent for so long.
const SILENCE: Duration = Duration::from_secs(5);

/// The links of one node: which of those to another is the last one, and whether it lives.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    count: u64,
    up: BTreeMap<u64, u64>,
    ended: Vec<u64>,
}

impl Links {
    /// Takes links over, on the runtime of their node.
    pub fn taker(&self, runtime: Handle) -> Taker {
        let links = self.clone();
        Box::new(move |node, _, mut stream| {
            let count = {
                let mut state = links.lock();
                state.count += 1;
                let count = state.count;
                state.up.insert(node.0, count);
                count
            };
            let links = links.clone();
            runtime.spawn(async move {
                let mut buffer = [0; 16];
                let (mut reader, mut writer) = tokio::io::split(&mut stream);
                let speaks = async {
                    while writer.write_all(&[0]).await.is_ok() {
                        sleep(SPEAKS_EVERY).await;
                    }
                };
                let hears = async { while matches!(timeout(SILENCE, reader.read(&mut buffer)).await, Ok(Ok(1..))) {} };
                tokio::select! { biased; () = speaks => {}, () = hears => {} }
                let mut state = links.lock();
                // A newer one may have taken its place.
                if state.up.get(&node.0) == Some(&count) {
                    state.up.remove(&node.0);
                    state.ended.push(node.0);
                }
            });
            Ok(())
        })
    }

    /// To which nodes there are some.
    pub fn up(&self) -> Vec<u64> {
        self.lock().up.keys().copied().collect()
    }

    /// Which have ended since this was last asked.
    pub fn ended(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().ended)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
