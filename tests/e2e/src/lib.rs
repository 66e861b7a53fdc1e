//! Real clients in five languages, crashes and power cuts, against real broker processes.
//!
//! Each language's program runs the cases of `cases.txt` and reports one line a case; [`ClientProgram`] runs it and restarts the
//! broker when it asks. `tests/clients.rs` asserts every case. [`crash`] strikes brokers under load and checks what is left.

pub mod brokerctl;
pub mod certificates;
mod client_program;
pub mod crash;
mod small_disk;
mod subject;
pub mod wire;

pub use client_program::{ClientProgram, Report, case_names};
pub use small_disk::{SmallDisk, has_own_mounts};
pub use subject::start_subject;
