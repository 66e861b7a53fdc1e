"""The cases of cases.txt through pika. `CASES` lists them in order; each takes a `Session` and raises on the first difference."""

import hashlib
import time

import pika
from pika import exceptions

PERSISTENT = 2
CASES = {}


def case(name):
    """Registers a function as the case `name`."""

    def register(function):
        CASES[name] = function
        return function

    return register


def equal(got, want, what):
    """Fails with both values unless they are equal."""
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


class Session:
    """Connections for one case, closed at its end, and the verbs the cases share."""

    def __init__(self, url, restart):
        self.url = url
        self.restart = restart
        self.open_connections = []

    def connect(self, **changes):
        """A new connection; `changes` are set on pika's parameters."""
        parameters = pika.URLParameters(self.url)
        for name, value in changes.items():
            setattr(parameters, name, value)
        connection = pika.BlockingConnection(parameters)
        self.open_connections.append(connection)
        return connection

    def channel(self):
        """A channel on a new connection."""
        return self.connect().channel()

    def queue(self, name, **flags):
        """A fresh queue `name` and a channel on a new connection."""
        channel = self.channel()
        channel.queue_delete(name)
        channel.queue_declare(name, **flags)
        return channel

    def close(self):
        """Closes what is still open."""
        for connection in self.open_connections:
            try:
                connection.close()
            except exceptions.AMQPError:
                pass


def publish(channel, queue, bodies, **properties):
    """Publishes to `queue` through the default exchange."""
    for body in bodies:
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


def texts(first, after_last):
    """Bodies b"first" to b"after_last - 1"."""
    return [str(number).encode() for number in range(first, after_last)]


def collect(connection, received, count, seconds=10):
    """Serves the connection until `received` holds `count` items or time is up."""
    deadline = time.monotonic() + seconds
    while len(received) < count and time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.05)


def count(channel, queue):
    """Ready messages of `queue`."""
    return channel.queue_declare(queue, passive=True).method.message_count


def drain(channel, queue):
    """Gets and acknowledges everything; returns the bodies."""
    bodies = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)


def get(channel, queue, body, redelivered):
    """Gets one message that must be `body`; returns its delivery tag."""
    method, _, got = channel.basic_get(queue)
    if method is None:
        raise AssertionError(f"get: empty, want {body!r}")
    equal((got, method.redelivered), (body, redelivered), "get (body, redelivered)")
    return method.delivery_tag


def channel_error(code, text, action):
    """Runs `action`, which must close the channel with `code` and `text`."""
    try:
        action()
    except exceptions.ChannelClosedByBroker as closed:
        equal((closed.reply_code, closed.reply_text), (code, text), "channel.close")
        return
    raise AssertionError(f"no channel.close {code}")


def connection_error(code, text, action):
    """Runs `action`, which must close the connection with `code` and `text`."""
    try:
        action()
    except exceptions.ConnectionClosedByBroker as closed:
        equal((closed.reply_code, closed.reply_text), (code, text), "connection.close")
        return
    raise AssertionError(f"no connection.close {code}")


@case("publish-confirm")
def publish_confirm(session):
    queue = "e2e.python.confirm"
    channel = session.queue(queue, durable=True)
    channel.confirm_delivery()  # From here basic_publish returns when the confirm came, and raises on a nack.
    publish(channel, queue, texts(0, 500), delivery_mode=PERSISTENT)
    equal(count(channel, queue), 500, "messages")
    channel.queue_delete(queue)


@case("consume-prefetch")
def consume_prefetch(session):
    queue = "e2e.python.prefetch"
    channel = session.queue(queue)
    publish(channel, queue, texts(0, 30))
    received = []
    channel.basic_qos(prefetch_count=10)
    channel.basic_consume(queue, lambda _ch, method, _props, body: received.append((method.delivery_tag, body)))
    collect(channel.connection, received, 10)
    channel.connection.process_data_events(time_limit=0.3)
    equal(len(received), 10, "deliveries before the first ack")
    channel.basic_ack(received[4][0], multiple=True)
    collect(channel.connection, received, 15)
    channel.connection.process_data_events(time_limit=0.3)
    equal(len(received), 15, "deliveries after acknowledging five")
    while len(received) < 30:
        channel.basic_ack(received[-1][0], multiple=True)
        before = len(received)
        collect(channel.connection, received, min(30, before + 10))
        if len(received) == before:
            raise AssertionError(f"stuck at {before} deliveries")
    equal([body for _, body in received], texts(0, 30), "bodies in order")
    channel.basic_ack(0, multiple=True)
    channel.queue_delete(queue)


