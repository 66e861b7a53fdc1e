//! Ours beside RabbitMQ 3.10.8 and a null broker in one run: a load generator that checks every delivery and costs as
//! little as possible, a null broker as the ceiling, and a report of ratios against the bars.

pub mod bars;
pub mod brokers;
pub mod checker;
pub mod cluster;
pub mod confirms;
pub mod delivery;
pub mod flow;
pub mod null;
pub mod payload;
pub mod remembered;
pub mod report;
pub mod scale;
pub mod session;
pub mod surroundings;
pub mod tls;
pub mod usage;
pub mod wire;
pub mod workload;
