//! What every request comes to first: health is told to anybody, the rest to those who may ask.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::admin::v1::admin_server::{Admin, AdminServer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

use super::health::NodeHealth;
use super::login::Logins;
use super::remote::Peer;

/// Paths of the health service begin so.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Who asks about health has to have said so by then: nobody knows who it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module's page.
pub struct Front<A> {
    admin: AdminServer<A>,
    health: HealthServer<NodeHealth>,
    /// None: whoever gets this far is the operator.
    logins: Option<Arc<Logins>>,
}

impl<A> Front<A> {
    /// Where there is something to log in to, only users get at the admin service.
    pub fn new(admin: AdminServer<A>, health: HealthServer<NodeHealth>, logins: Option<Arc<Logins>>) -> Self {
        Self { admin, health, logins }
    }
}

impl<A> Clone for Front<A> {
    fn clone(&self) -> Self {
        Self { admin: self.admin.clone(), health: self.health.clone(), logins: self.logins.clone() }
    }
}

impl<A: Admin> Service<Request<Body>> for Front<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both services always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with(HEALTH) {
            let answer = self.health.call(request);
            return Box::pin(async move {
                let late = |_| Ok(Status::deadline_exceeded("the request did not come in time").into_http());
                tokio::time::timeout(HEALTH_TIMEOUT, answer).await.unwrap_or_else(late)
            });
        }
        let Some(logins) = self.logins.clone() else { return self.admin.call(request) };
        let mut admin = self.admin.clone();
        Box::pin(async move {
            let Some(peer) = request.extensions().get::<Peer>().cloned() else {
                return Ok(Status::internal("nobody knows where the request comes from").into_http());
            };
            let header = request.headers_mut().remove(AUTHORIZATION);
            match logins.admit(peer.address, header.as_ref()).await {
                Ok(caller) => {
                    peer.has_logged_in(&caller);
                    request.extensions_mut().insert(caller);
                    admin.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
