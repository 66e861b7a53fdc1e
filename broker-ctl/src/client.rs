//! The admin service of a broker, as calls that give whole answers.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::admin::MESSAGE_MAX_BYTES;
use proto::admin::v1::admin_client::AdminClient;
use proto::admin::v1::{
    AlarmLimits, AlarmLimitsInEffect, CatalogKind, ChangeRequest, Channel, CloseConnectionsRequest, Cluster,
    Connection, Consumer, DeleteQueueRequest, DocumentPart, ExportDefinitionsRequest, ForceBootRequest,
    ForgetNodeRequest, ForgetNodeResponse, GetClusterRequest, GetStatusRequest, ImportDefinitionsResponse,
    JoinClusterRequest, JoinClusterResponse, LeaveClusterRequest, ListCatalogRequest, ListConnectionsRequest,
    ListQueuesRequest, PurgeQueueRequest, PutUserRequest, Queue, QueueAnswer, SetDrainedRequest, SetDrainedResponse,
    Status, catalog_item,
};
use proto::meta::Command;
use proto::meta::command::Kind;
use tokio::net::UnixStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel as Transport, Endpoint, Uri};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::check::RUNNING;
use crate::exit::{Exit, Failure, accepted};
use crate::remote::Credentials;
use crate::target::Target;

/// Octets of a document in one message.
const DOCUMENT_PART_BYTES: usize = 256 * 1024;

/// A connection to a broker.
pub struct Client {
    service: AdminClient<InterceptedService<Transport, Credentials>>,
    health: HealthClient<Transport>,
}

/// Health that is watched.
pub struct Watched(Streaming<HealthCheckResponse>);

impl Watched {
    /// Whether the service serves now; waits for a change. Nothing: the node ends, or is gone.
    pub async fn next(&mut self) -> Result<Option<bool>> {
        match self.0.message().await {
            Ok(answer) => Ok(answer.map(|answer| answer.status() == ServingStatus::Serving)),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => Ok(None),
            Err(status) => Err(status.into()),
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// Runs work that talks to a broker, for as long as it may take.
pub fn block_on<T>(timeout: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Software, format!("cannot start: {error}")))?;
    let late = |_| {
        let text = format!("no answer within {} seconds; try again, or allow more with --timeout", timeout.as_secs());
        Failure::new(Exit::TryAgain, text)
    };
    runtime.block_on(async { tokio::time::timeout(timeout, work).await.map_err(late)? })
}

impl Client {
    /// Connects to a broker.
    pub async fn connect(target: &Target) -> Result<Client> {
        let (transport, credentials) = match target {
            Target::Here(socket) => (connect_here(socket).await?, Credentials::default()),
            Target::Elsewhere(remote) => (remote.connect().await?, remote.credentials()),
        };
        let mut health = HealthClient::new(transport.clone());
        if let Target::Elsewhere(remote) = target
            && let Some(refusal) = remote.refusal_of_certificate()
        {
            // Anybody may ask this: only who is not let in has no answer.
            let asked = health.check(HealthCheckRequest { service: RUNNING.into() }).await;
            asked.map_err(|_| refusal)?;
        }
        let service = AdminClient::with_interceptor(transport, credentials)
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        Ok(Client { service, health })
    }

    /// Whether a service of the node serves; the one without a name is the node itself.
    pub async fn health(&mut self, service: &str) -> Result<bool> {
        let answer = self.health.check(HealthCheckRequest { service: service.into() }).await?.into_inner();
        Ok(answer.status() == ServingStatus::Serving)
    }

    /// The same, and every change of it.
    pub async fn watch_health(&mut self, service: &str) -> Result<Watched> {
        Ok(Watched(self.health.watch(HealthCheckRequest { service: service.into() }).await?.into_inner()))
    }

    /// The node.
    pub async fn status(&mut self) -> Result<Status> {
        Ok(self.service.get_status(GetStatusRequest {}).await?.into_inner())
    }

    /// Carries out one change; whether anything is otherwise now.
    pub async fn change(&mut self, kind: Kind) -> Result<bool> {
        self.change_with(kind, false).await
    }

