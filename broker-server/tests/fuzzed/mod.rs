//! What fuzz targets and property tests feed to the parts that read configuration files, certificates and operators' requests. Each `live` takes any
//! octets, makes something of them that gets far, and panics where something is not as it must be.
#![allow(missing_docs, dead_code, clippy::panic, clippy::unwrap_used)]

pub mod certificates;
pub mod configuration;
pub mod requests;
