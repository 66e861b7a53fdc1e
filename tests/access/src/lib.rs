//! Who may do what: every right, operation and resource, against brokerd and RabbitMQ 3.10.8; and what changes and limits do to open connections.
//!
//! [`matrix`] lists the operations of AMQP 0-9-1 with the rights they take, an independent statement of what `broker-core` says in its one place, and
//! plays each as 64 users, one for every combination of rights on two sets of names. What RabbitMQ 3.10.8 answered is kept in `recorded/`.
//!
//! ```text
//! cargo test -p access             brokerd against the table and the recording
//! cargo run -p access -- record    the recording anew, from a real RabbitMQ
//! ```

pub mod matrix;
pub mod node;
pub mod session;
pub mod users;
