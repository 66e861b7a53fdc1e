//! Definitions files of RabbitMQ: JSON that holds users, vhosts, permissions, policies, parameters, exchanges, queues and bindings.
//!
//! [`parse`] turns a file into the catalog's commands, in the order in which RabbitMQ carries them out; [`export`] turns a snapshot of the catalog
//! into a file that brokerd and RabbitMQ import. Both are pure: passwords in clear text are hashed by whoever calls.
//!
//! What RabbitMQ 3.10.8 does and this does otherwise: an error names the place in the document; a file of one vhost, whose items do not name it, is
//! refused as a whole; integers beyond 64 bits become floating point numbers; internal exchanges are exported; text that is not UTF-8 comes back as
//! it was.

mod arguments;
mod describe;
mod export;
mod parse;
mod place;
#[cfg(test)]
mod tests;

pub use describe::describe;
pub use export::export;
pub use parse::{PasswordHasher, StoredPassword, parse};

/// A definitions file may be this long, in octets.
pub const DOCUMENT_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Names and routing keys may be this long, in octets.
pub(crate) const NAME_MAX_BYTES: usize = 255;
/// Key of a user's Argon2id hash, which RabbitMQ cannot verify. It ignores the key, and finds an empty `password_hash`: no password login there.
pub(crate) const ARGON2ID_KEY: &str = "argon2id_hash";
/// The name of that algorithm in the catalog.
pub(crate) const ARGON2ID: &str = "argon2id";
/// What RabbitMQ hashes with by default.
pub(crate) const RABBIT_SHA256: &str = "rabbit_password_hashing_sha256";
/// Begins what stands for a string that is not UTF-8, which JSON cannot hold: RabbitMQ's words.
pub(crate) const NOT_UTF8: &str = "Not UTF-8, base64 is: ";
/// The parameter that operator policies travel as.
pub(crate) const OPERATOR_POLICY: &str = "operator_policy";
/// The parameter that limits of vhosts travel as.
pub(crate) const VHOST_LIMITS: &str = "vhost-limits";
/// The global parameter that the cluster's name travels as.
pub(crate) const CLUSTER_NAME: &str = "cluster_name";

/// Why a document is no definitions file: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionsError {
    /// Longer than [`DOCUMENT_MAX_BYTES`].
    #[error(
        "the definitions are {0} octets long, of at most {DOCUMENT_MAX_BYTES}. Split the file; a directory of files is imported in the order of their names"
    )]
    TooLong(usize),
    /// Not JSON: what the parser says, with line and column.
    #[error("the definitions are not JSON: {0}")]
    Syntax(String),
    /// An export of one vhost.
    #[error(
        "{path} names no vhost: this is an export of a single vhost, which does not say which. Import it into a vhost by name, or export all definitions"
    )]
    SingleVhost {
        /// The first item without a vhost.
        path: String,
    },
    /// A place that holds something else than it must.
    #[error("{path}: {problem}")]
    Place {
        /// Where in the document: `queues[3].arguments.x-expires`.
        path: String,
        /// What is wrong there.
        problem: String,
    },
}
