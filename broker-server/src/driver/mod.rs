//! Drivers: they wait, hand what happened to a core, and carry out what it wants. No rule of AMQP, routing, queues or the catalog is decided here.
//!
//! One thread, the [`shard`], owns client connections and queues: a publish is parsed, routed, enqueued and delivered on it without a hand-over.
//! Beside it stand threads for what blocks: [`journal`] (group commit), [`pages`] (segments: page-outs and loads), [`meta`] (the catalog's log)
//! and [`login`] (password hashing). They talk through [`mailbox`]es; nothing is shared but snapshots. Clients that have not logged in are kept within
//! bounds by [`admission`] and [`throttle`].

pub mod admin;
pub mod admission;
mod announcing;
pub mod catalog;
pub mod client;
pub mod connections;
mod deletions;
mod departures;
pub mod dispatch;
mod early;
mod elsewhere;
pub mod events;
pub mod histories;
pub mod journal;
mod letters;
mod link_stream;
pub mod links;
pub mod listener;
pub mod login;
pub mod mailbox;
pub mod meta;
pub mod numbers;
pub mod outputs;
pub mod overdue;
pub mod pages;
pub mod queues;
pub mod replies;
pub mod requests;
pub mod revision;
pub mod shard;
mod slices;
pub mod tally;
pub mod throttle;
pub mod trace;
mod unanswered;

/// Ends the process after a failed write: what is on the disk is unknown, so nothing more may be confirmed. The next start reads what is really there.
pub(crate) fn fatal(what: &str) -> ! {
    tracing::error!("{what}; stopping at once, so that nothing is confirmed that is not stored");
    std::process::exit(crate::exit::Code::Io as i32);
}
