//! Persistent messages that no queue has to store: they do not count as waiting for the disk, or publishers would be held back for ever.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use harness::{Broker, Brokerd, Options};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};

/// How long all confirms may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const BODY_BYTES: usize = 64 * 1024;
/// Together nearly twice as much as may wait for the disk before publishers are held back.
const MESSAGES: usize = 700;

/// Publishes to a queue and waits for every confirm.
async fn publish_all(durable: bool, consumed: bool) {
    let broker = Brokerd::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.amqp_port());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let options = QueueDeclareOptions { durable, ..Default::default() };
    channel.queue_declare("q".into(), options, arguments).await.unwrap();
    let consuming = connection.create_channel().await.unwrap();
    let mut _consumer = None;
    if consumed {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        _consumer =
            Some(consuming.basic_consume("q".into(), "c".into(), options, FieldTable::default()).await.unwrap());
    }
    let body = vec![7; BODY_BYTES];
    let properties = BasicProperties::default().with_delivery_mode(2);
    let all = async {
        let mut confirms = Vec::new();
        for _ in 0..MESSAGES {
            let (options, properties) = (BasicPublishOptions::default(), properties.clone());
            confirms.push(channel.basic_publish("".into(), "q".into(), options, &body, properties).await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "publishers are held back for what nobody stores");
}

#[tokio::test]
async fn persistent_messages_in_a_transient_queue() {
    publish_all(false, false).await;
}

#[tokio::test]
async fn persistent_messages_that_a_consumer_has_at_once() {
    publish_all(true, true).await;
}
