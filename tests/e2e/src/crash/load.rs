//! The clients of a round: producers with confirms, consumers of several manners, and the drain.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::history::{Attempt, Delivery, Fate};
use super::message::{DIRECT_QUEUES, FANOUT_EXCHANGE, FANOUT_QUEUES, MessageId, QUEUES, Route, queue_name};

/// Producers of a round; each has a connection and a channel.
pub const PRODUCERS: u32 = 4;
/// Publishes of one producer without a confirm.
const CONFIRM_WINDOW: usize = 256;
/// Unacknowledged deliveries of one consumer.
const PREFETCH: u16 = 100;
/// How many deliveries [`Manner::InBatches`] acknowledges at once.
const ACK_BATCH: usize = 16;
/// [`Manner::GivesBack`] requeues one new delivery in this many.
const GIVE_BACK_EVERY: u64 = 37;
/// How often a consumer makes a call that is answered, to know that its acknowledgements were read.
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// A drain is over when the queue is empty and nothing came for this long.
const DRAIN_IDLE: Duration = Duration::from_millis(250);
/// A drain that got nothing for this long gives up, however many messages the queue counts.
const DRAIN_STUCK: Duration = Duration::from_secs(30);
/// How often a client tries to log in, and the pause between.
const OPEN_ATTEMPTS: u32 = 4;
const OPEN_PAUSE: Duration = Duration::from_millis(200);
/// How long one try may take.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// A confirm that did not come this long after its connection ended will not come.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);

/// How a consumer settles what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Each delivery on its own.
    OneByOne,
    /// Several with one `multiple` acknowledgement.
    InBatches,
    /// Each on its own; some go back to the queue the first time.
    GivesBack,
    /// In batches, until the queue is empty.
    Drains,
}

/// The consumers that run while the broker is struck: queue 0 and the last one only grow.
pub const CONSUMERS: [(u8, Manner); 5] = [
    (1, Manner::OneByOne),
    (2, Manner::InBatches),
    (2, Manner::InBatches),
    (3, Manner::GivesBack),
    (DIRECT_QUEUES, Manner::OneByOne),
];

/// A client's log, and the error that ended it.
#[derive(Debug)]
pub struct Log<T> {
    /// What it saw, in order.
    pub entries: Vec<T>,
    /// When and why it ended before it was done.
    pub error: Option<(Instant, String)>,
    /// What its queue still counted, if it drained one and gave up.
    pub left_over: Option<(u8, u32)>,
}

/// Opens a channel on a new connection, trying again where a login took too long on a starved machine.
async fn open(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    for _ in 1..OPEN_ATTEMPTS {
        if let Ok(opened) = try_open(url).await {
            return Ok(opened);
        }
        sleep(OPEN_PAUSE).await;
    }
    try_open(url).await
}

async fn try_open(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    let opening = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    };
    // A client whose broker is killed in the middle of the handshake waits for ever.
    let late = || Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    timeout(OPEN_LIMIT, opening).await.unwrap_or_else(|_| late())
}

/// Declares the queues, the fanout exchange and its bindings: once in a campaign, so that a lost one shows.
pub async fn declare(url: &str) -> Result<(), lapin::Error> {
    let (connection, channel) = open(url).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(FANOUT_EXCHANGE.into(), ExchangeKind::Fanout, durable, none()).await?;
    for number in 0..QUEUES {
        channel.queue_declare(queue_name(number).into(), QueueDeclareOptions::durable(), none()).await?;
    }
    for number in DIRECT_QUEUES..DIRECT_QUEUES + FANOUT_QUEUES {
        let queue = queue_name(number).into();
        channel.queue_bind(queue, FANOUT_EXCHANGE.into(), "".into(), QueueBindOptions::default(), none()).await?;
    }
    connection.close(200, "".into()).await
}

/// Ready messages of each queue, all of which must exist.
pub async fn counts(url: &str) -> Result<Vec<(u8, u32)>, lapin::Error> {
    let (connection, channel) = open(url).await?;
    let mut counts = Vec::new();
    for number in 0..QUEUES {
        counts.push((number, ready(&channel, number).await?));
    }
    connection.close(200, "".into()).await?;
    Ok(counts)
}

