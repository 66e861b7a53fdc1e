//! The null broker: one thread that frames and forwards and does nothing else. It keeps no message, knows no limit but
//! the length of its output buffers and answers only what the workloads ask. It is the ceiling of AMQP over loopback on
//! the machine that runs the bench.

pub mod broker;
mod log;
mod output;
mod queues;
