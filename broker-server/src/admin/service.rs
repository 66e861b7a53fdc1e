//! The admin service: every request asks the shard, nothing is decided here.

use std::pin::Pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use broker_core::access::PASSWORD_MAX_BYTES;
use broker_core::name::NodeId;
use broker_meta::command::user_message;
use broker_meta::{Catalog, Command};
use broker_mgmt::definitions::{DOCUMENT_MAX_BYTES, export};
use proto::admin::v1::admin_server::Admin;
use proto::admin::v1::alarm_limits::{Disk, Memory};
use proto::admin::v1::{
    AlarmLimits, AlarmLimitsInEffect, CatalogPart, ChangeRequest, ChangeResponse, ChannelPart, CloseConnectionsRequest,
    CloseConnectionsResponse, ConnectionPart, ConsumerPart, DeleteQueueRequest, DocumentPart, Existence,
    ExportDefinitionsRequest, ForceBootRequest, ForceBootResponse, ForgetNodeRequest, ForgetNodeResponse,
    GetClusterRequest, GetStatusRequest, ImportDefinitionsResponse, JoinClusterRequest, JoinClusterResponse,
    LeaveClusterRequest, LeaveClusterResponse, ListCatalogRequest, ListConnectionsRequest, ListQueuesRequest, Outcome,
    PurgeQueueRequest, PutUserRequest, QueueAnswer, QueuePart, Reason, SetDrainedRequest, SetDrainedResponse,
    Status as NodeStatus,
};
use proto::meta::command::Kind;
use proto::meta::{self};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::definitions::tell;
use super::import::{Imported, hash_password, import, read, rehearse};
use super::precheck::{outcome, precheck, refused};
use super::queues::Counting;
use super::server::Node;
use super::shard::Stopping;
use super::{ShardHandle, here, lists};
use crate::alarm::decide;
use crate::cluster::{self, Listed};
use crate::config::{DiskFreeLimit, MemoryWatermark};
use crate::driver::admin::Request as ShardRequest;
use crate::driver::numbers::node_in;

/// Commands of one request.
pub(super) const COMMANDS_MAX: usize = 1_000;
/// Octets of a document in one message.
const DOCUMENT_PART_BYTES: usize = 256 * 1024;
/// Parts of a list that wait for the client.
const PARTS_WAITING: usize = 2;
/// The version of RabbitMQ that tools are told.
const RABBITMQ_VERSION: &str = "3.10.8";

pub(super) type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub(super) type Reply<T> = Result<Response<T>, Status>;

/// See the module's page.
pub struct Service {
    pub(super) node: Node,
    pub(super) shard: ShardHandle,
}

impl Service {
    /// Serves this node.
    pub fn new(node: Node, shard: ShardHandle) -> Self {
        Self { node, shard }
    }

    pub(super) async fn catalog(&self) -> Result<Catalog, Status> {
        Ok(self.shard.ask(ShardRequest::Catalog).await?)
    }

    /// Proposes one command after the other until one is refused.
    async fn change(&self, commands: Vec<Command>, must_be_new: bool) -> Result<ChangeResponse, Status> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            // The catalog as the command before has left it.
            let one = match precheck(&self.catalog().await?, &command, must_be_new) {
                Ok(()) => self.propose(command).await?,
                Err(refused) => refused,
            };
            let was_refused = one.reason() != Reason::Accepted;
            outcomes.push(one);
            if was_refused {
                break;
            }
        }
        Ok(ChangeResponse { outcomes })
    }

    async fn propose(&self, command: Command) -> Result<Outcome, Status> {
        let answers = self.shard.ask(|answer| ShardRequest::Propose(vec![command], answer)).await?;
        answers.into_iter().next().map(outcome).ok_or_else(|| Status::internal("the catalog gave no answer"))
    }

    pub(super) fn alarms(&self) -> AlarmLimitsInEffect {
        let limits = self.node.limits_of(&self.node.alarm_config.lock().unwrap_or_else(PoisonError::into_inner));
        let sample = self.node.alarms.latest();
        let alarms = decide(sample, limits);
        AlarmLimitsInEffect {
            memory_limit_bytes: limits.memory_bytes,
            disk_free_limit_bytes: limits.disk_free_bytes,
            memory_bytes: sample.memory_bytes,
            disk_free_bytes: sample.disk_free_bytes,
            memory_alarm: alarms.memory,
            disk_alarm: alarms.disk,
        }
    }
}

