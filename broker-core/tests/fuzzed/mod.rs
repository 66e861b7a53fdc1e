//! What fuzz targets and property tests feed to the parts that read what clients and operators write. Each `live` takes any octets, makes
//! something of them that gets far, and panics where something is not as it must be.
#![allow(missing_docs, dead_code, clippy::panic, clippy::unwrap_used)]

pub mod letters;
pub mod matching;
pub mod octets;
pub mod policies;
