//! What is asked of this node's own queues and connections, by its operator or by that of another node.

use broker_core::refusal::Refusal;
use proto::admin::v1::{
    Channel, ChannelPart, CloseConnectionsRequest, CloseConnectionsResponse, Connection, ConnectionPart, Consumer,
    ConsumerPart, DeleteQueueRequest, PurgeQueueRequest, QueueAnswer,
};
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::precheck::outcome;
use super::service::prost_size;
use super::shard::Stopping;
use super::{ShardHandle, lists};
use crate::cluster::Listed;
use crate::driver::admin::{Answer, Part, Request, Selection};

type Parts<T> = Sender<Result<T, Status>>;

/// Throws a queue's ready messages away.
pub async fn purge(shard: &ShardHandle, request: PurgeQueueRequest) -> Result<QueueAnswer, Stopping> {
    let (vhost, name) = (request.vhost.as_str().into(), request.name.as_str().into());
    Ok(queue_answer(shard.ask(|answer| Request::Purge(vhost, name, answer)).await?))
}

/// Deletes a queue.
pub async fn delete(shard: &ShardHandle, request: DeleteQueueRequest) -> Result<QueueAnswer, Stopping> {
    let DeleteQueueRequest { vhost, name, if_unused, if_empty } = request;
    let (vhost, name) = (vhost.as_str().into(), name.as_str().into());
    let ask = |answer| Request::Delete { vhost, name, if_unused, if_empty, answer };
    Ok(queue_answer(shard.ask(ask).await?))
}

/// Closes connections.
pub async fn close(
    shard: &ShardHandle,
    request: CloseConnectionsRequest,
) -> Result<CloseConnectionsResponse, Stopping> {
    let CloseConnectionsRequest { number, vhost, user, reason, limit } = request;
    let selection = Selection { number, vhost, user, limit: limit as usize };
    let closed = shard.ask(|answer| Request::Close(selection, reason, answer)).await?;
    Ok(CloseConnectionsResponse { closed, silent: Vec::new() })
}

/// Lists connections, of one vhost or of all.
pub async fn connections(shard: ShardHandle, node: String, vhost: Option<String>, parts: Parts<ConnectionPart>) {
    let is_wanted = |one: &Connection| is_of(vhost.as_deref(), &one.vhost);
    send_parts(
        &shard,
        Request::Connections,
        is_wanted,
        |connections| ConnectionPart { connections, silent: Vec::new() },
        &node,
        &parts,
    )
    .await;
}

/// Lists channels.
pub async fn channels(shard: ShardHandle, node: String, vhost: Option<String>, parts: Parts<ChannelPart>) {
    let vhost_of = |one: &Channel| one.connection.as_ref().map_or(String::new(), |connection| connection.vhost.clone());
    let is_wanted = |one: &Channel| is_of(vhost.as_deref(), &vhost_of(one));
    send_parts(
        &shard,
        Request::Channels,
        is_wanted,
        |channels| ChannelPart { channels, silent: Vec::new() },
        &node,
        &parts,
    )
    .await;
}

/// Lists consumers.
pub async fn consumers(shard: ShardHandle, node: String, vhost: Option<String>, parts: Parts<ConsumerPart>) {
    let is_wanted = |one: &Consumer| is_of(vhost.as_deref(), &one.vhost);
    send_parts(
        &shard,
        Request::Consumers,
        is_wanted,
        |consumers| ConsumerPart { consumers, silent: Vec::new() },
        &node,
        &parts,
    )
    .await;
}

/// Asks the shard for one part after the other, as fast as the client takes them.
async fn send_parts<T, M>(
    shard: &ShardHandle,
    ask: impl Fn(usize, Answer<Part<T>>) -> Request,
    is_wanted: impl Fn(&T) -> bool,
    message: impl Fn(Vec<T>) -> M,
    node: &str,
    parts: &Parts<M>,
) where
    T: prost::Message,
    M: Listed,
{
    let mut next = Some(0);
    while let Some(from) = next {
        let Ok(part) = shard.ask(|answer| ask(from, answer)).await else { return };
        next = part.next;
        let items = part.items.into_iter().filter(&is_wanted).collect();
        for items in lists::parts(items, prost_size) {
            let mut part = message(items);
            part.name(node);
            if parts.send(Ok(part)).await.is_err() {
                return;
            }
        }
    }
}

fn is_of(wanted: Option<&str>, vhost: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == vhost)
}

fn queue_answer(answer: Result<u64, Refusal>) -> QueueAnswer {
    let messages = answer.as_ref().copied().unwrap_or_default();
    QueueAnswer { outcome: Some(outcome(answer.map(|_| true))), messages }
}
