//! The cases of cases.txt; each gives back the first difference.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, BasicRecoverOptions, BasicRejectOptions,
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions, QueueBindOptions,
    QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, DecimalValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};
use tokio::time::sleep;

use crate::session::{
    Failure, Mailbox, Outcome, Session, closed, count, delete_queue, drain, equal, get, missing, next, publish,
    restart, send, text, texts,
};

const MULTIPLE: BasicAckOptions = BasicAckOptions { multiple: true };
const SINGLE: BasicAckOptions = BasicAckOptions { multiple: false };

/// Runs the case `name`.
pub async fn run(name: &str, session: &mut Session) -> Outcome {
    match name {
        "publish-confirm" => publish_confirm(session).await,
        "consume-prefetch" => consume_prefetch(session).await,
        "consumers-round-robin" => consumers_round_robin(session).await,
        "requeue" => requeue(session).await,
        "recover" => recover(session).await,
        "get" => get_counts(session).await,
        "mandatory-return" => mandatory_return(session).await,
        "large-bodies" => large_bodies(session).await,
        "properties" => properties(session).await,
        "error-404-passive" => error_404_passive(session).await,
        "error-404-publish" => error_404_publish(session).await,
        "error-405-exclusive" => error_405_exclusive(session).await,
        "error-406-inequivalent" => error_406_inequivalent(session).await,
        "error-406-double-ack" => error_406_double_ack(session).await,
        "error-503-exchange-type" => error_503_exchange_type(session).await,
        "error-530-vhost" => error_530_vhost(session).await,
        "error-403-login" => error_403_login(session).await,
        "queue-server-named" => queue_server_named(session).await,
        "queue-exclusive" => queue_exclusive(session).await,
        "queue-auto-delete" => queue_auto_delete(session).await,
        "queue-purge-delete" => queue_purge_delete(session).await,
        "exchange-direct" => exchange_direct(session).await,
        "exchange-fanout" => exchange_fanout(session).await,
        "exchange-topic" => exchange_topic(session).await,
        "exchange-headers" => exchange_headers(session).await,
        "exchange-to-exchange" => exchange_to_exchange(session).await,
        "transactions" => transactions(session).await,
        "cancel-notification" => cancel_notification(session).await,
        "many-channels" => many_channels(session).await,
        "heartbeat" => heartbeat(session).await,
        "close-requeues" => close_requeues(session).await,
        "restart-term" => restart_case(session, "term").await,
        "restart-kill" => restart_case(session, "kill").await,
        _ => Err(Failure("this program does not know the case".into())),
    }
}

