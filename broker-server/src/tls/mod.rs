//! TLS of the listeners: certificates from files; for AMQP, sessions over sockets that do not block, and who the client is.

mod endpoint;
pub(crate) mod files;
mod handshakes;
mod name;
mod peer;
mod server;
mod stream;
mod watcher;

pub use endpoint::Endpoint;
pub use files::FileProblem;
pub use handshakes::{Current, Handshakes};
pub use peer::{PeerCertificate, TlsPeer};
pub use stream::{HANDSHAKE_MAX_BYTES, TlsStream, WRITE_MAX_BYTES};
pub use watcher::{FileWatcher, LOOK_EVERY};