async fn ready(channel: &Channel, queue: u8) -> Result<u32, lapin::Error> {
    let passive = QueueDeclareOptions::durable().passive();
    Ok(channel.queue_declare(queue_name(queue).into(), passive, FieldTable::default()).await?.message_count())
}

fn route(producer: u32, sequence: u64) -> Route {
    match producer {
        0 => Route::Queue(1),
        1 => Route::Fanout,
        // Spread over the queues, so that one channel's order can be seen in each.
        _ => Route::Queue(u8::try_from(sequence / 3 % u64::from(DIRECT_QUEUES)).unwrap_or_default()),
    }
}

/// Publishes until the connection ends, and adds what is confirmed to `confirmed` as it comes.
pub async fn produce(url: String, round: u32, producer: u32, confirmed: Arc<AtomicUsize>) -> Log<Attempt> {
    let mut log = Log { entries: Vec::new(), error: None, left_over: None };
    let mut window: VecDeque<(usize, PublisherConfirm)> = VecDeque::new();
    let ended = publish_all(&url, (round, producer), &mut log.entries, &mut window, &confirmed).await;
    log.error = ended.err().map(|error| (Instant::now(), format!("producer {producer}: {error}")));
    for (place, confirm) in window {
        if let Ok(Ok(confirmation)) = timeout(CONFIRM_LIMIT, confirm).await {
            note(&mut log.entries, place, &confirmation);
        }
    }
    log
}