async fn publish_confirm(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.confirm";
    let channel = session.queue_with(queue, QueueDeclareOptions::durable()).await?;
    let mut confirms = Vec::new();
    for body in texts(0..500) {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        confirms.push(channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), persistent).await?);
    }
    for confirm in confirms {
        equal(confirm.await?, Confirmation::Ack(None), "confirm")?;
    }
    equal(count(&channel, queue).await?, 500, "messages")?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn consume_prefetch(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.prefetch";
    let channel = session.queue(queue).await?;
    publish(&channel, queue, &texts(0..30)).await?;
    channel.basic_qos(10, BasicQosOptions::default()).await?;
    let mut consumer = Mailbox::consume(&channel, queue, false).await?;
    let mut received = consumer.take_all(10).await?;
    consumer.none().await?;
    channel.basic_ack(received[4].0, MULTIPLE).await?;
    received.extend(consumer.take_all(5).await?);
    consumer.none().await?;
    while received.len() < 30 {
        channel.basic_ack(received[received.len() - 1].0, MULTIPLE).await?;
        received.extend(consumer.take_all(10.min(30 - received.len())).await?);
    }
    let bodies: Vec<String> = received.into_iter().map(|(_, body)| body).collect();
    equal(bodies, texts(0..30), "bodies in order")?;
    channel.basic_ack(0, MULTIPLE).await?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn consumers_round_robin(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.robin";
    let channel = session.queue(queue).await?;
    let mut first = Mailbox::consume(&channel, queue, true).await?;
    let mut second = Mailbox::consume(&channel, queue, true).await?;
    publish(&channel, queue, &texts(0..10)).await?;
    let mut received = first.take_all(5).await?;
    received.extend(second.take_all(5).await?);
    let mut bodies: Vec<String> = received.into_iter().map(|(_, body)| body).collect();
    bodies.sort();
    equal(bodies, texts(0..10), "bodies")?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn requeue(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.requeue";
    let channel = session.queue(queue).await?;
    publish(&channel, queue, &["a", "b", "c"]).await?;
    let nack = |multiple| BasicNackOptions { multiple, requeue: true };
    channel.basic_nack(get(&channel, queue, "a", false).await?, nack(false)).await?;
    channel.basic_reject(get(&channel, queue, "a", true).await?, BasicRejectOptions { requeue: true }).await?;
    channel.basic_reject(get(&channel, queue, "a", true).await?, BasicRejectOptions { requeue: false }).await?;
    get(&channel, queue, "b", false).await?;
    channel.basic_nack(get(&channel, queue, "c", false).await?, nack(true)).await?;
    get(&channel, queue, "b", true).await?;
    channel.basic_ack(get(&channel, queue, "c", true).await?, MULTIPLE).await?;
    equal(count(&channel, queue).await?, 0, "messages")?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn recover(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.recover";
    let channel = session.queue(queue).await?;
    publish(&channel, queue, &["a", "b"]).await?;
    get(&channel, queue, "a", false).await?;
    get(&channel, queue, "b", false).await?;
    channel.basic_recover(BasicRecoverOptions { requeue: true }).await?;
    get(&channel, queue, "a", true).await?;
    get(&channel, queue, "b", true).await?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn get_counts(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.get";
    let channel = session.queue(queue).await?;
    equal(next(&channel, queue, false).await?.is_some(), false, "get on an empty queue")?;
    publish(&channel, queue, &texts(0..3)).await?;
    for remaining in [2, 1, 0] {
        let message = next(&channel, queue, false).await?.ok_or_else(|| Failure("empty too early".into()))?;
        equal(message.message_count, remaining, "message_count")?;
        let address = (message.delivery.exchange.as_str(), message.delivery.routing_key.as_str());
        equal(address, ("", queue), "exchange and routing key")?;
        equal(text(&message.delivery), (2 - remaining).to_string(), "body")?;
        channel.basic_ack(message.delivery.delivery_tag, SINGLE).await?;
    }
    equal(next(&channel, queue, false).await?.is_some(), false, "get at the end")?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn mandatory_return(session: &mut Session) -> Outcome {
    let channel = session.channel().await?;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default().with_message_id("m-1".into());
    let publish = channel.basic_publish("amq.direct".into(), "e2e.rust.nowhere".into(), options, b"back", properties);
    // lapin gives the confirm the return that came before it.
    let Confirmation::Ack(Some(returned)) = publish.await?.await? else {
        return Err(Failure("not returned before the confirm".into()));
    };
    equal((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"), "basic.return")?;
    let address = (returned.delivery.exchange.as_str(), returned.delivery.routing_key.as_str());
    equal(address, ("amq.direct", "e2e.rust.nowhere"), "address")?;
    equal(returned.delivery.properties.message_id(), &Some("m-1".into()), "message id")?;
    equal(text(&returned.delivery).as_str(), "back", "body")
}

async fn large_bodies(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.large";
    let channel = session.queue(queue).await?;
    for size in [0, 1, 200 * 1024, 5 * 1024 * 1024_u32] {
        let body: Vec<u8> = (0..size).map(|index| (u64::from(index) * 31 % 251) as u8).collect();
        send(&channel, "", queue, &body, BasicProperties::default()).await?;
        let message = next(&channel, queue, true).await?.ok_or_else(|| Failure(format!("{size} octets: not there")))?;
        equal(message.delivery.data.len(), body.len(), "size")?;
        // Compared octet by octet, which is at least as strict as by hash.
        equal(message.delivery.data == body, true, &format!("the body of {size} octets"))?;
    }
    delete_queue(&channel, queue).await.map(drop)
}

fn table<const N: usize>(fields: [(&str, AMQPValue); N]) -> FieldTable {
    fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<BTreeMap<_, _>>().into()
}

fn string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn headers() -> FieldTable {
    table([
        ("text", string("ü")),
        ("flag", AMQPValue::Boolean(true)),
        ("int8", AMQPValue::ShortShortInt(-8)),
        ("uint8", AMQPValue::ShortShortUInt(200)),
        ("int16", AMQPValue::ShortInt(-1600)),
        ("uint16", AMQPValue::ShortUInt(60_000)),
        ("int32", AMQPValue::LongInt(-70_000)),
        ("uint32", AMQPValue::LongUInt(4_000_000_000)),
        ("int64", AMQPValue::LongLongInt(1 << 40)),
        ("float", AMQPValue::Float(0.5)),
        ("double", AMQPValue::Double(0.25)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 12_345 })),
        ("void", AMQPValue::Void),
        ("octets", AMQPValue::ByteArray(vec![0, 255].into())),
        ("when", AMQPValue::Timestamp(1_700_000_000)),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), string("two"), nested("three")].into())),
        ("table", nested("inner")),
    ])
}

fn nested(name: &str) -> AMQPValue {
    AMQPValue::FieldTable(table([(name, AMQPValue::FieldTable(table([("deep", string("yes"))])))]))
}

async fn properties(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.properties";
    let channel = session.queue(queue).await?;
    let sent = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers())
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("correlation".into())
        .with_reply_to("reply".into())
        .with_expiration("60000".into())
        .with_message_id("message".into())
        .with_timestamp(1_700_000_000)
        .with_type("kind".into())
        .with_user_id("guest".into())
        .with_app_id("application".into())
        .with_cluster_id("cluster".into());
    send(&channel, "", queue, b"x", sent.clone()).await?;
    let message = next(&channel, queue, true).await?.ok_or_else(|| Failure("not there".into()))?;
    equal(message.delivery.properties.clone(), sent, "properties")?;
    delete_queue(&channel, queue).await.map(drop)
}

