package e2e;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.IntStream;

/** The connections of one case, closed at its end, and the verbs the cases share. */
final class Session implements AutoCloseable {
    static final AMQP.BasicProperties PERSISTENT = new AMQP.BasicProperties.Builder().deliveryMode(2).build();
    private static final long WAIT_SECONDS = 10;

    /** Something that the broker may answer with a close. */
    interface Action {
        void run() throws Exception;
    }

    /** What a consumer got. */
    record Received(long tag, String body) {}

    private final String url;
    private final List<Connection> open = new ArrayList<>();

    Session(String url) {
        this.url = url;
    }

    /** A new connection; {@code change} may edit the factory. Nothing is recovered automatically. */
    Connection connect(Consumer<ConnectionFactory> change) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(url);
        factory.setAutomaticRecoveryEnabled(false);
        change.accept(factory);
        Connection connection = factory.newConnection();
        open.add(connection);
        return connection;
    }

    Connection connect() throws Exception {
        return connect(factory -> {});
    }

    /** A channel with confirms on a new connection. */
    Channel channel() throws Exception {
        Channel channel = connect().createChannel();
        channel.confirmSelect();
        return channel;
    }

    /** A fresh queue and a channel on a new connection. */
    Channel queue(String name, boolean durable, boolean exclusive, boolean autoDelete) throws Exception {
        Channel channel = channel();
        channel.queueDelete(name);
        channel.queueDeclare(name, durable, exclusive, autoDelete, null);
        return channel;
    }

    Channel queue(String name) throws Exception {
        return queue(name, false, false, false);
    }

    @Override
    public void close() {
        for (Connection connection : open) {
            try {
                connection.close();
            } catch (IOException | AlreadyClosedException error) {
                // A case may have closed it, or the broker: nothing is left to close.
            }
        }
    }

    static void equal(Object got, Object want, String what) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
    }

    /** The decimal texts first to afterLast - 1. */
    static List<String> texts(int first, int afterLast) {
        return IntStream.range(first, afterLast).mapToObj(String::valueOf).toList();
    }

    static byte[] octets(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** Publishes to {@code queue} through the default exchange and waits for the confirms. */
    static void publish(Channel channel, String queue, List<String> bodies, AMQP.BasicProperties properties) throws Exception {
        for (String body : bodies) {
            channel.basicPublish("", queue, properties, octets(body));
        }
        channel.waitForConfirmsOrDie(WAIT_SECONDS * 1000);
    }

    static void publish(Channel channel, String queue, List<String> bodies) throws Exception {
        publish(channel, queue, bodies, null);
    }

    /** Gets and acknowledges everything. */
    static List<String> drain(Channel channel, String queue) throws IOException {
        List<String> bodies = new ArrayList<>();
        for (GetResponse message; (message = channel.basicGet(queue, true)) != null; ) {
            bodies.add(new String(message.getBody(), StandardCharsets.UTF_8));
        }
        return bodies;
    }

    /** Gets one message that must be {@code body}; returns its delivery tag. */
    static long get(Channel channel, String queue, String body, boolean redelivered) throws IOException {
        GetResponse message = channel.basicGet(queue, false);
        if (message == null) {
            throw new AssertionError("get: empty, want " + body);
        }
        equal(new String(message.getBody(), StandardCharsets.UTF_8), body, "get");
        equal(message.getEnvelope().isRedeliver(), redelivered, "redelivered of " + body);
        return message.getEnvelope().getDeliveryTag();
    }

    /** Starts a consumer. */
    static BlockingQueue<Received> consume(Channel channel, String queue, boolean autoAck) throws IOException {
        BlockingQueue<Received> received = new LinkedBlockingQueue<>();
        channel.basicConsume(
                queue,
                autoAck,
                (tag, delivery) -> received.add(new Received(
                        delivery.getEnvelope().getDeliveryTag(), new String(delivery.getBody(), StandardCharsets.UTF_8))),
                tag -> {});
        return received;
    }

    /** Moves {@code count} deliveries from {@code received} to {@code to}. */
    static void take(BlockingQueue<Received> received, int count, List<Received> to) throws InterruptedException {
        for (int taken = 0; taken < count; taken++) {
            Received one = received.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            if (one == null) {
                throw new AssertionError(taken + " of " + count + " deliveries within " + WAIT_SECONDS + " s");
            }
            to.add(one);
        }
    }

    /** Fails if a delivery comes within 300 ms. */
    static void none(BlockingQueue<Received> received) throws InterruptedException {
        equal(received.poll(300, TimeUnit.MILLISECONDS), null, "one delivery too many");
    }

    /** Runs {@code action}, after which the server must have closed channel or connection with {@code code} and {@code text}. */
    static void closes(int code, String text, Action action) throws Exception {
        try {
            action.run();
        } catch (IOException | ShutdownSignalException error) {
            Throwable cause = error instanceof IOException ? error.getCause() : error;
            if (cause instanceof ShutdownSignalException signal) {
                reason(signal, code, text);
                return;
            }
            throw error;
        }
        throw new AssertionError("no close " + code);
    }

    private static void reason(ShutdownSignalException signal, int code, String text) {
        if (signal.getReason() instanceof AMQP.Channel.Close close) {
            equal(List.of(close.getReplyCode(), close.getReplyText()), List.of(code, text), "channel.close");
        } else if (signal.getReason() instanceof AMQP.Connection.Close close) {
            equal(List.of(close.getReplyCode(), close.getReplyText()), List.of(code, text), "connection.close");
        } else {
            throw new AssertionError("no close " + code + " but " + signal);
        }
    }

    /** Fails unless {@code queue} does not exist; the channel is closed by asking. */
    static void missing(Channel channel, String queue) throws Exception {
        closes(404, "NOT_FOUND - no queue '" + queue + "' in vhost '/'", () -> channel.queueDeclarePassive(queue));
    }

    /** Deletes and declares a transient exchange. */
    static void exchange(Channel channel, String name, String kind) throws IOException {
        channel.exchangeDelete(name);
        channel.exchangeDeclare(name, kind, false, false, Map.of());
    }
}
