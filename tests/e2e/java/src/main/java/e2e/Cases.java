package e2e;

import static e2e.Session.PERSISTENT;
import static e2e.Session.closes;
import static e2e.Session.consume;
import static e2e.Session.drain;
import static e2e.Session.equal;
import static e2e.Session.exchange;
import static e2e.Session.get;
import static e2e.Session.missing;
import static e2e.Session.none;
import static e2e.Session.octets;
import static e2e.Session.publish;
import static e2e.Session.take;
import static e2e.Session.texts;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import e2e.Session.Received;
import java.math.BigDecimal;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The cases of cases.txt; each throws on the first difference. */
final class Cases {
    /** One case. */
    interface Case {
        void run(Session session) throws Exception;
    }

    /** A publish and the queues, by number, in which it must arrive. */
    private record Routed(String key, Map<String, Object> headers, List<Integer> to) {}

    private Cases() {}

    /** Name and body, in the order of cases.txt. */
    static Map<String, Case> all() {
        Map<String, Case> cases = new LinkedHashMap<>();
        cases.put("publish-confirm", Cases::publishConfirm);
        cases.put("consume-prefetch", Cases::consumePrefetch);
        cases.put("consumers-round-robin", Cases::consumersRoundRobin);
        cases.put("requeue", Cases::requeue);
        cases.put("recover", Cases::recover);
        cases.put("get", Cases::getCounts);
        cases.put("mandatory-return", Cases::mandatoryReturn);
        cases.put("large-bodies", Cases::largeBodies);
        cases.put("properties", Cases::properties);
        cases.put("error-404-passive", Cases::error404Passive);
        cases.put("error-404-publish", Cases::error404Publish);
        cases.put("error-405-exclusive", Cases::error405Exclusive);
        cases.put("error-406-inequivalent", Cases::error406Inequivalent);
        cases.put("error-406-double-ack", Cases::error406DoubleAck);
        cases.put("error-503-exchange-type", Cases::error503ExchangeType);
        cases.put("error-530-vhost", Cases::error530Vhost);
        cases.put("error-403-login", Cases::error403Login);
        cases.put("queue-server-named", Cases::queueServerNamed);
        cases.put("queue-exclusive", Cases::queueExclusive);
        cases.put("queue-auto-delete", Cases::queueAutoDelete);
        cases.put("queue-purge-delete", Cases::queuePurgeDelete);
        cases.put("exchange-direct", Cases::exchangeDirect);
        cases.put("exchange-fanout", Cases::exchangeFanout);
        cases.put("exchange-topic", Cases::exchangeTopic);
        cases.put("exchange-headers", Cases::exchangeHeaders);
        cases.put("exchange-to-exchange", Cases::exchangeToExchange);
        cases.put("transactions", Cases::transactions);
        cases.put("cancel-notification", Cases::cancelNotification);
        cases.put("many-channels", Cases::manyChannels);
        cases.put("heartbeat", Cases::heartbeat);
        cases.put("close-requeues", Cases::closeRequeues);
        cases.put("restart-term", session -> restartCase(session, "term"));
        cases.put("restart-kill", session -> restartCase(session, "kill"));
        return cases;
    }

    private static void publishConfirm(Session session) throws Exception {
        String queue = "e2e.java.confirm";
        Channel channel = session.queue(queue, true, false, false);
        publish(channel, queue, texts(0, 500), PERSISTENT);
        equal(channel.messageCount(queue), 500L, "messages");
        channel.queueDelete(queue);
    }

    private static void consumePrefetch(Session session) throws Exception {
        String queue = "e2e.java.prefetch";
        Channel channel = session.queue(queue);
        publish(channel, queue, texts(0, 30));
        channel.basicQos(10);
        BlockingQueue<Received> deliveries = consume(channel, queue, false);
        List<Received> received = new ArrayList<>();
        take(deliveries, 10, received);
        none(deliveries);
        channel.basicAck(received.get(4).tag(), true);
        take(deliveries, 5, received);
        none(deliveries);
        while (received.size() < 30) {
            channel.basicAck(received.get(received.size() - 1).tag(), true);
            take(deliveries, Math.min(10, 30 - received.size()), received);
        }
        equal(received.stream().map(Received::body).toList(), texts(0, 30), "bodies in order");
        channel.basicAck(0, true);
        channel.queueDelete(queue);
    }