async fn error_404_passive(session: &mut Session) -> Outcome {
    let connection = session.connect().await?;
    missing(&connection.create_channel().await?, "e2e.rust.missing").await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let other = connection.create_channel().await?;
    Ok(other.exchange_declare("amq.direct".into(), ExchangeKind::Direct, passive, FieldTable::default()).await?)
}

async fn error_404_publish(session: &mut Session) -> Outcome {
    let connection = session.connect().await?;
    let channel = connection.create_channel().await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish("e2e.rust.missing".into(), "k".into(), options, b"x", properties).await?;
    let after = channel.basic_qos(1, BasicQosOptions::default()).await;
    closed(after, 404, "NOT_FOUND - no exchange 'e2e.rust.missing' in vhost '/'")?;
    connection.create_channel().await?;
    Ok(())
}

async fn error_405_exclusive(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.locked";
    session.queue_with(queue, QueueDeclareOptions::exclusive()).await?;
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be originally \
         declared on another connection or the exclusive property value does not match that of the original declaration."
    );
    let declaring = session.channel().await?;
    let declare = declaring.queue_declare(queue.into(), QueueDeclareOptions::exclusive(), FieldTable::default());
    closed(declare.await, 405, &text)?;
    let getting = session.channel().await?;
    closed(next(&getting, queue, false).await, 405, &text)
}

async fn error_406_inequivalent(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.inequivalent";
    let channel = session.queue(queue).await?;
    let text = format!(
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': \
         received 'true' but current is 'false'"
    );
    let declare = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default());
    closed(declare.await, 406, &text)?;
    delete_queue(&session.channel().await?, queue).await.map(drop)
}

async fn error_406_double_ack(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.doubleack";
    let channel = session.queue(queue).await?;
    publish(&channel, queue, &["a"]).await?;
    let tag = get(&channel, queue, "a", false).await?;
    channel.basic_ack(tag, SINGLE).await?;
    channel.basic_ack(tag, SINGLE).await?;
    let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
    closed(count(&channel, queue).await, 406, &text)?;
    delete_queue(&session.channel().await?, queue).await.map(drop)
}

async fn error_503_exchange_type(session: &mut Session) -> Outcome {
    let channel = session.channel().await?;
    let kind = ExchangeKind::Custom("x-nonsense".into());
    let options = ExchangeDeclareOptions::default();
    let declare = channel.exchange_declare("e2e.rust.nonsense".into(), kind, options, FieldTable::default());
    closed(declare.await, 503, "COMMAND_INVALID - unknown exchange type 'x-nonsense'")
}