@case("consumers-round-robin")
def consumers_round_robin(session):
    queue = "e2e.python.robin"
    channel = session.queue(queue)
    first, second = [], []
    channel.basic_consume(queue, lambda _ch, _m, _p, body: first.append(body), auto_ack=True)
    channel.basic_consume(queue, lambda _ch, _m, _p, body: second.append(body), auto_ack=True)
    publish(channel, queue, texts(0, 10))
    collect(channel.connection, first, 5)
    collect(channel.connection, second, 5)
    equal((len(first), len(second)), (5, 5), "deliveries")
    equal(sorted(first + second), texts(0, 10), "bodies")
    channel.queue_delete(queue)


@case("requeue")
def requeue(session):
    queue = "e2e.python.requeue"
    channel = session.queue(queue)
    publish(channel, queue, [b"a", b"b", b"c"])
    channel.basic_nack(get(channel, queue, b"a", False), requeue=True)
    channel.basic_reject(get(channel, queue, b"a", True), requeue=True)
    channel.basic_reject(get(channel, queue, b"a", True), requeue=False)
    get(channel, queue, b"b", False)
    channel.basic_nack(get(channel, queue, b"c", False), multiple=True, requeue=True)
    get(channel, queue, b"b", True)
    channel.basic_ack(get(channel, queue, b"c", True), multiple=True)
    equal(count(channel, queue), 0, "messages")
    channel.queue_delete(queue)


@case("recover")
def recover(session):
    queue = "e2e.python.recover"
    channel = session.queue(queue)
    publish(channel, queue, [b"a", b"b"])
    get(channel, queue, b"a", False)
    get(channel, queue, b"b", False)
    channel.basic_recover(requeue=True)
    get(channel, queue, b"a", True)
    get(channel, queue, b"b", True)
    channel.queue_delete(queue)


@case("get")
def get_counts(session):
    queue = "e2e.python.get"
    channel = session.queue(queue)
    equal(channel.basic_get(queue)[0], None, "get on an empty queue")
    publish(channel, queue, texts(0, 3))
    for remaining in (2, 1, 0):
        method, _, body = channel.basic_get(queue)
        equal(method.message_count, remaining, "message_count")
        equal((method.exchange, method.routing_key), ("", queue), "exchange and routing key")
        equal(body, str(2 - remaining).encode(), "body")
        channel.basic_ack(method.delivery_tag)
    equal(channel.basic_get(queue)[0], None, "get at the end")
    channel.queue_delete(queue)


@case("mandatory-return")
def mandatory_return(session):
    channel = session.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(message_id="m-1")
    try:
        channel.basic_publish("amq.direct", "e2e.python.nowhere", b"back", properties, mandatory=True)
    except exceptions.UnroutableError as error:  # Raised at the confirm, with the returns that came before it.
        (returned,) = error.messages
        equal((returned.method.reply_code, returned.method.reply_text), (312, "NO_ROUTE"), "basic.return")
        equal((returned.method.exchange, returned.method.routing_key), ("amq.direct", "e2e.python.nowhere"), "address")
        equal((returned.properties.message_id, returned.body), ("m-1", b"back"), "content")
        return
    raise AssertionError("not returned")


@case("large-bodies")
def large_bodies(session):
    queue = "e2e.python.large"
    channel = session.queue(queue)
    channel.confirm_delivery()
    for size in (0, 1, 200 * 1024, 5 * 1024 * 1024):
        body = bytes(number * 31 % 251 for number in range(min(size, 251))) * (size // 251 + 1)
        body = body[:size]
        channel.basic_publish("", queue, body)
        method, _, got = channel.basic_get(queue, auto_ack=True)
        if method is None:
            raise AssertionError(f"{size} octets: not there")
        equal(len(got), size, "size")
        equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(body).hexdigest(), f"hash of {size} octets")
    channel.queue_delete(queue)


