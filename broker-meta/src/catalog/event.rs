//! What a command did.

use std::sync::Arc;

use broker_core::name::{UserName, VhostName};
use broker_core::refusal::Refusal;
use broker_core::topology::{Binding, ExchangeRecord, QueueRecord};

use super::{Member, ParameterKey};

/// What a command did. The first event of a command is its outcome; those after it are what followed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogEvent {
    /// A vhost was created, or was there.
    VhostCreated {
        /// Its name.
        vhost: VhostName,
        /// Whether it was there before.
        existed: bool,
    },
    /// A vhost is gone with all it held.
    VhostDeleted {
        /// Its name.
        vhost: VhostName,
        /// The queues that went with it.
        queues: Vec<Arc<QueueRecord>>,
    },
    /// What is said of a vhost was changed: description, tags, tracing or the default type of queues.
    VhostChanged(VhostName),
    /// A policy was set or cleared. Routes through alternate exchanges may have changed.
    PolicyChanged {
        /// Where it is or was.
        vhost: VhostName,
        /// Its name.
        name: String,
        /// Whether it is an operator policy.
        operator: bool,
    },
    /// Other policies govern a queue now, so that its settings may have changed. Follows [`CatalogEvent::PolicyChanged`].
    QueueSettingsChanged(Arc<QueueRecord>),
    /// A parameter was set or cleared.
    ParameterChanged(ParameterKey),
    /// A user was created or changed.
    UserChanged(UserName),
    /// A user is gone.
    UserDeleted(UserName),
    /// A user's permissions in a vhost were given or taken.
    PermissionsChanged(UserName, VhostName),
    /// A user's topic permissions in a vhost were given or taken.
    TopicPermissionsChanged(UserName, VhostName),
    /// A vhost's limits were changed.
    VhostLimitsChanged(VhostName),
    /// A user's limits were changed.
    UserLimitsChanged(UserName),
    /// An exchange is there.
    ExchangeDeclared {
        /// The exchange.
        record: Arc<ExchangeRecord>,
        /// Whether it was there before.
        existed: bool,
    },
    /// An exchange is gone.
    ExchangeDeleted(Arc<ExchangeRecord>),
    /// A queue is there.
    QueueDeclared {
        /// The queue.
        record: Arc<QueueRecord>,
        /// Whether it was there before.
        existed: bool,
    },
    /// A queue is gone.
    QueueDeleted(Arc<QueueRecord>),
    /// A binding is there.
    Bound {
        /// Where it is.
        vhost: VhostName,
        /// The binding.
        binding: Arc<Binding>,
        /// Whether it was there before.
        existed: bool,
        /// Whether it survives restarts: both its ends do.
        durable: bool,
    },
    /// A binding is gone.
    Unbound {
        /// Where it was.
        vhost: VhostName,
        /// The binding.
        binding: Arc<Binding>,
        /// Whether it would have survived restarts. False if it went with one of its ends, whose event says it.
        durable: bool,
    },
    /// A node belongs to the cluster from now on.
    MemberAdded(Arc<Member>),
    /// A member has started for the first time.
    MemberStarted(Arc<Member>),
    /// A node does not belong to the cluster any more. Its queues follow.
    MemberRemoved(Arc<Member>),
    /// The catalog is that of a node that was alone.
    Imported,
    /// The cluster has a new name.
    ClusterNamed(String),
    /// There was nothing to do: what was to be deleted does not exist.
    Unchanged,
    /// Nothing was done, for this reason.
    Refused(Refusal),
}

impl CatalogEvent {
    /// Whether the catalog changed.
    pub fn is_change(&self) -> bool {
        match self {
            CatalogEvent::VhostCreated { existed, .. }
            | CatalogEvent::ExchangeDeclared { existed, .. }
            | CatalogEvent::QueueDeclared { existed, .. }
            | CatalogEvent::Bound { existed, .. } => !existed,
            CatalogEvent::Unchanged | CatalogEvent::Refused(_) => false,
            _ => true,
        }
    }

    /// Whether the catalog changed in a way that must survive a crash once it was answered.
    pub fn is_durable_change(&self) -> bool {
        self.is_change()
            && match self {
                CatalogEvent::ExchangeDeclared { record, .. } | CatalogEvent::ExchangeDeleted(record) => record.durable,
                CatalogEvent::QueueDeclared { record, .. } | CatalogEvent::QueueDeleted(record) => record.durable,
                CatalogEvent::Bound { durable, .. } | CatalogEvent::Unbound { durable, .. } => *durable,
                _ => true,
            }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            CatalogEvent::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}