async fn error_530_vhost(session: &mut Session) -> Outcome {
    let connect = session.connect_with(|uri| uri.vhost = "e2e-missing".into()).await;
    closed(connect, 530, "NOT_ALLOWED - vhost e2e-missing not found")
}

async fn error_403_login(session: &mut Session) -> Outcome {
    let connect = session.connect_with(|uri| uri.authority.userinfo.password = "wrong".into()).await;
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
                For details see the broker logfile.";
    closed(connect, 403, text)
}

/// Declares a server-named queue; returns its name.
async fn server_named(channel: &Channel) -> Outcome<String> {
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    Ok(queue.name().as_str().to_owned())
}

async fn queue_server_named(session: &mut Session) -> Outcome {
    let channel = session.channel().await?;
    let name = server_named(&channel).await?;
    equal((name.starts_with("amq.gen-"), name.len()), (true, 30), "prefix and length")?;
    let last = server_named(&channel).await?;
    equal(last == name, false, "the same name twice")?;
    bind(&channel, "", "amq.fanout", "", FieldTable::default()).await?;
    send(&channel, "amq.fanout", "", b"to the last", BasicProperties::default()).await?;
    equal(drain(&channel, &last).await?, vec!["to the last".to_owned()], "messages of the last declared queue")
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) -> Outcome {
    let options = QueueBindOptions::default();
    Ok(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await?)
}

async fn queue_exclusive(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.exclusive";
    session.queue_with(queue, QueueDeclareOptions::exclusive()).await?;
    session.close().await;
    sleep(Duration::from_millis(300)).await;
    missing(&session.channel().await?, queue).await
}

async fn queue_auto_delete(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.autodelete";
    let channel = session.queue_with(queue, QueueDeclareOptions::default().auto_delete()).await?;
    equal(count(&channel, queue).await?, 0, "it stays without a first consumer")?;
    let tag = "only";
    channel.basic_consume(queue.into(), tag.into(), Default::default(), FieldTable::default()).await?;
    channel.basic_cancel(tag.into(), Default::default()).await?;
    missing(&channel, queue).await
}

async fn queue_purge_delete(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.purge";
    let channel = session.queue(queue).await?;
    publish(&channel, queue, &texts(0..5)).await?;
    get(&channel, queue, "0", false).await?;
    equal(channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?, 4, "purged")?;
    publish(&channel, queue, &texts(0..2)).await?;
    equal(delete_queue(&channel, queue).await?, 2, "deleted")?;
    equal(delete_queue(&channel, queue).await?, 0, "deleting what is missing")
}

/// A fresh transient exchange.
async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Outcome {
    channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await?;
    Ok(channel.exchange_declare(name.into(), kind, ExchangeDeclareOptions::default(), FieldTable::default()).await?)
}

/// A publish and the queues, by number, in which it must arrive.
type Routed<'a> = (&'a str, FieldTable, &'a [usize]);

