//! The state of all metadata, changed by commands only.
//!
//! [`Catalog::apply`] is pure and total: the same commands in the same order give the same state everywhere, and no command can make it panic.
//! It checks again what its proposer checked, because other commands may have come in between.

mod apply;
mod difference;
mod event;
mod members;
mod parameters;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod view;

use broker_core::access::Access;
use broker_core::topology::Topology;

pub use event::CatalogEvent;
pub use members::{MEMBERS_MAX, Member, Members, NUMBERS_MAX};
pub use parameters::{PARAMETER_MAX_BYTES, PARAMETERS_MAX, ParameterKey, Parameters};
pub use snapshot::BadSnapshot;
pub use view::{View, announced_id, is_announced};

/// See the module's page. A copy costs a few pointers.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Index of the last command applied.
    index: u64,
    cluster_name: String,
    topology: Topology,
    access: Access,
    parameters: Parameters,
    members: Members,
}

impl Catalog {
    /// Index of the last command applied; 0 before the first.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The cluster's name; empty until it is given one.
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// Vhosts, exchanges, queues and bindings, as they are now.
    pub fn topology(&self) -> Topology {
        self.topology.clone()
    }

    /// Users and permissions, as they are now.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Runtime parameters, as they are now.
    pub fn parameters(&self) -> Parameters {
        self.parameters.clone()
    }

    /// The nodes of the cluster, as they are now.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether nothing was ever done: then this is the first boot.
    pub fn is_empty(&self) -> bool {
        self.topology.vhosts().next().is_none() && self.access.users().next().is_none()
    }
}