@case("properties")
def properties_round_trip(session):
    queue = "e2e.python.properties"
    channel = session.queue(queue)
    sent = pika.BasicProperties(
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "text": "ü",
            "flag": True,
            "integer": -70000,
            "long": 2**40,
            "void": None,
            "octets": b"\x00\xff",
            "list": [1, "two", [3], {"four": 4}],
            "table": {"inner": {"deep": "yes"}},
        },
        delivery_mode=PERSISTENT,
        priority=3,
        correlation_id="correlation",
        reply_to="reply",
        expiration="60000",
        message_id="message",
        timestamp=1700000000,
        type="kind",
        user_id="guest",
        app_id="application",
        cluster_id="cluster",
    )
    channel.basic_publish("", queue, b"x", sent)
    method, got, _ = channel.basic_get(queue, auto_ack=True)
    if method is None:
        raise AssertionError("not there")
    want = dict(vars(sent))
    want["headers"] = dict(want["headers"], octets=b"\x00\xff")
    equal(vars(got), want, "properties")
    channel.queue_delete(queue)


@case("error-404-passive")
def error_404_passive(session):
    connection = session.connect()
    channel = connection.channel()
    text = "NOT_FOUND - no queue 'e2e.python.missing' in vhost '/'"
    channel_error(404, text, lambda: channel.queue_declare("e2e.python.missing", passive=True))
    connection.channel().exchange_declare("amq.direct", passive=True)


@case("error-404-publish")
def error_404_publish(session):
    connection = session.connect()
    channel = connection.channel()
    channel.confirm_delivery()
    text = "NOT_FOUND - no exchange 'e2e.python.missing' in vhost '/'"
    channel_error(404, text, lambda: channel.basic_publish("e2e.python.missing", "k", b"x"))
    connection.channel()


@case("error-405-exclusive")
def error_405_exclusive(session):
    queue = "e2e.python.locked"
    session.queue(queue, exclusive=True)
    text = (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the original declaration."
    )
    other = session.connect()
    channel_error(405, text, lambda: other.channel().queue_declare(queue, exclusive=True))
    channel_error(405, text, lambda: other.channel().basic_get(queue))


@case("error-406-inequivalent")
def error_406_inequivalent(session):
    queue = "e2e.python.inequivalent"
    channel = session.queue(queue)
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
        "received 'true' but current is 'false'"
    )
    channel_error(406, text, lambda: channel.queue_declare(queue, durable=True))
    channel.connection.channel().queue_delete(queue)


@case("error-406-double-ack")
def error_406_double_ack(session):
    queue = "e2e.python.doubleack"
    channel = session.queue(queue)
    publish(channel, queue, [b"a"])
    tag = get(channel, queue, b"a", False)
    channel.basic_ack(tag)
    channel.basic_ack(tag)
    text = f"PRECONDITION_FAILED - unknown delivery tag {tag}"
    channel_error(406, text, lambda: channel.queue_declare(queue, passive=True))
    channel.connection.channel().queue_delete(queue)


@case("error-503-exchange-type")
def error_503_exchange_type(session):
    channel = session.channel()
    text = "COMMAND_INVALID - unknown exchange type 'x-nonsense'"
    connection_error(503, text, lambda: channel.exchange_declare("e2e.python.nonsense", "x-nonsense"))


@case("error-530-vhost")
def error_530_vhost(session):
    try:
        session.connect(virtual_host="e2e-missing")
    except exceptions.ProbableAccessDeniedError as error:
        if "(530) 'NOT_ALLOWED - vhost e2e-missing not found'" not in str(error):
            raise AssertionError(f"another text: {error}") from error
        return
    raise AssertionError("not refused")


@case("error-403-login")
def error_403_login(session):
    credentials = pika.PlainCredentials("guest", "wrong")
    try:
        session.connect(credentials=credentials)
    except exceptions.ProbableAuthenticationError as error:
        text = (
            "(403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
            "For details see the broker logfile.'"
        )
        if text not in str(error):
            raise AssertionError(f"another text: {error}") from error
        return
    raise AssertionError("not refused")


@case("queue-server-named")
def queue_server_named(session):
    channel = session.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    equal((name[:8], len(name)), ("amq.gen-", 30), "prefix and length")
    last = channel.queue_declare("", exclusive=True).method.queue
    equal(last == name, False, "the same name twice")
    channel.queue_bind("", "amq.fanout")
    channel.basic_publish("amq.fanout", "", b"to the last")
    equal(drain(channel, last), [b"to the last"], "messages of the last declared queue")