#[tonic::async_trait]
impl Admin for Service {
    type ListCatalogStream = Parts<CatalogPart>;
    type ListQueuesStream = Parts<QueuePart>;
    type ListConnectionsStream = Parts<ConnectionPart>;
    type ListChannelsStream = Parts<ChannelPart>;
    type ListConsumersStream = Parts<ConsumerPart>;
    type ExportDefinitionsStream = Parts<DocumentPart>;

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Reply<NodeStatus> {
        let catalog = self.catalog().await?;
        let totals = self.shard.ask(ShardRequest::Totals).await?;
        let topology = catalog.topology();
        Ok(Response::new(NodeStatus {
            node: self.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            rabbitmq_version: RABBITMQ_VERSION.into(),
            pid: std::process::id().into(),
            uptime_ms: self.node.started.elapsed().as_millis() as u64,
            data_dir: self.node.data_dir.display().to_string(),
            cluster_name: self.cluster_name(&catalog),
            connections: totals.connections,
            channels: totals.channels,
            consumers: totals.consumers,
            queues: topology.queue_count() as u64,
            messages_ready: totals.ready,
            messages_unacknowledged: totals.unacknowledged,
            alarms: Some(self.alarms()),
            listeners: self.node.listeners.clone(),
            vhosts: topology.vhosts().count() as u64,
            queues_here: topology.queues().filter(|record| record.node == self.shard.node()).count() as u64,
            nodes: catalog.members().len().max(1) as u64,
            nodes_running: self.node.cluster.as_ref().map_or(1, |cluster| cluster.seen().len() as u64),
            drained: self.node.drained.load(Ordering::SeqCst),
            paused: self.node.cluster.as_ref().is_some_and(cluster::Handle::is_paused),
        }))
    }

    async fn change(&self, request: Request<ChangeRequest>) -> Reply<ChangeResponse> {
        let ChangeRequest { commands, must_be_new } = request.into_inner();
        if commands.len() > COMMANDS_MAX {
            return Err(Status::invalid_argument(format!("more than {COMMANDS_MAX} changes in one request")));
        }
        Ok(Response::new(self.change(commands, must_be_new).await?))
    }

    async fn put_user(&self, request: Request<PutUserRequest>) -> Reply<ChangeResponse> {
        let request = request.into_inner();
        let answer = |outcome| Ok(Response::new(ChangeResponse { outcomes: vec![outcome] }));
        if let Err(refused) = user_to_put(&self.catalog().await?, &request) {
            return answer(refused);
        }
        let stored = match &request.password {
            Some(password) if password.len() > PASSWORD_MAX_BYTES => {
                let text = format!("the password is longer than {PASSWORD_MAX_BYTES} octets");
                return answer(refused(Reason::Invalid, text));
            }
            Some(password) => {
                let password = password.clone();
                match blocking(move || hash_password(&password)).await? {
                    Ok(stored) => Some(stored),
                    Err(why) => return answer(refused(Reason::Invalid, format!("the password cannot be used: {why}"))),
                }
            }
            None => None,
        };
        // Hashing takes long: the user may be another one now, or gone.
        let mut user = match user_to_put(&self.catalog().await?, &request) {
            Ok(user) => user,
            Err(refused) => return answer(refused),
        };
        if let Some(tags) = request.tags {
            user.tags = tags.tags;
        }
        if request.clear_password {
            (user.password_hash, user.hashing_algorithm) = (String::new(), String::new());
        }
        if let Some(stored) = stored {
            (user.password_hash, user.hashing_algorithm) = (stored.hash, stored.algorithm);
        }
        answer(self.propose(Command { kind: Some(Kind::PutUser(user)) }).await?)
    }

