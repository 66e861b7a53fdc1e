//! What an operator of this node asks about the queues and connections of others.

use std::time::Duration;

use broker_core::name::NodeId;
use broker_meta::raft::Node;
use proto::admin::v1::{
    ChannelPart, CloseConnectionsRequest, CloseConnectionsResponse, ConnectionPart, ConsumerPart, DeleteQueueRequest,
    ListConnectionsRequest, PurgeQueueRequest, QueueAnswer,
};
use proto::node::v1::node_client::NodeClient;
use proto::node::v1::{CountQueuesRequest, QueueCount};
use tokio::sync::mpsc::Sender;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::{Handle, control};

/// A node has so long to answer, or to send the next part of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// A list of clients, in parts.
pub trait Listed: Sized + Send + 'static {
    /// Asks for it.
    fn ask(
        client: NodeClient<Channel>,
        request: ListConnectionsRequest,
    ) -> impl Future<Output = Result<Response<Streaming<Self>>, Status>> + Send;
    /// A part that says whose part is missing.
    fn missing(node: String) -> Self;
    /// Says which node the part is of.
    fn name(&mut self, node: &str);
}

impl Handle {
    /// Counts of queues that live on another node.
    pub async fn count_queues(&self, node: NodeId, ids: Vec<u64>) -> Result<Vec<QueueCount>, Status> {
        let ask = async move |mut client: NodeClient<Channel>| client.count_queues(CountQueuesRequest { ids }).await;
        Ok(self.ask(node, ask).await?.counts)
    }

    /// Has another node throw a queue's ready messages away.
    pub async fn purge_queue(&self, node: NodeId, request: PurgeQueueRequest) -> Result<QueueAnswer, Status> {
        self.ask(node, async move |mut client: NodeClient<Channel>| client.purge_queue(request).await).await
    }

    /// Has another node delete a queue.
    pub async fn delete_queue(&self, node: NodeId, request: DeleteQueueRequest) -> Result<QueueAnswer, Status> {
        self.ask(node, async move |mut client: NodeClient<Channel>| client.delete_queue(request).await).await
    }

    /// Has another node close connections.
    pub async fn close_connections(
        &self,
        node: NodeId,
        request: CloseConnectionsRequest,
    ) -> Result<CloseConnectionsResponse, Status> {
        self.ask(node, async move |mut client: NodeClient<Channel>| client.close_connections(request).await).await
    }

    /// Sends on what another node lists, and what is missing of it.
    pub async fn list<T: Listed>(
        &self,
        node: NodeId,
        request: ListConnectionsRequest,
        parts: &Sender<Result<T, Status>>,
    ) {
        let name = self.name_of(node);
        let Ok(client) = self.client(node) else {
            drop(parts.send(Ok(T::missing(name))).await);
            return;
        };
        let asked = tokio::time::timeout(ANSWER_TIME, T::ask(client, request)).await;
        let Ok(Ok(answer)) = asked else {
            drop(parts.send(Ok(T::missing(name))).await);
            return;
        };
        let mut stream = answer.into_inner();
        loop {
            match tokio::time::timeout(ANSWER_TIME, stream.message()).await {
                Ok(Ok(Some(mut part))) => {
                    part.name(&name);
                    if parts.send(Ok(part)).await.is_err() {
                        return;
                    }
                }
                Ok(Ok(None)) => return,
                Ok(Err(_)) | Err(_) => return drop(parts.send(Ok(T::missing(name))).await),
            }
        }
    }

    /// The other members, by number.
    pub fn others(&self) -> Vec<NodeId> {
        let me = self.node();
        self.catalog().members().iter().map(|member| member.node).filter(|node| *node != me).collect()
    }

    /// A member's name.
    pub fn name_of(&self, node: NodeId) -> String {
        self.catalog().members().get(node).map_or_else(|| node.0.to_string(), |member| member.name.clone())
    }

    async fn ask<T, F>(
        &self,
        node: NodeId,
        work: impl FnOnce(NodeClient<Channel>) -> F + Send + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let (client, name) = (self.client(node)?, self.name_of(node));
        // Streams belong to the cluster's own threads.
        let asked = self.runtime.spawn(async move { tokio::time::timeout(ANSWER_TIME, work(client)).await });
        match asked.await {
            Ok(Ok(Ok(answer))) => Ok(answer.into_inner()),
            Ok(Ok(Err(status))) => Err(Status::unavailable(format!("{name}: {}", control::why(&status)))),
            Ok(Err(_)) => Err(Status::unavailable(format!("{name} does not answer"))),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    /// What a node is asked with; one that is not seen is not asked.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    fn client(&self, node: NodeId) -> Result<NodeClient<Channel>, Status> {
        let catalog = self.catalog();
        let member = catalog.members().get(node).filter(|_| self.seen().contains(&node.0));
        let member = member.ok_or_else(|| Status::unavailable(format!("{} is not running", self.name_of(node))))?;
        let place = Node { name: member.name.clone(), address: member.address.clone() };
        let _inside = self.runtime.enter();
        Ok(self.peers.client(node.0, &place))
    }
}

impl Listed for ConnectionPart {
    async fn ask(
        mut client: NodeClient<Channel>,
        request: ListConnectionsRequest,
    ) -> Result<Response<Streaming<Self>>, Status> {
        client.list_connections(request).await
    }

    fn missing(node: String) -> Self {
        ConnectionPart { silent: vec![node], ..ConnectionPart::default() }
    }

    fn name(&mut self, node: &str) {
        self.connections.iter_mut().for_each(|one| one.node = node.into());
    }
}

impl Listed for ChannelPart {
    async fn ask(
        mut client: NodeClient<Channel>,
        request: ListConnectionsRequest,
    ) -> Result<Response<Streaming<Self>>, Status> {
        client.list_channels(request).await
    }

    fn missing(node: String) -> Self {
        ChannelPart { silent: vec![node], ..ChannelPart::default() }
    }

    fn name(&mut self, node: &str) {
        self.channels.iter_mut().filter_map(|one| one.connection.as_mut()).for_each(|one| one.node = node.into());
    }
}

impl Listed for ConsumerPart {
    async fn ask(
        mut client: NodeClient<Channel>,
        request: ListConnectionsRequest,
    ) -> Result<Response<Streaming<Self>>, Status> {
        client.list_consumers(request).await
    }

    fn missing(node: String) -> Self {
        ConsumerPart { silent: vec![node], ..ConsumerPart::default() }
    }

    fn name(&mut self, node: &str) {
        self.consumers.iter_mut().for_each(|one| one.node = node.into());
    }
}