/// Binds one queue each to a fresh exchange and checks where the publishes arrive.
async fn route(
    session: &mut Session,
    kind: ExchangeKind,
    bindings: &[(&str, FieldTable)],
    publishes: &[Routed<'_>],
) -> Outcome {
    let name = format!("e2e.rust.{kind:?}");
    let channel = session.channel().await?;
    exchange(&channel, &name, kind).await?;
    let mut queues = Vec::new();
    for (key, arguments) in bindings {
        let queue = server_named(&channel).await?;
        bind(&channel, &queue, &name, key, arguments.clone()).await?;
        queues.push(queue);
    }
    for (number, (key, headers, _)) in publishes.iter().enumerate() {
        let properties = BasicProperties::default().with_headers(headers.clone());
        send(&channel, &name, key, number.to_string().as_bytes(), properties).await?;
    }
    for (index, queue) in queues.iter().enumerate() {
        let arrived = publishes.iter().enumerate().filter(|(_, (_, _, to))| to.contains(&index));
        let want: Vec<String> = arrived.map(|(number, _)| number.to_string()).collect();
        equal(drain(&channel, queue).await?, want, &format!("queue {index}, bound with {:?}", bindings[index]))?;
    }
    Ok(channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await?)
}

fn plain<'a>(key: &'a str, to: &'a [usize]) -> Routed<'a> {
    (key, FieldTable::default(), to)
}

fn keys<const N: usize>(keys: [&str; N]) -> [(&str, FieldTable); N] {
    keys.map(|key| (key, FieldTable::default()))
}

async fn exchange_direct(session: &mut Session) -> Outcome {
    let publishes = [plain("a", &[0]), plain("b", &[1]), plain("c", &[])];
    route(session, ExchangeKind::Direct, &keys(["a", "b"]), &publishes).await
}

async fn exchange_fanout(session: &mut Session) -> Outcome {
    let publishes = [plain("a", &[0, 1]), plain("z", &[0, 1])];
    route(session, ExchangeKind::Fanout, &keys(["a", ""]), &publishes).await
}

async fn exchange_topic(session: &mut Session) -> Outcome {
    let publishes = [
        plain("quick.orange.fox", &[0, 2]),
        plain("lazy", &[1, 2]),
        plain("lazy.orange.cat", &[0, 1, 2]),
        plain("a.b", &[2, 3]),
        plain("a.x.y.b", &[2, 3]),
        plain("", &[2]),
    ];
    route(session, ExchangeKind::Topic, &keys(["*.orange.*", "lazy.#", "#", "a.#.b"]), &publishes).await
}

async fn exchange_headers(session: &mut Session) -> Outcome {
    let (one, two) = (string("1"), AMQPValue::LongInt(2));
    let matching = |how| table([("x-match", string(how)), ("a", one.clone()), ("b", two.clone())]);
    let publishes: [Routed<'_>; 4] = [
        ("", table([("a", one.clone()), ("b", two.clone())]), &[0, 1]),
        ("", table([("a", one.clone())]), &[1]),
        ("", table([("a", string("2")), ("c", two.clone())]), &[]),
        plain("", &[]),
    ];
    route(session, ExchangeKind::Headers, &[("", matching("all")), ("", matching("any"))], &publishes).await
}

async fn exchange_to_exchange(session: &mut Session) -> Outcome {
    let (source, middle) = ("e2e.rust.source", "e2e.rust.middle");
    let channel = session.channel().await?;
    exchange(&channel, source, ExchangeKind::Topic).await?;
    exchange(&channel, middle, ExchangeKind::Fanout).await?;
    let queue = server_named(&channel).await?;
    let none = FieldTable::default;
    let options = ExchangeBindOptions::default();
    channel.exchange_bind(middle.into(), source.into(), "k.*".into(), options, none()).await?;
    bind(&channel, &queue, middle, "", none()).await?;
    send(&channel, source, "k.1", b"through", BasicProperties::default()).await?;
    send(&channel, source, "other", b"not", BasicProperties::default()).await?;
    equal(drain(&channel, &queue).await?, vec!["through".to_owned()], "messages")?;
    let options = ExchangeUnbindOptions::default();
    channel.exchange_unbind(middle.into(), source.into(), "k.*".into(), options, none()).await?;
    send(&channel, source, "k.1", b"late", BasicProperties::default()).await?;
    equal(drain(&channel, &queue).await?, Vec::new(), "messages after unbind")?;
    channel.exchange_delete(source.into(), ExchangeDeleteOptions::default()).await?;
    Ok(channel.exchange_delete(middle.into(), ExchangeDeleteOptions::default()).await?)
}

async fn transactions(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.tx";
    let watcher = session.queue(queue).await?;
    let connection = session.connect().await?;
    let channel = connection.create_channel().await?;
    channel.tx_select().await?;
    send_unconfirmed(&channel, queue, 0..3).await?;
    count(&channel, queue).await?;
    equal(count(&watcher, queue).await?, 0, "messages before commit")?;
    channel.tx_commit().await?;
    equal(count(&watcher, queue).await?, 3, "messages after commit")?;
    send_unconfirmed(&channel, queue, 3..6).await?;
    channel.tx_rollback().await?;
    equal(count(&watcher, queue).await?, 3, "messages after rollback")?;
    let tag = get(&channel, queue, "0", false).await?;
    channel.basic_ack(tag, SINGLE).await?;
    channel.tx_rollback().await?; // Forgets the ack: the delivery is outstanding again.
    channel.basic_ack(tag, SINGLE).await?;
    channel.tx_commit().await?;
    connection.close(200, "".into()).await?;
    equal(drain(&watcher, queue).await?, texts(1..3), "messages after the acknowledged one")?;
    delete_queue(&watcher, queue).await.map(drop)
}

async fn send_unconfirmed(channel: &Channel, queue: &str, numbers: std::ops::Range<u32>) -> Outcome {
    for body in texts(numbers) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await?;
    }
    Ok(())
}