    private static void consumersRoundRobin(Session session) throws Exception {
        String queue = "e2e.java.robin";
        Channel channel = session.queue(queue);
        BlockingQueue<Received> first = consume(channel, queue, true);
        BlockingQueue<Received> second = consume(channel, queue, true);
        publish(channel, queue, texts(0, 10));
        List<Received> received = new ArrayList<>();
        take(first, 5, received);
        take(second, 5, received);
        equal(received.stream().map(Received::body).sorted().toList(), texts(0, 10), "bodies");
        channel.queueDelete(queue);
    }

    private static void requeue(Session session) throws Exception {
        String queue = "e2e.java.requeue";
        Channel channel = session.queue(queue);
        publish(channel, queue, List.of("a", "b", "c"));
        channel.basicNack(get(channel, queue, "a", false), false, true);
        channel.basicReject(get(channel, queue, "a", true), true);
        channel.basicReject(get(channel, queue, "a", true), false);
        get(channel, queue, "b", false);
        channel.basicNack(get(channel, queue, "c", false), true, true);
        get(channel, queue, "b", true);
        channel.basicAck(get(channel, queue, "c", true), true);
        equal(channel.messageCount(queue), 0L, "messages");
        channel.queueDelete(queue);
    }

    private static void recover(Session session) throws Exception {
        String queue = "e2e.java.recover";
        Channel channel = session.queue(queue);
        publish(channel, queue, List.of("a", "b"));
        get(channel, queue, "a", false);
        get(channel, queue, "b", false);
        channel.basicRecover(true);
        get(channel, queue, "a", true);
        get(channel, queue, "b", true);
        channel.queueDelete(queue);
    }

    private static void getCounts(Session session) throws Exception {
        String queue = "e2e.java.get";
        Channel channel = session.queue(queue);
        equal(channel.basicGet(queue, false), null, "get on an empty queue");
        publish(channel, queue, texts(0, 3));
        for (int remaining = 2; remaining >= 0; remaining--) {
            GetResponse message = channel.basicGet(queue, false);
            equal(message.getMessageCount(), remaining, "message_count");
            equal(message.getEnvelope().getExchange() + "|" + message.getEnvelope().getRoutingKey(), "|" + queue, "address");
            equal(new String(message.getBody()), String.valueOf(2 - remaining), "body");
            channel.basicAck(message.getEnvelope().getDeliveryTag(), false);
        }
        equal(channel.basicGet(queue, false), null, "get at the end");
        channel.queueDelete(queue);
    }

    private static void mandatoryReturn(Session session) throws Exception {
        Channel channel = session.channel();
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        channel.addReturnListener(back -> events.add(String.join(
                "|",
                String.valueOf(back.getReplyCode()),
                back.getReplyText(),
                back.getExchange(),
                back.getRoutingKey(),
                back.getProperties().getMessageId(),
                new String(back.getBody()))));
        channel.addConfirmListener((tag, multiple) -> events.add("ack " + tag), (tag, multiple) -> events.add("nack " + tag));
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().messageId("m-1").build();
        channel.basicPublish("amq.direct", "e2e.java.nowhere", true, properties, octets("back"));
        equal(events.poll(10, TimeUnit.SECONDS), "312|NO_ROUTE|amq.direct|e2e.java.nowhere|m-1|back", "first event");
        equal(events.poll(10, TimeUnit.SECONDS), "ack 1", "second event");
    }

