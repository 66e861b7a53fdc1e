//! What other threads tell the shard.

use broker_core::name::NodeId;
use broker_core::queue::{StoredEntry, Stretch};
use broker_core::store::{QueueId, QueueState, RunId, Seq};

use super::admin::Request;
use super::journal::Committed;
use super::login::LoginResult;
use super::meta::Applied;

/// One thing that happened elsewhere.
pub enum Event {
    /// The journal has written a batch.
    Committed(Committed),
    /// A page-out is written.
    Paged {
        /// The queue.
        queue: QueueId,
        /// The queue's number for it.
        ticket: u64,
        /// Where it lies.
        stretches: Vec<Stretch>,
    },
    /// A queue has nothing left in the journal up to this place that is not in a run; and what is settled of its runs.
    PagedThrough(QueueId, Seq, QueueState),
    /// Messages were read from a run.
    Loaded {
        /// The queue.
        queue: QueueId,
        /// The run.
        run: RunId,
        /// From where it was asked for.
        from: Seq,
        /// The messages.
        entries: Vec<StoredEntry>,
        /// Where to read on.
        next: Option<Seq>,
        /// What cannot be read any more.
        lost: Vec<(Seq, Seq)>,
    },
    /// The catalog has changed, or refused to.
    Applied(Applied),
    /// Proposals were given up: no majority of the cluster has taken them in time.
    NotApplied(Vec<u64>),
    /// There is a link to another node; one that was there before is lost.
    Link {
        /// Its number.
        node: NodeId,
        /// Of its start.
        incarnation: u64,
        /// Both have proved who they are on it.
        stream: std::net::TcpStream,
        /// The TLS session on it, if there is one.
        tls: Option<Box<rustls::Connection>>,
    },
    /// The node sees too few others and serves no clients, or sees enough again.
    Pause(bool),
    /// An operator wants the node to serve no clients, or to serve them again; answers how many connections were closed.
    Drain(bool, tokio::sync::oneshot::Sender<u64>),
    /// Another node has an alarm, or none has; the text is what clients are told.
    AlarmElsewhere(Option<&'static str>),
    /// A password was checked.
    Login(LoginResult),
    /// The node's alarms have changed; the text is what clients are told.
    Alarm(Option<&'static str>),
    /// An operator asks for something.
    Admin(Request),
    /// Write the node's state to the log.
    Dump,
    /// The node is to stop.
    Shutdown,
}