@case("queue-exclusive")
def queue_exclusive(session):
    queue = "e2e.python.exclusive"
    channel = session.queue(queue, exclusive=True)
    channel.connection.close()
    time.sleep(0.3)
    other = session.channel()
    text = f"NOT_FOUND - no queue '{queue}' in vhost '/'"
    channel_error(404, text, lambda: other.queue_declare(queue, passive=True))


@case("queue-auto-delete")
def queue_auto_delete(session):
    queue = "e2e.python.autodelete"
    channel = session.queue(queue, auto_delete=True)
    equal(count(channel, queue), 0, "it stays without a first consumer")
    tag = channel.basic_consume(queue, lambda *_: None)
    channel.basic_cancel(tag)
    text = f"NOT_FOUND - no queue '{queue}' in vhost '/'"
    channel_error(404, text, lambda: channel.queue_declare(queue, passive=True))


@case("queue-purge-delete")
def queue_purge_delete(session):
    queue = "e2e.python.purge"
    channel = session.queue(queue)
    publish(channel, queue, texts(0, 5))
    get(channel, queue, b"0", False)
    equal(channel.queue_purge(queue).method.message_count, 4, "purged")
    publish(channel, queue, texts(0, 2))
    equal(channel.queue_delete(queue).method.message_count, 2, "deleted")
    equal(channel.queue_delete(queue).method.message_count, 0, "deleting what is missing")


def route(session, kind, bindings, publishes):
    """Binds queues q0, q1, … to a fresh exchange and checks where `publishes` (key, headers, queues) arrive."""
    exchange = f"e2e.python.{kind}"
    channel = session.channel()
    channel.exchange_delete(exchange)
    channel.exchange_declare(exchange, kind)
    queues = []
    for key, arguments in bindings:
        queues.append(channel.queue_declare("", exclusive=True).method.queue)
        channel.queue_bind(queues[-1], exchange, key, arguments)
    for number, (key, headers, _) in enumerate(publishes):
        channel.basic_publish(exchange, key, str(number).encode(), pika.BasicProperties(headers=headers))
    for index, queue in enumerate(queues):
        want = [str(number).encode() for number, (_, _, to) in enumerate(publishes) if index in to]
        equal(drain(channel, queue), want, f"queue {index}, bound with {bindings[index]}")
    channel.exchange_delete(exchange)


@case("exchange-direct")
def exchange_direct(session):
    route(session, "direct", [("a", None), ("b", None)], [("a", None, [0]), ("b", None, [1]), ("c", None, [])])


@case("exchange-fanout")
def exchange_fanout(session):
    route(session, "fanout", [("a", None), ("", None)], [("a", None, [0, 1]), ("z", None, [0, 1])])


@case("exchange-topic")
def exchange_topic(session):
    bindings = [("*.orange.*", None), ("lazy.#", None), ("#", None), ("a.#.b", None)]
    publishes = [
        ("quick.orange.fox", None, [0, 2]),
        ("lazy", None, [1, 2]),
        ("lazy.orange.cat", None, [0, 1, 2]),
        ("a.b", None, [2, 3]),
        ("a.x.y.b", None, [2, 3]),
        ("", None, [2]),
    ]
    route(session, "topic", bindings, publishes)


@case("exchange-headers")
def exchange_headers(session):
    bindings = [("", {"x-match": "all", "a": "1", "b": 2}), ("", {"x-match": "any", "a": "1", "b": 2})]
    publishes = [("", {"a": "1", "b": 2}, [0, 1]), ("", {"a": "1"}, [1]), ("", {"a": "2", "c": 2}, []), ("", None, [])]
    route(session, "headers", bindings, publishes)


@case("exchange-to-exchange")
def exchange_to_exchange(session):
    channel = session.channel()
    for name, kind in (("e2e.python.source", "topic"), ("e2e.python.middle", "fanout")):
        channel.exchange_delete(name)
        channel.exchange_declare(name, kind)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.exchange_bind("e2e.python.middle", "e2e.python.source", "k.*")
    channel.queue_bind(queue, "e2e.python.middle")
    channel.basic_publish("e2e.python.source", "k.1", b"through")
    channel.basic_publish("e2e.python.source", "other", b"not")
    equal(drain(channel, queue), [b"through"], "messages")
    channel.exchange_unbind("e2e.python.middle", "e2e.python.source", "k.*")
    channel.basic_publish("e2e.python.source", "k.1", b"late")
    equal(drain(channel, queue), [], "messages after unbind")
    channel.exchange_delete("e2e.python.source")
    channel.exchange_delete("e2e.python.middle")