async fn cancel_notification(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.cancelled";
    let channel = session.queue(queue).await?;
    let mut consumer = Mailbox::consume(&channel, queue, false).await?;
    delete_queue(&session.channel().await?, queue).await?;
    equal(consumer.take().await?, None, "the cancellation")
}

async fn many_channels(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.channels";
    let watcher = session.queue(queue).await?;
    let connection = session.connect().await?;
    let mut channels = Vec::new();
    for _ in 0..50 {
        let channel = connection.create_channel().await?;
        channel.confirm_select(Default::default()).await?;
        channels.push(channel);
    }
    for (body, channel) in texts(0..50).iter().zip(&channels) {
        publish(channel, queue, &[body]).await?;
    }
    equal(drain(&watcher, queue).await?, texts(0..50), "messages")?;
    delete_queue(&watcher, queue).await.map(drop)
}

async fn heartbeat(session: &mut Session) -> Outcome {
    let connection = session.connect_with(|uri| uri.query.heartbeat = Some(1)).await?;
    let channel = connection.create_channel().await?;
    sleep(Duration::from_secs(4)).await;
    server_named(&channel).await.map(drop)
}

async fn close_requeues(session: &mut Session) -> Outcome {
    let queue = "e2e.rust.closed";
    let channel = session.queue(queue).await?;
    publish(&channel, queue, &texts(0..3)).await?;
    for body in texts(0..3) {
        get(&channel, queue, &body, false).await?;
    }
    channel.close(200, "".into()).await?;
    let other = session.channel().await?;
    for body in texts(0..3) {
        get(&other, queue, &body, true).await?;
    }
    delete_queue(&other, queue).await.map(drop)
}

/// Durable things and persistent messages survive a restart, acknowledged and transient ones do not.
async fn restart_case(session: &mut Session, how: &str) -> Outcome {
    let durable = &format!("e2e.rust.{how}");
    let (transient, name) = (&format!("{durable}.transient"), &format!("{durable}.exchange"));
    let channel = session.queue_with(durable, QueueDeclareOptions::durable()).await?;
    delete_queue(&channel, transient).await?;
    channel.queue_declare(transient.as_str().into(), Default::default(), FieldTable::default()).await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.as_str().into(), ExchangeKind::Direct, options, FieldTable::default()).await?;
    bind(&channel, durable, name, "k", FieldTable::default()).await?;
    for number in 0..100 {
        let numbered = BasicProperties::default().with_headers(table([("number", AMQPValue::LongInt(number))]));
        send(&channel, name, "k", number.to_string().as_bytes(), numbered.with_delivery_mode(2)).await?;
        send(&channel, name, "k", b"transient", BasicProperties::default().with_delivery_mode(1)).await?;
    }
    for body in texts(0..10) {
        channel.basic_ack(get(&channel, durable, &body, false).await?, SINGLE).await?;
        channel.basic_ack(get(&channel, durable, "transient", false).await?, SINGLE).await?;
    }
    count(&channel, durable).await?; // A reply: the acks were read.
    sleep(Duration::from_millis(500)).await;
    restart(how).await?;
    let channel = session.channel().await?;
    for number in 10..100 {
        let message =
            next(&channel, durable, true).await?.ok_or_else(|| Failure(format!("the end before {number}")))?;
        equal(text(&message.delivery), number.to_string(), "message after the restart")?;
        let headers = Some(table([("number", AMQPValue::LongInt(number))]));
        equal(message.delivery.properties.headers(), &headers, "its headers")?;
    }
    equal(drain(&channel, durable).await?, Vec::new(), "more messages after the restart")?;
    send(&channel, name, "k", b"routed", BasicProperties::default()).await?;
    equal(drain(&channel, durable).await?, vec!["routed".to_owned()], "routing after the restart")?;
    channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await?;
    delete_queue(&channel, durable).await?;
    missing(&channel, transient).await
}