    private static void largeBodies(Session session) throws Exception {
        String queue = "e2e.java.large";
        Channel channel = session.queue(queue);
        for (int size : new int[] {0, 1, 200 * 1024, 5 * 1024 * 1024}) {
            byte[] body = new byte[size];
            for (int index = 0; index < size; index++) {
                body[index] = (byte) (index * 31L % 251);
            }
            channel.basicPublish("", queue, null, body);
            channel.waitForConfirmsOrDie(10_000);
            byte[] got = channel.basicGet(queue, true).getBody();
            equal(got.length, size, "size");
            equal(Arrays.toString(hash(got)), Arrays.toString(hash(body)), "hash of " + size + " octets");
        }
        channel.queueDelete(queue);
    }

    private static byte[] hash(byte[] body) throws Exception {
        return MessageDigest.getInstance("SHA-256").digest(body);
    }

    private static void properties(Session session) throws Exception {
        String queue = "e2e.java.properties";
        Channel channel = session.queue(queue);
        Map<String, Object> headers = new HashMap<>();
        headers.put("text", "ü");
        headers.put("flag", true);
        headers.put("byte", (byte) -8);
        headers.put("short", (short) -1600);
        headers.put("integer", -70000);
        headers.put("long", 1L << 40);
        headers.put("float", 0.5f);
        headers.put("double", 0.25);
        headers.put("decimal", new BigDecimal("123.45"));
        headers.put("void", null);
        headers.put("octets", new byte[] {0, -1});
        headers.put("when", new Date(1_700_000_000_000L));
        headers.put("list", List.of(1, "two", List.of(3), Map.of("four", 4)));
        headers.put("table", Map.of("inner", Map.of("deep", "yes")));
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder()
                .contentType("text/plain")
                .contentEncoding("utf-8")
                .headers(headers)
                .deliveryMode(2)
                .priority(3)
                .correlationId("correlation")
                .replyTo("reply")
                .expiration("60000")
                .messageId("message")
                .timestamp(new Date(1_700_000_000_000L))
                .type("kind")
                .userId("guest")
                .appId("application")
                .clusterId("cluster")
                .build();
        publish(channel, queue, List.of("x"), sent);
        AMQP.BasicProperties got = channel.basicGet(queue, true).getProps();
        equal(plain(got.getHeaders()), plain(headers), "headers");
        equal(got.builder().headers(null).build(), sent.builder().headers(null).build(), "properties");
        channel.queueDelete(queue);
    }

    /** Long strings and octets as text, so that what was sent and what came compare. */
    private static Object plain(Object value) {
        if (value instanceof Map<?, ?> map) {
            Map<Object, Object> copy = new HashMap<>();
            map.forEach((key, inner) -> copy.put(key, plain(inner)));
            return copy;
        }
        if (value instanceof List<?> list) {
            return list.stream().map(Cases::plain).toList();
        }
        if (value instanceof byte[] octets) {
            return Arrays.toString(octets);
        }
        return value instanceof LongString text ? text.toString() : value;
    }

    private static void error404Passive(Session session) throws Exception {
        Connection connection = session.connect();
        missing(connection.createChannel(), "e2e.java.missing");
        connection.createChannel().exchangeDeclarePassive("amq.direct");
    }

    private static void error404Publish(Session session) throws Exception {
        Connection connection = session.connect();
        Channel channel = connection.createChannel();
        closes(404, "NOT_FOUND - no exchange 'e2e.java.missing' in vhost '/'", () -> {
            channel.basicPublish("e2e.java.missing", "k", null, octets("x"));
            channel.basicQos(1);
        });
        connection.createChannel();
    }

    private static void error405Exclusive(Session session) throws Exception {
        String queue = "e2e.java.locked";
        session.queue(queue, false, true, false);
        String text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + queue + "' in vhost '/'. It could be "
                + "originally declared on another connection or the exclusive property value does not match that of the original "
                + "declaration.";
        Connection other = session.connect();
        closes(405, text, () -> other.createChannel().queueDeclare(queue, false, true, false, null));
        closes(405, text, () -> other.createChannel().basicGet(queue, false));
    }

    private static void error406Inequivalent(Session session) throws Exception {
        String queue = "e2e.java.inequivalent";
        Channel channel = session.queue(queue);
        String text = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue + "' in vhost '/': "
                + "received 'true' but current is 'false'";
        closes(406, text, () -> channel.queueDeclare(queue, true, false, false, null));
        session.channel().queueDelete(queue);
    }

