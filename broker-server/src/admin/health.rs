//! The standard health service, `grpc.health.v1.Health`: whether the node serves, for whoever watches over it or sends clients to it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto::admin::v1::admin_server::SERVICE_NAME;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::service::Service;
use crate::cluster;
use crate::driver::admin::Request as ShardRequest;

/// The main loop has to answer within this time.
const LOOP_PATIENCE: Duration = Duration::from_secs(3);
/// An answer of the main loop counts so long, however many ask: anybody may.
const LOOP_ANSWER_COUNTS: Duration = Duration::from_millis(250);
/// Those who watch hear of a change after this time at most.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aspect {
    /// Its main loop turns, and it was not told to stop.
    Live,
    /// And it is in contact with its catalog.
    Serves,
    /// And clients are let in.
    Ready,
}

/// Each by the names it has.
const ASPECTS: [(&str, Aspect); 4] =
    [("", Aspect::Serves), (SERVICE_NAME, Aspect::Live), ("liveness", Aspect::Live), ("readiness", Aspect::Ready)];

/// Whether the node goes down: said once, and heard by those who watch its health.
#[derive(Clone, Debug)]
pub struct GoingDown(Arc<watch::Sender<bool>>);

impl GoingDown {
    /// It does not.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// It does.
    pub fn say(&self) {
        self.0.send_replace(true);
    }

    /// Whether it does.
    #[must_use]
    pub fn is_so(&self) -> bool {
        *self.0.borrow()
    }

    /// Comes back when it does, or after a time.
    async fn within(&self, time: Duration) {
        let mut receiver = self.0.subscribe();
        // Either way, whoever waited looks again.
        let _ = tokio::time::timeout(time, receiver.wait_for(|down| *down)).await;
    }
}

impl Default for GoingDown {
    fn default() -> Self {
        Self::new()
    }
}

/// See the module's page. Cheap to clone.
#[derive(Clone)]
pub struct NodeHealth {
    service: Arc<Service>,
    /// When the main loop answered last.
    answered: Arc<Mutex<Option<Instant>>>,
}

impl NodeHealth {
    /// The health of the node that is served.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, answered: Arc::default() }
    }

    async fn of(&self, name: &str) -> Option<ServingStatus> {
        let (_, aspect) = ASPECTS.iter().find(|(known, _)| *known == name)?;
        let node = &self.service.node;
        let in_contact = || node.cluster.as_ref().is_none_or(|cluster| cluster.has_majority() && !cluster.is_paused());
        let clients = || {
            let drained = node.cluster.as_ref().is_some_and(cluster::Handle::is_drained);
            !drained && !node.drained.load(Ordering::SeqCst)
        };
        let serves = match aspect {
            Aspect::Live => self.is_live().await,
            Aspect::Serves => in_contact() && self.is_live().await,
            Aspect::Ready => in_contact() && clients() && self.is_live().await,
        };
        Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
    }

    async fn is_live(&self) -> bool {
        if self.service.node.going_down.is_so() {
            return false;
        }
        // Those who ask meanwhile wait for the same answer.
        let mut answered = self.answered.lock().await;
        if answered.is_some_and(|at| at.elapsed() < LOOP_ANSWER_COUNTS) {
            return true;
        }
        let answer = tokio::time::timeout(LOOP_PATIENCE, self.service.shard.ask(ShardRequest::Catalog)).await;
        let is_live = matches!(answer, Ok(Ok(_)));
        *answered = is_live.then(Instant::now);
        is_live
    }

    /// Tells one who watches, until the node goes down or nobody listens any more.
    async fn tell(self, name: String, listener: mpsc::Sender<Result<HealthCheckResponse, Status>>) {
        let mut told = None;
        while !listener.is_closed() {
            let down = self.service.node.going_down.is_so();
            let now = self.of(&name).await.unwrap_or(ServingStatus::ServiceUnknown);
            if told.replace(now) != Some(now) && listener.send(Ok(answer(now))).await.is_err() {
                return;
            }
            if down {
                return;
            }
            self.service.node.going_down.within(WATCH_EVERY).await;
        }
    }
}

#[tonic::async_trait]
impl Health for NodeHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let status = self.of(&name).await.ok_or_else(|| {
            let names: Vec<&str> = ASPECTS.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
            Status::not_found(format!(
                "there is no such service here; there are {}, and the empty name",
                names.join(", ")
            ))
        })?;
        Ok(Response::new(answer(status)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(self.clone().tell(request.into_inner().service, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
