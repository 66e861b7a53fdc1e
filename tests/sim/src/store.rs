//! The message store on a simulated disk: publishes, settles, page-outs and restarts at random, crashes and faults in between, and an oracle that
//! knows what was promised.
//!
//! After every start:
//! - a message whose commit returned and that nobody began to settle is there;
//! - a message whose settling is durable is not there;
//! - nothing is there that was not handed in, nothing of a deleted queue, nothing twice, and every octet is right;
//! - after a stop that was not clean everything is flagged as possibly delivered, after a clean one exactly what was.
//!
//! With rot a deviation is allowed only if the start or a read reported damage.

pub mod child;
pub mod oracle;
mod world;

pub use world::{Faults, Outcome, run};
