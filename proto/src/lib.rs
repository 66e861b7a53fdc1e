//! Protobuf messages of the cluster, the catalog and the admin service.
//!
//! Generated from `proto/*.proto`, whose comments say what the fields mean.

/// The catalog: commands that change it, and a snapshot of all of it.
#[allow(missing_docs, clippy::all)]
pub mod meta {
    include!(concat!(env!("OUT_DIR"), "/broker.meta.rs"));
}

/// Raft between the nodes of a cluster, and what each keeps of it.
#[allow(missing_docs, clippy::all)]
pub mod cluster {
    include!(concat!(env!("OUT_DIR"), "/broker.cluster.rs"));
}

/// What nodes tell each other of themselves in datagrams.
#[allow(missing_docs, clippy::all)]
pub mod gossip {
    include!(concat!(env!("OUT_DIR"), "/broker.gossip.rs"));
}

/// The admin service; only with the feature `admin`, which brings tonic.
#[cfg(feature = "admin")]
pub mod admin {
    /// Version 1 of it.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/broker.admin.v1.rs"));
    }

    /// A message of the service may be this long, in octets.
    pub const MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;
    /// Name of the socket in the data directory.
    pub const SOCKET_NAME: &str = "admin.sock";
}

/// What nodes ask each other; with the feature `admin`, which brings tonic.
#[cfg(feature = "admin")]
pub mod node {
    /// Version 1 of it.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/broker.node.v1.rs"));
    }
}
