//! How other threads reach the shard: a channel, and a wake-up only when the shard sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::events::Event;

/// The sending side; cheap to clone.
#[derive(Clone)]
pub struct Mailbox {
    sender: Sender<Event>,
    sleeping: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

/// The shard's side.
pub struct Inbox {
    receiver: Receiver<Event>,
    sleeping: Arc<AtomicBool>,
}

/// A mailbox and its inbox. `waker` interrupts the shard's poll.
pub fn mailbox(waker: mio::Waker) -> (Mailbox, Inbox) {
    let (sender, receiver) = channel();
    let sleeping = Arc::new(AtomicBool::new(false));
    (Mailbox { sender, sleeping: sleeping.clone(), waker: Arc::new(waker) }, Inbox { receiver, sleeping })
}

impl Mailbox {
    /// Delivers an event. Events to a shard that has ended are dropped: the process is going down.
    pub fn send(&self, event: Event) {
        if self.sender.send(event).is_ok()
            && self.sleeping.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake the broker's main loop");
        }
    }
}

impl Inbox {
    /// The next event, if one is there.
    pub fn take(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Announces that the shard is about to sleep; senders wake it from now on. Look for events once more before sleeping.
    pub fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
    }

    /// The shard is awake.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}