@case("transactions")
def transactions(session):
    queue = "e2e.python.tx"
    channel = session.queue(queue)
    watcher = session.channel()
    channel.tx_select()
    publish(channel, queue, texts(0, 3))
    equal(count(watcher, queue), 0, "messages before commit")
    channel.tx_commit()
    equal(count(watcher, queue), 3, "messages after commit")
    publish(channel, queue, texts(3, 6))
    channel.tx_rollback()
    equal(count(watcher, queue), 3, "messages after rollback")
    channel.basic_ack(get(channel, queue, b"0", False))
    channel.tx_rollback()  # Forgets the ack: the delivery is outstanding again.
    channel.basic_ack(1)
    channel.tx_commit()
    channel.connection.close()
    equal(drain(watcher, queue), texts(1, 3), "messages after the acknowledged one")
    watcher.queue_delete(queue)


@case("cancel-notification")
def cancel_notification(session):
    queue = "e2e.python.cancelled"
    channel = session.queue(queue)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(queue, lambda *_: None)
    session.channel().queue_delete(queue)
    collect(channel.connection, cancelled, 1)
    equal(cancelled, [tag], "cancelled consumers")


@case("many-channels")
def many_channels(session):
    queue = "e2e.python.channels"
    channel = session.queue(queue)
    channels = [channel.connection.channel() for _ in range(50)]
    for number, each in enumerate(channels):
        each.confirm_delivery()
        each.basic_publish("", queue, str(number).encode())
    equal(drain(channel, queue), texts(0, 50), "messages")
    channel.queue_delete(queue)


@case("heartbeat")
def heartbeat(session):
    connection = session.connect(heartbeat=1)
    channel = connection.channel()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.2)
    channel.queue_declare("", exclusive=True)


@case("close-requeues")
def close_requeues(session):
    queue = "e2e.python.closed"
    channel = session.queue(queue)
    publish(channel, queue, texts(0, 3))
    for body in texts(0, 3):
        get(channel, queue, body, False)
    channel.close()
    other = session.channel()
    for body in texts(0, 3):
        get(other, queue, body, True)
    other.queue_delete(queue)


def restart_case(session, how):
    """Durable things and persistent messages survive a restart, acknowledged and transient ones do not."""
    durable, transient, exchange = f"e2e.python.{how}", f"e2e.python.{how}.transient", f"e2e.python.{how}.exchange"
    channel = session.queue(durable, durable=True)
    channel.queue_delete(transient)
    channel.queue_declare(transient)
    channel.exchange_declare(exchange, "direct", durable=True)
    channel.queue_bind(durable, exchange, "k")
    channel.confirm_delivery()
    for number in range(100):
        properties = pika.BasicProperties(delivery_mode=PERSISTENT, headers={"number": number})
        channel.basic_publish(exchange, "k", str(number).encode(), properties)
        channel.basic_publish(exchange, "k", b"transient", pika.BasicProperties(delivery_mode=1))
    for number in range(10):
        channel.basic_ack(get(channel, durable, str(number).encode(), False))
        channel.basic_ack(get(channel, durable, b"transient", False))
    channel.queue_declare(durable, passive=True, durable=True)  # A reply: the acks were read.
    time.sleep(0.5)
    session.restart(how)
    channel = session.channel()
    received = []
    while True:
        method, properties, body = channel.basic_get(durable, auto_ack=True)
        if method is None:
            break
        received.append((body, properties.headers["number"]))
    equal(received, [(str(number).encode(), number) for number in range(10, 100)], "messages after the restart")
    channel.basic_publish(exchange, "k", b"routed")
    equal(drain(channel, durable), [b"routed"], "routing after the restart")
    channel.exchange_delete(exchange)
    channel.queue_delete(durable)
    text = f"NOT_FOUND - no queue '{transient}' in vhost '/'"
    channel_error(404, text, lambda: channel.queue_declare(transient, passive=True))


@case("restart-term")
def restart_term(session):
    restart_case(session, "term")


@case("restart-kill")
def restart_kill(session):
    restart_case(session, "kill")
