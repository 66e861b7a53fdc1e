//! Starts brokers for the tests: brokerd, and Debian's rabbitmq-server with ports and data of its own.
//!
//! Every broker gets its own ports and a temporary data directory, so that many run side by side, and it never outlives
//! the process that started it: dropping the handle kills it, and so does the kernel when the test process dies.
//!
//! ```no_run
//! use harness::{Broker, Brokerd, RabbitMq, Options};
//!
//! let mut ours = Brokerd::start(Options::default().conf("heartbeat = 5"))?;
//! let theirs = RabbitMq::start()?;
//! println!("ours on {}, RabbitMQ on {}", ours.amqp_port(), theirs.amqp_port());
//! ours.kill_9()?;
//! ours.restart()?; // the same port, the same data
//! # Ok::<(), harness::Error>(())
//! ```

mod brokerd;
mod cluster;
mod control;
mod control_group;
mod error;
mod hosts;
mod options;
mod port;
mod process;
mod rabbitmq;
pub mod random;

use std::time::Duration;

pub use brokerd::Brokerd;
pub use cluster::{Cluster, Plan};
pub use control::{Control, Said};
pub use control_group::{ControlGroup, Limit};
pub use error::Error;
pub use hosts::{Hosts, has_own_network};
pub use options::Options;
pub use port::free_port;
pub use rabbitmq::RabbitMq;

/// A broker process under test: ours or RabbitMQ.
pub trait Broker {
    /// The word for it in reports: `brokerd` or `rabbitmq`.
    fn name(&self) -> &'static str;

    /// The port on 127.0.0.1 that speaks AMQP; it stays the same over restarts.
    fn amqp_port(&self) -> u16;

    /// The process id of the broker itself (of `beam.smp` for RabbitMQ). It changes with every restart.
    fn pid(&self) -> u32;

    /// Kills the broker with SIGKILL and waits until it is gone. Nothing happens when it is not running.
    fn kill_9(&mut self) -> Result<(), Error>;

    /// Asks the broker to stop with SIGTERM and waits until it is gone. Nothing happens when it is not running.
    fn terminate(&mut self) -> Result<(), Error>;

    /// Stops the broker with SIGTERM if it is running and starts it again, on the same port with the same data.
    fn restart(&mut self) -> Result<(), Error>;

    /// User and system time that the running process has used so far, in steps of the kernel's clock tick (10 ms).
    fn cpu_time(&self) -> Result<Duration, Error>;

    /// The largest resident set so far, in bytes.
    fn rss_peak(&self) -> Result<u64, Error>;

    /// The resident set now, in bytes.
    fn rss_now(&self) -> Result<u64, Error>;

    /// How to run an administrator's commands against it. It stays valid over restarts.
    fn control(&self) -> Control;

    /// The last lines that the broker logged or printed, for failure messages.
    fn log_tail(&self) -> String;
}
