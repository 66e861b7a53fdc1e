//! Protobuf messages of the cluster, the catalog and the admin service.
//!
//! Generated from `proto/*.proto`, whose comments say what the fields mean.

/// The catalog: commands that change it, and a snapshot of all of it.
#[allow(missing_docs, clippy::all)]
pub mod meta {
    include!(concat!(env!("OUT_DIR"), "/broker.meta.rs"));
}