    private static void error406DoubleAck(Session session) throws Exception {
        String queue = "e2e.java.doubleack";
        Channel channel = session.queue(queue);
        publish(channel, queue, List.of("a"));
        long tag = get(channel, queue, "a", false);
        closes(406, "PRECONDITION_FAILED - unknown delivery tag " + tag, () -> {
            channel.basicAck(tag, false);
            channel.basicAck(tag, false);
            channel.basicQos(1);
        });
        session.channel().queueDelete(queue);
    }

    private static void error503ExchangeType(Session session) throws Exception {
        Channel channel = session.channel();
        String text = "COMMAND_INVALID - unknown exchange type 'x-nonsense'";
        closes(503, text, () -> channel.exchangeDeclare("e2e.java.nonsense", "x-nonsense"));
        equal(channel.getConnection().isOpen(), false, "connection open");
    }

    private static void error530Vhost(Session session) throws Exception {
        String text = "NOT_ALLOWED - vhost e2e-missing not found";
        closes(530, text, () -> session.connect(factory -> factory.setVirtualHost("e2e-missing")));
    }

    private static void error403Login(Session session) throws Exception {
        try {
            session.connect(factory -> factory.setPassword("wrong"));
        } catch (AuthenticationFailureException error) {
            String text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
            equal(error.getMessage(), text, "refusal");
            return;
        }
        throw new AssertionError("not refused");
    }

    private static void queueServerNamed(Session session) throws Exception {
        Channel channel = session.channel();
        String name = channel.queueDeclare().getQueue();
        equal(name.matches("amq\\.gen-.{22}"), true, "the form of " + name);
        String last = channel.queueDeclare().getQueue();
        equal(last.equals(name), false, "the same name twice");
        channel.queueBind("", "amq.fanout", "");
        channel.basicPublish("amq.fanout", "", null, octets("to the last"));
        channel.waitForConfirmsOrDie(10_000);
        equal(drain(channel, last), List.of("to the last"), "messages of the last declared queue");
    }

    private static void queueExclusive(Session session) throws Exception {
        String queue = "e2e.java.exclusive";
        session.queue(queue, false, true, false).getConnection().close();
        Thread.sleep(300);
        missing(session.channel(), queue);
    }

    private static void queueAutoDelete(Session session) throws Exception {
        String queue = "e2e.java.autodelete";
        Channel channel = session.queue(queue, false, false, true);
        equal(channel.messageCount(queue), 0L, "it stays without a first consumer");
        channel.basicCancel(channel.basicConsume(queue, false, (tag, delivery) -> {}, tag -> {}));
        missing(channel, queue);
    }

    private static void queuePurgeDelete(Session session) throws Exception {
        String queue = "e2e.java.purge";
        Channel channel = session.queue(queue);
        publish(channel, queue, texts(0, 5));
        get(channel, queue, "0", false);
        equal(channel.queuePurge(queue).getMessageCount(), 4, "purged");
        publish(channel, queue, texts(0, 2));
        equal(channel.queueDelete(queue).getMessageCount(), 2, "deleted");
        equal(channel.queueDelete(queue).getMessageCount(), 0, "deleting what is missing");
    }

    /** Binds one queue for each of {@code bindings} to a fresh exchange and checks where the publishes arrive. */
    private static void route(Session session, String kind, List<Routed> bindings, List<Routed> publishes) throws Exception {
        String exchange = "e2e.java." + kind;
        Channel channel = session.channel();
        exchange(channel, exchange, kind);
        List<String> queues = new ArrayList<>();
        for (Routed binding : bindings) {
            queues.add(channel.queueDeclare().getQueue());
            channel.queueBind(queues.get(queues.size() - 1), exchange, binding.key(), binding.headers());
        }
        for (int number = 0; number < publishes.size(); number++) {
            Routed one = publishes.get(number);
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().headers(one.headers()).build();
            channel.basicPublish(exchange, one.key(), properties, octets(String.valueOf(number)));
        }
        channel.waitForConfirmsOrDie(10_000);
        for (int index = 0; index < queues.size(); index++) {
            List<String> want = new ArrayList<>();
            for (int number = 0; number < publishes.size(); number++) {
                if (publishes.get(number).to().contains(index)) {
                    want.add(String.valueOf(number));
                }
            }
            equal(drain(channel, queues.get(index)), want, "queue " + index + ", bound with " + bindings.get(index));
        }
        channel.exchangeDelete(exchange);
    }