    async fn list_catalog(&self, request: Request<ListCatalogRequest>) -> Reply<Self::ListCatalogStream> {
        let catalog = self.catalog().await?;
        let request = request.into_inner();
        let parts = blocking(move || {
            let items = lists::catalog_items(&catalog, &request);
            lists::parts(items, prost_size)
        })
        .await?;
        Ok(stream_of(parts.into_iter().map(|items| CatalogPart { items })))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Reply<Self::ListQueuesStream> {
        let catalog = self.catalog().await?;
        let vhost = request.into_inner().vhost;
        let declared = blocking(move || lists::queues(&catalog.topology(), vhost.as_deref())).await?;
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let counting = Counting::new(self.node.name.clone(), self.shard.clone(), self.node.cluster.clone());
        tokio::spawn(counting.run(declared, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_connections(&self, request: Request<ListConnectionsRequest>) -> Reply<Self::ListConnectionsStream> {
        Ok(self.list(request.into_inner(), here::connections))
    }

    async fn list_channels(&self, request: Request<ListConnectionsRequest>) -> Reply<Self::ListChannelsStream> {
        Ok(self.list(request.into_inner(), here::channels))
    }

    async fn list_consumers(&self, request: Request<ListConnectionsRequest>) -> Reply<Self::ListConsumersStream> {
        Ok(self.list(request.into_inner(), here::consumers))
    }

    async fn purge_queue(&self, request: Request<PurgeQueueRequest>) -> Reply<QueueAnswer> {
        let request = request.into_inner();
        let answer = match self.home_elsewhere(&request.vhost, &request.name).await? {
            Some((cluster, node)) => cluster.purge_queue(node, request).await?,
            None => here::purge(&self.shard, request).await?,
        };
        Ok(Response::new(answer))
    }

    async fn delete_queue(&self, request: Request<DeleteQueueRequest>) -> Reply<QueueAnswer> {
        let request = request.into_inner();
        let answer = match self.home_elsewhere(&request.vhost, &request.name).await? {
            Some((cluster, node)) => cluster.delete_queue(node, request).await?,
            None => here::delete(&self.shard, request).await?,
        };
        Ok(Response::new(answer))
    }

    async fn close_connections(&self, request: Request<CloseConnectionsRequest>) -> Reply<CloseConnectionsResponse> {
        let mut request = request.into_inner();
        let mut answer = here::close(&self.shard, request.clone()).await?;
        let Some(cluster) = &self.node.cluster else { return Ok(Response::new(answer)) };
        for node in cluster.others() {
            // A connection's number says where it is.
            if request.number.is_some_and(|number| node_in(number) != node) {
                continue;
            }
            if request.limit > 0 {
                let closed = u32::try_from(answer.closed).unwrap_or(u32::MAX);
                request.limit = match request.limit.saturating_sub(closed) {
                    0 => break,
                    left => left,
                };
            }
            match cluster.close_connections(node, request.clone()).await {
                Ok(there) => answer.closed += there.closed,
                Err(_) => answer.silent.push(cluster.name_of(node)),
            }
        }
        Ok(Response::new(answer))
    }

    async fn set_alarm_limits(&self, request: Request<AlarmLimits>) -> Reply<AlarmLimitsInEffect> {
        let AlarmLimits { memory, disk } = request.into_inner();
        let is_share = |share: f64| (0.0..=1000.0).contains(&share);
        let bad = |what| Err(Status::invalid_argument(format!("{what} is not between 0 and its greatest value")));
        let limits = {
            let mut config = self.node.alarm_config.lock().unwrap_or_else(PoisonError::into_inner);
            match memory {
                Some(Memory::MemoryRelative(share)) if !(0.0..=1.0).contains(&share) => return bad("the watermark"),
                Some(Memory::MemoryRelative(share)) => config.memory_watermark = MemoryWatermark::Relative(share),
                Some(Memory::MemoryBytes(bytes)) => config.memory_watermark = MemoryWatermark::Absolute(bytes),
                None => {}
            }
            match disk {
                Some(Disk::DiskRelativeToMemory(share)) if !is_share(share) => return bad("the disk limit"),
                Some(Disk::DiskRelativeToMemory(share)) => {
                    config.disk_free_limit = DiskFreeLimit::RelativeToMemory(share);
                }
                Some(Disk::DiskFreeBytes(bytes)) => config.disk_free_limit = DiskFreeLimit::Absolute(bytes),
                None => {}
            }
            self.node.limits_of(&config)
        };
        let ended = |_| Status::internal("the thread that watches memory and disk has ended");
        self.node.alarms.set_limits(limits).await.map_err(ended)?;
        // The shard takes what it is told in order: with this answer it has acted on the alarm.
        self.shard.ask(ShardRequest::Totals).await?;
        tracing::warn!(
            memory_bytes = limits.memory_bytes,
            disk_free_bytes = limits.disk_free_bytes,
            "an operator has changed the limits of the alarms, until the next start"
        );
        Ok(Response::new(self.alarms()))
    }

    async fn get_cluster(&self, _: Request<GetClusterRequest>) -> Reply<proto::admin::v1::Cluster> {
        let catalog = self.catalog().await?;
        Ok(Response::new(self.view_of_cluster(&catalog)))
    }

    async fn join_cluster(&self, request: Request<JoinClusterRequest>) -> Reply<JoinClusterResponse> {
        Ok(Response::new(self.join(&request.into_inner().address).await?))
    }

    async fn leave_cluster(&self, request: Request<LeaveClusterRequest>) -> Reply<LeaveClusterResponse> {
        let catalog = self.catalog().await?;
        Ok(Response::new(self.leave(&catalog, request.into_inner()).await?))
    }

    async fn forget_node(&self, request: Request<ForgetNodeRequest>) -> Reply<ForgetNodeResponse> {
        let catalog = self.catalog().await?;
        Ok(Response::new(self.forget(&catalog, &request.into_inner().name).await?))
    }

    async fn set_drained(&self, request: Request<SetDrainedRequest>) -> Reply<SetDrainedResponse> {
        Ok(Response::new(self.drain(request.into_inner().drained).await?))
    }

    async fn force_boot(&self, _: Request<ForceBootRequest>) -> Reply<ForceBootResponse> {
        Ok(Response::new(self.force_boot_now()?))
    }

    async fn export_definitions(&self, _: Request<ExportDefinitionsRequest>) -> Reply<Self::ExportDefinitionsStream> {
        let catalog = self.catalog().await?;
        let document = blocking(move || export(&catalog.to_snapshot())).await?;
        let parts: Vec<_> =
            document.chunks(DOCUMENT_PART_BYTES).map(|part| DocumentPart { octets: part.to_vec() }).collect();
        Ok(stream_of(parts.into_iter()))
    }

    async fn import_definitions(&self, request: Request<Streaming<DocumentPart>>) -> Reply<ImportDefinitionsResponse> {
        let mut stream = request.into_inner();
        let mut document = Vec::new();
        while let Some(part) = stream.message().await? {
            if document.len() + part.octets.len() > DOCUMENT_MAX_BYTES {
                let text = format!("the definitions are longer than {DOCUMENT_MAX_BYTES} octets; split them");
                return Err(Status::resource_exhausted(text));
            }
            document.extend_from_slice(&part.octets);
        }
        let mut copy = self.catalog().await?;
        let shard = self.shard.clone();
        let imported = blocking(move || {
            let commands = rehearse(read(&document)?, &mut copy, shard.node())?;
            let imported = import(&commands, &mut |commands| shard.propose_blocking(commands))?;
            tell("the admin service".as_ref(), &imported);
            Ok::<Imported, String>(imported)
        })
        .await?;
        Ok(Response::new(match imported {
            Ok(Imported { commands, changes, kept, kept_count }) => ImportDefinitionsResponse {
                outcome: Some(Outcome { changed: changes > 0, ..Outcome::default() }),
                commands: commands as u64,
                changes: changes as u64,
                kept,
                kept_count: kept_count as u64,
            },
            Err(problem) => ImportDefinitionsResponse {
                outcome: Some(refused(Reason::Invalid, problem)),
                ..ImportDefinitionsResponse::default()
            },
        }))
    }
}

impl Service {
    /// A list of this node's clients, and of those of the others.
    fn list<T, F>(
        &self,
        request: ListConnectionsRequest,
        own: impl FnOnce(ShardHandle, String, Option<String>, mpsc::Sender<Result<T, Status>>) -> F,
    ) -> Response<Parts<T>>
    where
        T: Listed,
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let here = own(self.shard.clone(), self.node.name.clone(), request.vhost.clone(), sender.clone());
        let cluster = self.node.cluster.clone();
        tokio::spawn(async move {
            here.await;
            let Some(cluster) = cluster else { return };
            for node in cluster.others() {
                cluster.list(node, request.clone(), &sender).await;
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }

    /// The other node on which a queue lives.
    async fn home_elsewhere(&self, vhost: &str, name: &str) -> Result<Option<(&cluster::Handle, NodeId)>, Status> {
        let Some(cluster) = &self.node.cluster else { return Ok(None) };
        let topology = self.catalog().await?.topology();
        let home = topology.vhost(vhost).and_then(|vhost| vhost.queue(name)).map(|record| record.node);
        Ok(home.filter(|node| *node != self.shard.node()).map(|node| (cluster, node)))
    }
}

impl From<Stopping> for Status {
    fn from(stopping: Stopping) -> Self {
        Status::unavailable(stopping.to_string())
    }
}

/// The user as it is, or a new one; refused if it must be there and is not, or the other way round.
fn user_to_put(catalog: &Catalog, request: &PutUserRequest) -> Result<meta::PutUser, Outcome> {
    let name = &request.name;
    match (request.existence(), catalog.access().user(name)) {
        (Existence::MustBeNew, Some(_)) => Err(refused(Reason::Exists, format!("user '{name}' exists"))),
        (Existence::MustExist, None) => Err(refused(Reason::NoSuchUser, format!("user '{name}' does not exist"))),
        (_, Some(user)) => Ok(user_message(user)),
        (_, None) => Ok(meta::PutUser { name: name.clone(), ..meta::PutUser::default() }),
    }
}

pub(super) fn prost_size(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

fn stream_of<T: Send + 'static>(items: impl Iterator<Item = T> + Send + 'static) -> Response<Parts<T>> {
    Response::new(Box::pin(tokio_stream::iter(items.map(Ok))))
}

/// Work that takes long, away from the thread that answers.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_user_who_went_meanwhile_is_not_put_back() {
        let mut catalog = Catalog::default();
        let request = |existence: Existence| PutUserRequest {
            name: "u".into(),
            existence: existence.into(),
            ..PutUserRequest::default()
        };
        assert!(user_to_put(&catalog, &request(Existence::MustBeNew)).is_ok());
        let put = meta::PutUser { name: "u".into(), tags: vec!["t".into()], ..meta::PutUser::default() };
        catalog.apply(1, &Command { kind: Some(Kind::PutUser(put)) });
        assert_eq!(user_to_put(&catalog, &request(Existence::MustExist)).unwrap().tags, ["t"]);
        assert_eq!(user_to_put(&catalog, &request(Existence::MustBeNew)).unwrap_err().reason(), Reason::Exists);
        catalog.apply(2, &Command { kind: Some(Kind::DeleteUser(meta::DeleteUser { name: "u".into() })) });
        assert_eq!(user_to_put(&catalog, &request(Existence::MustExist)).unwrap_err().reason(), Reason::NoSuchUser);
    }
}
