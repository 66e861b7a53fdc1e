//! What fuzz targets and property tests feed to a connection beside whole streams. Each `live` takes any octets, makes something of them that gets
//! far, and panics where something is not as it must be.
#![allow(missing_docs, dead_code, clippy::panic, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod copies;
pub mod links;
pub mod logins;