    private static Routed with(String key, Integer... to) {
        return new Routed(key, null, List.of(to));
    }

    private static Routed with(Map<String, Object> headers, Integer... to) {
        return new Routed("", headers, List.of(to));
    }

    private static void exchangeDirect(Session session) throws Exception {
        route(session, "direct", List.of(with("a"), with("b")), List.of(with("a", 0), with("b", 1), with("c")));
    }

    private static void exchangeFanout(Session session) throws Exception {
        route(session, "fanout", List.of(with("a"), with("")), List.of(with("a", 0, 1), with("z", 0, 1)));
    }

    private static void exchangeTopic(Session session) throws Exception {
        List<Routed> publishes = List.of(
                with("quick.orange.fox", 0, 2),
                with("lazy", 1, 2),
                with("lazy.orange.cat", 0, 1, 2),
                with("a.b", 2, 3),
                with("a.x.y.b", 2, 3),
                with("", 2));
        route(session, "topic", List.of(with("*.orange.*"), with("lazy.#"), with("#"), with("a.#.b")), publishes);
    }

    private static void exchangeHeaders(Session session) throws Exception {
        List<Routed> bindings = List.of(
                with(Map.<String, Object>of("x-match", "all", "a", "1", "b", 2)),
                with(Map.<String, Object>of("x-match", "any", "a", "1", "b", 2)));
        List<Routed> publishes = List.of(
                with(Map.<String, Object>of("a", "1", "b", 2), 0, 1),
                with(Map.<String, Object>of("a", "1"), 1),
                with(Map.<String, Object>of("a", "2", "c", 2)),
                with(""));
        route(session, "headers", bindings, publishes);
    }

    private static void exchangeToExchange(Session session) throws Exception {
        String source = "e2e.java.source";
        String middle = "e2e.java.middle";
        Channel channel = session.channel();
        exchange(channel, source, "topic");
        exchange(channel, middle, "fanout");
        String queue = channel.queueDeclare().getQueue();
        channel.exchangeBind(middle, source, "k.*");
        channel.queueBind(queue, middle, "");
        channel.basicPublish(source, "k.1", null, octets("through"));
        channel.basicPublish(source, "other", null, octets("not"));
        channel.waitForConfirmsOrDie(10_000);
        equal(drain(channel, queue), List.of("through"), "messages");
        channel.exchangeUnbind(middle, source, "k.*");
        channel.basicPublish(source, "k.1", null, octets("late"));
        channel.waitForConfirmsOrDie(10_000);
        equal(drain(channel, queue), List.of(), "messages after unbind");
        channel.exchangeDelete(source);
        channel.exchangeDelete(middle);
    }

    private static void transactions(Session session) throws Exception {
        String queue = "e2e.java.tx";
        Channel watcher = session.queue(queue);
        Channel channel = session.connect().createChannel();
        channel.txSelect();
        send(channel, queue, texts(0, 3));
        channel.messageCount(queue);
        equal(watcher.messageCount(queue), 0L, "messages before commit");
        channel.txCommit();
        equal(watcher.messageCount(queue), 3L, "messages after commit");
        send(channel, queue, texts(3, 6));
        channel.txRollback();
        equal(watcher.messageCount(queue), 3L, "messages after rollback");
        long tag = get(channel, queue, "0", false);
        channel.basicAck(tag, false);
        channel.txRollback(); // Forgets the ack: the delivery is outstanding again.
        channel.basicAck(tag, false);
        channel.txCommit();
        channel.getConnection().close();
        equal(drain(watcher, queue), texts(1, 3), "messages after the acknowledged one");
        watcher.queueDelete(queue);
    }