    /// The same; a vhost that is created must not be there.
    pub async fn change_with(&mut self, kind: Kind, must_be_new: bool) -> Result<bool> {
        let commands = vec![Command { kind: Some(kind) }];
        let answer = self.service.change(ChangeRequest { commands, must_be_new }).await?.into_inner();
        answer.outcomes.first().map_or_else(|| Err(no_answer()), accepted)
    }

    /// Creates or changes a user.
    pub async fn put_user(&mut self, request: PutUserRequest) -> Result<bool> {
        let answer = self.service.put_user(request).await?.into_inner();
        answer.outcomes.first().map_or_else(|| Err(no_answer()), accepted)
    }

    /// What the catalog holds of a kind.
    pub async fn catalog(&mut self, kind: CatalogKind, vhost: Option<&str>) -> Result<Vec<catalog_item::Kind>> {
        let request = ListCatalogRequest { kinds: vec![kind.into()], vhost: vhost.map(str::to_owned) };
        let mut parts = self.service.list_catalog(request).await?.into_inner();
        let mut items = Vec::new();
        while let Some(part) = parts.message().await? {
            items.extend(part.items.into_iter().filter_map(|item| item.kind));
        }
        Ok(items)
    }

    /// Queues.
    pub async fn queues(&mut self, vhost: Option<&str>) -> Result<Vec<Queue>> {
        let request = ListQueuesRequest { vhost: vhost.map(str::to_owned) };
        let mut parts = self.service.list_queues(request).await?.into_inner();
        let mut items = Vec::new();
        while let Some(part) = parts.message().await? {
            items.extend(part.queues);
        }
        let silent: BTreeSet<String> =
            items.iter().filter(|queue| queue.unknown).map(|queue| queue.node.clone()).collect();
        note_silent(&silent, "the counts of its queues are missing");
        Ok(items)
    }

    /// Connections.
    pub async fn connections(&mut self) -> Result<Vec<Connection>> {
        let mut parts = self.service.list_connections(ListConnectionsRequest::default()).await?.into_inner();
        let mut items = Vec::new();
        let mut silent = BTreeSet::new();
        while let Some(part) = parts.message().await? {
            items.extend(part.connections);
            silent.extend(part.silent);
        }
        note_silent(&silent, "its connections are missing");
        Ok(items)
    }

    /// Channels.
    pub async fn channels(&mut self, vhost: Option<&str>) -> Result<Vec<Channel>> {
        let request = ListConnectionsRequest { vhost: vhost.map(str::to_owned) };
        let mut parts = self.service.list_channels(request).await?.into_inner();
        let mut items = Vec::new();
        let mut silent = BTreeSet::new();
        while let Some(part) = parts.message().await? {
            items.extend(part.channels);
            silent.extend(part.silent);
        }
        note_silent(&silent, "its channels are missing");
        Ok(items)
    }

    /// Consumers.
    pub async fn consumers(&mut self, vhost: Option<&str>) -> Result<Vec<Consumer>> {
        let request = ListConnectionsRequest { vhost: vhost.map(str::to_owned) };
        let mut parts = self.service.list_consumers(request).await?.into_inner();
        let mut items = Vec::new();
        let mut silent = BTreeSet::new();
        while let Some(part) = parts.message().await? {
            items.extend(part.consumers);
            silent.extend(part.silent);
        }
        note_silent(&silent, "its consumers are missing");
        Ok(items)
    }

    /// Throws a queue's ready messages away; how many they were.
    pub async fn purge(&mut self, vhost: &str, name: &str) -> Result<u64> {
        let request = PurgeQueueRequest { vhost: vhost.into(), name: name.into() };
        messages(&self.service.purge_queue(request).await?.into_inner())
    }

    /// Deletes a queue; how many messages were ready.
    pub async fn delete_queue(&mut self, request: DeleteQueueRequest) -> Result<u64> {
        messages(&self.service.delete_queue(request).await?.into_inner())
    }

    /// Closes connections; how many.
    pub async fn close_connections(&mut self, request: CloseConnectionsRequest) -> Result<u64> {
        let answer = self.service.close_connections(request).await?.into_inner();
        note_silent(&answer.silent.into_iter().collect(), "its connections are still open");
        Ok(answer.closed)
    }

