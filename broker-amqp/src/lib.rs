//! AMQP 0-9-1 as pure state machines: frames, methods, connections, channels.
//!
//! Nothing here does I/O or reads a clock. A driver owns the socket and does, in a loop:
//!
//! ```text
//! octets in                     Connection::receive
//! carry the outputs out         confirm, nack, returned, fail, deliver, step
//! until nothing is held         Connection::wants_resume, Connection::resume
//! end of its turn               Connection::flush_confirms
//! octets out                    Connection::send_buffer
//! time                          Connection::next_timeout, Connection::timeout
//! ```

mod allowance;
mod channel;
pub mod codec;
mod connection;
pub mod content;
mod erlang;
pub mod exception;
pub mod frame;
mod heartbeat;
pub mod incoming;
pub mod input;
pub mod link;
mod method;
mod names;
pub mod output;
pub mod reply_to;
pub mod sasl;
pub mod send_buffer;
pub mod settings;
pub mod table;
pub mod trace;

pub use allowance::ChannelAllowance;
pub use connection::{
    ChannelView, Connection, HANDSHAKE_MAX_BYTES, HELD_MAX_BYTES, REPLIES_MAX_BYTES, SEND_MAX_BYTES, STRANGER_MAX_BYTES,
};
pub use exception::{Exception, ReplyCode, Resource, Scope};
pub use incoming::Incoming;
pub use input::{Delivery, Input, Reply};
pub use output::{Binding, CloseReason, GET, Login, Outcome, Output, Request, Settle, TxCommit};
pub use send_buffer::SendBuffer;
pub use settings::Settings;