async fn publish_all(
    url: &str,
    (round, producer): (u32, u32),
    attempts: &mut Vec<Attempt>,
    window: &mut VecDeque<(usize, PublisherConfirm)>,
    confirmed: &AtomicUsize,
) -> Result<(), lapin::Error> {
    let (_connection, channel) = open(url).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for sequence in 0.. {
        let (id, route) = (MessageId { round, producer, sequence }, route(producer, sequence));
        attempts.push(Attempt { id, route, fate: Fate::Unknown });
        let (exchange, key) = match route {
            Route::Queue(number) => (String::new(), queue_name(number)),
            Route::Fanout => (FANOUT_EXCHANGE.to_owned(), String::new()),
        };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let (options, body) = (BasicPublishOptions::default(), id.body());
        let publish = channel.basic_publish(exchange.into(), key.into(), options, &body, persistent);
        window.push_back((attempts.len() - 1, publish.await?));
        if window.len() >= CONFIRM_WINDOW
            && let Some((place, confirm)) = window.pop_front()
        {
            note(attempts, place, &confirm.await?);
            confirmed.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn note(attempts: &mut [Attempt], place: usize, confirmation: &Confirmation) {
    if let Some(attempt) = attempts.get_mut(place) {
        attempt.fate = if confirmation.is_ack() { Fate::Confirmed } else { Fate::Refused };
    }
}

/// Consumes until the connection ends, or, when it drains, until the queue is empty.
pub async fn consume(url: String, queue: u8, session: u32, manner: Manner) -> Log<Delivery> {
    let mut consumer = Consumer { queue, session, manner, entries: Vec::new(), unacknowledged: Vec::new(), settled: 0 };
    let ended = consumer.run(&url).await;
    let error = |error: &lapin::Error| (Instant::now(), format!("consumer of queue {queue}: {error}"));
    Log {
        error: ended.as_ref().err().map(error),
        left_over: ended.ok().filter(|count| *count > 0).map(|count| (queue, count)),
        entries: consumer.entries,
    }
}

type Mail = UnboundedReceiver<Result<Option<lapin::message::Delivery>, lapin::Error>>;

struct Consumer {
    queue: u8,
    session: u32,
    manner: Manner,
    entries: Vec<Delivery>,
    /// Places in `entries`, with their delivery tags, that wait for a `multiple` acknowledgement.
    unacknowledged: Vec<(usize, u64)>,
    /// Everything before this place in `entries` has been settled.
    settled: usize,
}

impl Consumer {
    /// Returns how many messages the queue still counts.
    async fn run(&mut self, url: &str) -> Result<u32, lapin::Error> {
        let (connection, channel) = open(url).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (name, options) = (queue_name(self.queue), BasicConsumeOptions::default());
        let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await?;
        let (sender, mut mail) = unbounded_channel();
        consumer.set_delegate(move |delivery| {
            // Nobody receives once the consumer has ended.
            let _ = sender.send(delivery);
            async {}
        });
        let (mut last_delivery, mut last_settled) = (Instant::now(), Instant::now());
        loop {
            match next(&mut mail).await? {
                Some(delivery) => {
                    last_delivery = Instant::now();
                    self.receive(&channel, delivery).await?;
                }
                None if self.manner == Manner::Drains && last_delivery.elapsed() > DRAIN_IDLE => {
                    self.settle(&channel).await?;
                    let left = ready(&channel, self.queue).await?;
                    // What the broker sent before it counted is in the mail by now, and must not go back with the channel.
                    if (left == 0 && mail.is_empty()) || last_delivery.elapsed() > DRAIN_STUCK {
                        connection.close(200, "".into()).await?;
                        return Ok(left);
                    }
                }
                None => {}
            }
            if last_settled.elapsed() > SETTLE_EVERY {
                last_settled = Instant::now();
                self.settle(&channel).await?;
            }
        }
    }

    async fn receive(&mut self, channel: &Channel, delivery: lapin::message::Delivery) -> Result<(), lapin::Error> {
        let id = MessageId::of_body(&delivery.data);
        let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
        let place = self.entries.len();
        self.entries.push(Delivery {
            queue: self.queue,
            session: self.session,
            id,
            redelivered,
            at: Instant::now(),
            acknowledged: false,
            settled_at: None,
        });
        let gives_back = self.manner == Manner::GivesBack && !redelivered;
        if gives_back && id.is_some_and(|id| id.sequence % GIVE_BACK_EVERY == 0) {
            return channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await;
        }
        self.unacknowledged.push((place, tag));
        let batch = if matches!(self.manner, Manner::InBatches | Manner::Drains) { ACK_BATCH } else { 1 };
        if self.unacknowledged.len() >= batch { self.acknowledge(channel).await } else { Ok(()) }
    }

    async fn acknowledge(&mut self, channel: &Channel) -> Result<(), lapin::Error> {
        let Some((_, tag)) = self.unacknowledged.last().copied() else { return Ok(()) };
        // Noted first: an acknowledgement that may have been sent counts as sent.
        for (place, _) in self.unacknowledged.drain(..) {
            if let Some(delivery) = self.entries.get_mut(place) {
                delivery.acknowledged = true;
            }
        }
        let multiple = matches!(self.manner, Manner::InBatches | Manner::Drains);
        channel.basic_ack(tag, BasicAckOptions { multiple }).await
    }

    /// Acknowledges the rest and makes a call whose answer tells that the broker has read all that.
    async fn settle(&mut self, channel: &Channel) -> Result<(), lapin::Error> {
        self.acknowledge(channel).await?;
        let upto = self.entries.len();
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let now = Instant::now();
        for delivery in self.entries.iter_mut().take(upto).skip(self.settled).filter(|delivery| delivery.acknowledged) {
            delivery.settled_at = Some(now);
        }
        self.settled = upto;
        Ok(())
    }
}

/// The next delivery, or `None` if none came for a moment.
async fn next(mail: &mut Mail) -> Result<Option<lapin::message::Delivery>, lapin::Error> {
    match timeout(Duration::from_millis(50), mail.recv()).await {
        Err(_) => Ok(None),
        Ok(Some(Ok(Some(delivery)))) => Ok(Some(delivery)),
        Ok(Some(Err(error))) => Err(error),
        Ok(Some(Ok(None)) | None) => Err(std::io::Error::other("the consumer was cancelled").into()),
    }
}
