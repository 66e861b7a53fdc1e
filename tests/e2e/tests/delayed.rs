//! Exchanges of type x-delayed-message, for which there is no RabbitMQ to compare with here: the plugin is not part of its package.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use harness::{Broker, Brokerd, Options};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

/// A message must have come so long after it was due at the latest, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

async fn channel(broker: &Brokerd) -> Channel {
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.amqp_port());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

fn table(name: &str, value: AMQPValue) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(name.into(), value);
    table
}

async fn publish(channel: &Channel, body: &str, delay_ms: i32, mandatory: bool) -> bool {
    let headers = table("x-delay", AMQPValue::LongInt(delay_ms));
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let options = BasicPublishOptions { mandatory, ..Default::default() };
    let confirm = channel.basic_publish("delayed".into(), "k".into(), options, body.as_bytes(), properties).await;
    let confirmation = confirm.unwrap().await.unwrap();
    assert!(confirmation.is_ack());
    confirmation.take_message().is_some()
}

/// The next message and its delay, if it comes in time.
async fn next(channel: &Channel, patience: Duration) -> Option<(String, i64)> {
    let give_up = tokio::time::Instant::now() + patience;
    loop {
        let got = channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await.unwrap();
        if let Some(message) = got {
            let delay =
                message.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-delay").cloned());
            let delay = delay.and_then(|value| value.as_long_int()).map_or(0, i64::from);
            return Some((String::from_utf8(message.data.clone()).unwrap(), delay));
        }
        if tokio::time::Instant::now() >= give_up {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn messages_wait_for_their_delay_over_a_crash_and_go_with_their_exchange() {
    let mut broker = Brokerd::start(Options::default()).unwrap();
    let channel = self::channel(&broker).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let kind = ExchangeKind::Custom("x-delayed-message".into());
    let inner = table("x-delayed-type", AMQPValue::LongString("direct".into()));
    channel.exchange_declare("delayed".into(), kind, durable, inner).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("q".into(), durable, FieldTable::default()).await.unwrap();
    let options = QueueBindOptions::default();
    channel.queue_bind("q".into(), "delayed".into(), "k".into(), options, FieldTable::default()).await.unwrap();

    // What is held back counts as not routed; without a delay that makes sense it is not held back.
    assert!(publish(&channel, "second", 4000, true).await);
    assert!(!publish(&channel, "at once", 0, true).await);
    assert!(!publish(&channel, "first", 2000, false).await);
    assert!(!publish(&channel, "never", 600_000, false).await);
    assert_eq!(next(&channel, PATIENCE).await, Some(("at once".into(), 0)));
    assert_eq!(next(&channel, Duration::from_millis(300)).await, None);

    broker.kill_9().unwrap();
    broker.restart().unwrap();
    let channel = self::channel(&broker).await;
    assert_eq!(next(&channel, PATIENCE).await, Some(("first".into(), -2000)));
    assert_eq!(next(&channel, PATIENCE).await, Some(("second".into(), -4000)));

    // With the exchange goes what it holds back; a new one of that name begins with nothing.
    channel.exchange_delete("delayed".into(), Default::default()).await.unwrap();
    assert_eq!(next(&channel, Duration::from_millis(300)).await, None);
    assert!(broker.log_tail().lines().all(|line| !line.contains("[error]")), "{}", broker.log_tail());
}
