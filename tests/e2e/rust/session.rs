//! The connections of one case and the verbs the cases share.

use std::fmt::Debug;
use std::time::Duration;

use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// How long a delivery may take.
const DELIVERY_LIMIT: Duration = Duration::from_secs(10);

/// Why a case failed.
#[derive(Debug)]
pub struct Failure(pub String);

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Failure(error.to_string())
    }
}

/// What a verb or a case comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The connections of one case, closed at its end.
pub struct Session {
    url: String,
    open: Vec<Connection>,
}

impl Session {
    /// A session without a connection.
    pub fn new(url: &str) -> Self {
        Session { url: url.to_owned(), open: Vec::new() }
    }

    /// A new connection; `change` may edit the URI.
    pub async fn connect_with(&mut self, change: impl FnOnce(&mut AMQPUri)) -> Result<&Connection, lapin::Error> {
        let mut uri: AMQPUri = self.url.parse().map_err(std::io::Error::other)?;
        change(&mut uri);
        self.open.push(Connection::connect_uri(uri, ConnectionProperties::default()).await?);
        // Just pushed.
        self.open.last().ok_or_else(|| std::io::Error::other("no connection").into())
    }

    /// A new connection.
    pub async fn connect(&mut self) -> Result<&Connection, lapin::Error> {
        self.connect_with(|_| {}).await
    }

    /// A channel with confirms on a new connection.
    pub async fn channel(&mut self) -> Outcome<Channel> {
        let channel = self.connect().await?.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// A fresh queue and a channel on a new connection.
    pub async fn queue_with(&mut self, name: &str, options: QueueDeclareOptions) -> Outcome<Channel> {
        let channel = self.channel().await?;
        delete_queue(&channel, name).await?;
        channel.queue_declare(name.into(), options, FieldTable::default()).await?;
        Ok(channel)
    }

    /// A fresh transient queue and a channel on a new connection.
    pub async fn queue(&mut self, name: &str) -> Outcome<Channel> {
        self.queue_with(name, QueueDeclareOptions::default()).await
    }

    /// Closes what is still open.
    pub async fn close(&mut self) {
        for connection in self.open.drain(..) {
            // A case may have closed it, or the broker.
            let _ = connection.close(200, "".into()).await;
        }
    }
}

/// Fails with both values unless they are equal.
pub fn equal<T: PartialEq + Debug>(got: T, want: T, what: &str) -> Outcome {
    if got == want { Ok(()) } else { Err(Failure(format!("{what}: got {got:?}, want {want:?}"))) }
}

/// The decimal texts of `numbers`.
pub fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// Publishes one message and waits for its confirm.
pub async fn send(channel: &Channel, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) -> Outcome {
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await?;
    if confirm.is_ack() { Ok(()) } else { Err(Failure(format!("no ack but {confirm:?}"))) }
}

/// Publishes `bodies` to `queue` through the default exchange.
pub async fn publish<T: AsRef<str>>(channel: &Channel, queue: &str, bodies: &[T]) -> Outcome {
    for body in bodies {
        send(channel, "", queue, body.as_ref().as_bytes(), BasicProperties::default()).await?;
    }
    Ok(())
}

/// Ready messages of `queue`.
pub async fn count(channel: &Channel, queue: &str) -> Result<u32, lapin::Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), passive, FieldTable::default()).await?.message_count())
}

/// Deletes `queue`; returns how many messages it held.
pub async fn delete_queue(channel: &Channel, queue: &str) -> Outcome<u32> {
    Ok(channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?)
}

/// Gets one message.
pub async fn next(channel: &Channel, queue: &str, no_ack: bool) -> Result<Option<BasicGetMessage>, lapin::Error> {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack }).await
}

/// Gets and acknowledges everything.
pub async fn drain(channel: &Channel, queue: &str) -> Outcome<Vec<String>> {
    let mut bodies = Vec::new();
    while let Some(message) = next(channel, queue, true).await? {
        bodies.push(text(&message.delivery));
    }
    Ok(bodies)
}

/// Gets one message that must be `body`; returns its delivery tag.
pub async fn get(channel: &Channel, queue: &str, body: &str, redelivered: bool) -> Outcome<u64> {
    let message = next(channel, queue, false).await?.ok_or_else(|| Failure(format!("get: empty, want {body}")))?;
    equal((text(&message.delivery).as_str(), message.delivery.redelivered), (body, redelivered), "get")?;
    Ok(message.delivery.delivery_tag)
}

/// The body of a delivery as text.
pub fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.data).into_owned()
}

/// A consumer whose deliveries wait in a mailbox; `None` is the server's cancellation.
pub struct Mailbox(UnboundedReceiver<Result<Option<Delivery>, lapin::Error>>);

impl Mailbox {
    /// Starts a consumer on `queue`.
    pub async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Outcome<Mailbox> {
        let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        let (sender, receiver) = unbounded_channel();
        consumer.set_delegate(move |delivery| {
            // The case has ended when nobody receives.
            let _ = sender.send(delivery);
            async {}
        });
        Ok(Mailbox(receiver))
    }

    /// The next delivery, or `None` if the server cancelled the consumer.
    pub async fn take(&mut self) -> Outcome<Option<Delivery>> {
        match timeout(DELIVERY_LIMIT, self.0.recv()).await {
            Ok(Some(delivery)) => Ok(delivery?),
            Ok(None) => Err(Failure("the consumer ended".into())),
            Err(_) => Err(Failure(format!("no delivery within {DELIVERY_LIMIT:?}"))),
        }
    }

    /// The next `count` deliveries as (tag, body).
    pub async fn take_all(&mut self, count: usize) -> Outcome<Vec<(u64, String)>> {
        let mut taken = Vec::new();
        for number in 0..count {
            let delivery = self.take().await?.ok_or_else(|| Failure(format!("cancelled after {number}")))?;
            taken.push((delivery.delivery_tag, text(&delivery)));
        }
        Ok(taken)
    }

    /// Fails if a delivery comes within 300 ms.
    pub async fn none(&mut self) -> Outcome {
        match timeout(Duration::from_millis(300), self.0.recv()).await {
            Ok(more) => Err(Failure(format!("one delivery too many: {more:?}"))),
            Err(_) => Ok(()),
        }
    }
}

/// Fails unless `result` is a close with `code` and `text`.
pub fn closed<T>(result: Result<T, lapin::Error>, code: u16, text: &str) -> Outcome {
    match result {
        Ok(_) => Err(Failure(format!("no close {code}"))),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(close) => {
                equal((close.get_id(), close.get_message().as_str()), (code, text), "close")
            }
            _ => Err(Failure(format!("no close {code} but {error}"))),
        },
    }
}

/// Fails unless `queue` does not exist; the channel is closed by asking.
pub async fn missing(channel: &Channel, queue: &str) -> Outcome {
    closed(count(channel, queue).await, 404, &format!("NOT_FOUND - no queue '{queue}' in vhost '/'"))
}

/// Asks whoever runs us to restart the broker, and waits until it serves again.
pub async fn restart(how: &str) -> Outcome {
    println!("restart {how}");
    let mut line = String::new();
    // Nothing else runs in this program while the broker is away, so a blocking read does no harm.
    std::io::stdin().read_line(&mut line).map_err(|error| Failure(error.to_string()))?;
    equal(line.trim(), "restarted", "the answer to our wish for a restart")
}
