//! AMQP 0-9-1 as pure state machines: frames, methods, connections, channels.
//!
//! Nothing here does I/O or reads a clock. A driver owns the socket and does, in a loop:
//! octets in ([`Connection::receive`]), carry the [`Output`]s out, tell what became of them ([`Connection::step`] and its companions), write what is
//! in the [`SendBuffer`].

pub mod exception;
pub mod input;
pub mod output;
pub mod send_buffer;
pub mod settings;

pub use exception::{Exception, ReplyCode, Resource, Scope};
pub use input::{Delivery, Input, Reply};
pub use output::{Binding, CloseReason, GET, Login, Outcome, Output, Request, Settle, TxCommit};
pub use send_buffer::SendBuffer;
pub use settings::Settings;