    /// Changes when alarms go off.
    pub async fn set_alarm_limits(&mut self, limits: AlarmLimits) -> Result<AlarmLimitsInEffect> {
        Ok(self.service.set_alarm_limits(limits).await?.into_inner())
    }

    /// The cluster as the node sees it.
    pub async fn cluster(&mut self) -> Result<Cluster> {
        Ok(self.service.get_cluster(GetClusterRequest {}).await?.into_inner())
    }

    /// Has the node join the cluster of another.
    pub async fn join_cluster(&mut self, address: &str) -> Result<JoinClusterResponse> {
        let request = JoinClusterRequest { address: address.into() };
        Ok(self.service.join_cluster(request).await.map_err(refusal)?.into_inner())
    }

    /// Has the node leave its cluster; how many queues go with it.
    pub async fn leave_cluster(&mut self, request: LeaveClusterRequest) -> Result<u64> {
        Ok(self.service.leave_cluster(request).await.map_err(refusal)?.into_inner().queues)
    }

    /// Takes a node out of the cluster.
    pub async fn forget_node(&mut self, name: &str) -> Result<ForgetNodeResponse> {
        let request = ForgetNodeRequest { name: name.into() };
        Ok(self.service.forget_node(request).await.map_err(refusal)?.into_inner())
    }

    /// Has the node serve no clients, or serve them again.
    pub async fn set_drained(&mut self, drained: bool) -> Result<SetDrainedResponse> {
        Ok(self.service.set_drained(SetDrainedRequest { drained }).await?.into_inner())
    }

    /// Has the node form a cluster of itself.
    pub async fn force_boot(&mut self) -> Result<()> {
        self.service.force_boot(ForceBootRequest {}).await.map_err(refusal)?;
        Ok(())
    }

    /// All definitions, as JSON.
    pub async fn export_definitions(&mut self) -> Result<Vec<u8>> {
        let mut parts = self.service.export_definitions(ExportDefinitionsRequest {}).await?.into_inner();
        let mut document = Vec::new();
        while let Some(part) = parts.message().await? {
            document.extend_from_slice(&part.octets);
        }
        Ok(document)
    }

    /// Merges definitions into what is there.
    pub async fn import_definitions(&mut self, document: &[u8]) -> Result<ImportDefinitionsResponse> {
        let parts: Vec<_> =
            document.chunks(DOCUMENT_PART_BYTES).map(|part| DocumentPart { octets: part.to_vec() }).collect();
        let answer = self.service.import_definitions(tokio_stream::iter(parts)).await?.into_inner();
        accepted(&answer.outcome.clone().unwrap_or_default())?;
        Ok(answer)
    }
}

async fn connect_here(socket: &Path) -> Result<Transport> {
    // Tried first by itself, as its error says more than the transport's.
    UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The address is not looked at: the connector knows the way.
    let transport = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    transport.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))
}

fn messages(answer: &QueueAnswer) -> Result<u64> {
    accepted(&answer.outcome.clone().unwrap_or_default())?;
    Ok(answer.messages)
}

/// That a node does not answer is no error: the rest is right.
fn note_silent(nodes: &BTreeSet<String>, what: &str) {
    for node in nodes {
        // There is nobody left to tell if standard error is gone.
        let _ = writeln!(io::stderr(), "{node} does not answer: {what}");
    }
}

/// The node will not do it, as things are.
fn refusal(status: tonic::Status) -> Failure {
    match status.code() {
        Code::FailedPrecondition => Failure::new(Exit::Unavailable, status.message()),
        _ => status.into(),
    }
}

fn no_answer() -> Failure {
    Failure::new(Exit::Software, "the broker gave no answer")
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            Exit::Unavailable,
            format!(
                "there is no broker at {path}. Start brokerd, or name its data directory with --data-dir or its socket with --socket"
            ),
        ),
        io::ErrorKind::ConnectionRefused => Failure::new(
            Exit::Unavailable,
            format!(
                "the broker of {path} does not run, or waits for the other nodes of its cluster. Start brokerd, or look into its log"
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Exit::Denied,
            format!("{path} may not be opened. Run brokerctl as the user that runs brokerd, or as root"),
        ),
        _ => Failure::new(Exit::Unavailable, format!("cannot connect to {path}: {error}")),
    }
}
