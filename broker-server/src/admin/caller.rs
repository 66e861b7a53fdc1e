//! Who asks from elsewhere, and what it may.

#![allow(clippy::result_large_err, reason = "tonic's own error")]

use std::net::SocketAddr;
use std::sync::Arc;

use broker_core::access::{Access, Operation, User};
use broker_meta::Catalog;
use tonic::{Request, Status};

use super::rights::{Deed, Extent, extent, tags_for};

/// A user who has logged in, with what the catalog says at the time of its request. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    /// The user.
    pub user: Arc<User>,
    /// Where it comes from.
    pub peer: SocketAddr,
    access: Arc<Access>,
    catalog: Arc<Catalog>,
}

type Allowed<T> = Result<T, Status>;

impl Caller {
    /// That user, as the catalog has it.
    pub fn new(user: Arc<User>, peer: SocketAddr, access: Access, catalog: Catalog) -> Self {
        Self { user, peer, access: Arc::new(access), catalog: Arc::new(catalog) }
    }

    /// Who asks. Nobody gets this far without having logged in.
    pub fn of<T>(request: &Request<T>) -> Allowed<Caller> {
        let caller = request.extensions().get::<Caller>().cloned();
        caller.ok_or_else(|| Status::unauthenticated("nobody has logged in"))
    }

    /// How far the user may go; refused if that is nowhere.
    pub fn may(&self, deed: Deed) -> Allowed<Extent> {
        match extent(&self.user, deed) {
            Extent::Nothing => Err(self.refused(&format!("it takes the tag {}", tags_for(deed).join(" or ")))),
            extent => Ok(extent),
        }
    }

    /// Whether it may do something in a vhost.
    pub fn may_in(&self, deed: Deed, vhost: &str) -> Allowed<()> {
        self.may(deed)?;
        if self.covers(deed, vhost) {
            return Ok(());
        }
        Err(self.refused(&format!("it takes permissions in the vhost '{vhost}', or the tag administrator")))
    }

    /// Whether it may do something in one vhost, if one is named.
    pub fn may_in_any(&self, deed: Deed, vhost: Option<&str>) -> Allowed<Extent> {
        if let Some(vhost) = vhost {
            self.may_in(deed, vhost)?;
        }
        self.may(deed)
    }

    /// Whether a vhost is among those in which it may do something.
    pub fn covers(&self, deed: Deed, vhost: &str) -> bool {
        match extent(&self.user, deed) {
            Extent::Nothing => false,
            Extent::Own => self.access.permissions(&self.user.name, &vhost.into()).is_some(),
            Extent::Everything => true,
        }
    }

    /// Whether a queue is its own to purge or delete: as an AMQP client could.
    pub fn may_with_queue(&self, vhost: &str, operation: &Operation<'_>) -> Allowed<()> {
        if self.may(Deed::ChangeQueues)? == Extent::Everything {
            return Ok(());
        }
        let topology = self.catalog.topology();
        let is_allowed =
            topology.vhost(vhost).is_some_and(|vhost| self.access.authorize(&self.user.name, vhost, operation).is_ok());
        if is_allowed {
            return Ok(());
        }
        Err(self.refused(&format!("its permissions in the vhost '{vhost}' do not allow it")))
    }

    /// The user whose clients it may see or close; none: anybody's.
    pub fn whose(&self, deed: Deed) -> Allowed<Option<String>> {
        let own = self.may(deed)? == Extent::Own;
        Ok(own.then(|| self.user.name.as_str().to_owned()))
    }

    /// Says in the log what it does.
    pub fn does(&self, what: &str) {
        tracing::info!(peer = %self.peer, user = self.user.name.as_str(), "an operator has asked to {what}");
    }

    /// A refusal, which the log is told too.
    pub fn refused(&self, why: &str) -> Status {
        let user = self.user.name.as_str();
        tracing::warn!(peer = %self.peer, user, "refused to an operator: {why}");
        Status::permission_denied(format!("user '{user}' may not do this: {why}"))
    }
}