    private static void send(Channel channel, String queue, List<String> bodies) throws Exception {
        for (String body : bodies) {
            channel.basicPublish("", queue, null, octets(body));
        }
    }

    private static void cancelNotification(Session session) throws Exception {
        String queue = "e2e.java.cancelled";
        Channel channel = session.queue(queue);
        CompletableFuture<String> cancelled = new CompletableFuture<>();
        String tag = channel.basicConsume(queue, false, (consumer, delivery) -> {}, cancelled::complete);
        session.channel().queueDelete(queue);
        equal(cancelled.get(10, TimeUnit.SECONDS), tag, "cancelled consumer");
    }

    private static void manyChannels(Session session) throws Exception {
        String queue = "e2e.java.channels";
        Channel watcher = session.queue(queue);
        Connection connection = session.connect();
        List<Channel> channels = new ArrayList<>();
        for (int number = 0; number < 50; number++) {
            channels.add(connection.createChannel());
            channels.get(number).confirmSelect();
        }
        for (int number = 0; number < 50; number++) {
            publish(channels.get(number), queue, texts(number, number + 1));
        }
        equal(drain(watcher, queue), texts(0, 50), "messages");
        watcher.queueDelete(queue);
    }

    private static void heartbeat(Session session) throws Exception {
        Connection connection = session.connect(factory -> factory.setRequestedHeartbeat(1));
        equal(connection.getHeartbeat(), 1, "negotiated heartbeat");
        Channel channel = connection.createChannel();
        Thread.sleep(4000);
        channel.queueDeclare();
    }

    private static void closeRequeues(Session session) throws Exception {
        String queue = "e2e.java.closed";
        Channel channel = session.queue(queue);
        publish(channel, queue, texts(0, 3));
        for (String body : texts(0, 3)) {
            get(channel, queue, body, false);
        }
        channel.close();
        Channel other = session.channel();
        for (String body : texts(0, 3)) {
            get(other, queue, body, true);
        }
        other.queueDelete(queue);
    }

    /** Durable things and persistent messages survive a restart, acknowledged and transient ones do not. */
    private static void restartCase(Session session, String how) throws Exception {
        String durable = "e2e.java." + how;
        String transientQueue = durable + ".transient";
        String exchange = durable + ".exchange";
        Channel channel = session.queue(durable, true, false, false);
        channel.queueDelete(transientQueue);
        channel.queueDeclare(transientQueue, false, false, false, null);
        channel.exchangeDeclare(exchange, "direct", true);
        channel.queueBind(durable, exchange, "k");
        for (int number = 0; number < 100; number++) {
            AMQP.BasicProperties persistent = PERSISTENT.builder().headers(Map.of("number", number)).build();
            channel.basicPublish(exchange, "k", persistent, octets(String.valueOf(number)));
            channel.basicPublish(exchange, "k", PERSISTENT.builder().deliveryMode(1).build(), octets("transient"));
        }
        channel.waitForConfirmsOrDie(10_000);
        for (String body : texts(0, 10)) {
            channel.basicAck(get(channel, durable, body, false), false);
            channel.basicAck(get(channel, durable, "transient", false), false);
        }
        channel.queueDeclarePassive(durable); // A reply: the acks were read.
        Thread.sleep(500);
        Main.restart(how);
        channel = session.channel();
        for (int number = 10; number < 100; number++) {
            GetResponse message = channel.basicGet(durable, true);
            equal(message == null, false, "the end before message " + number);
            equal(new String(message.getBody()), String.valueOf(number), "message after the restart");
            equal(message.getProps().getHeaders().get("number"), number, "its header");
        }
        equal(drain(channel, durable), List.of(), "more messages after the restart");
        channel.basicPublish(exchange, "k", null, octets("routed"));
        channel.waitForConfirmsOrDie(10_000);
        equal(drain(channel, durable), List.of("routed"), "routing after the restart");
        channel.exchangeDelete(exchange);
        channel.queueDelete(durable);
        missing(channel, transientQueue);
    }
}
