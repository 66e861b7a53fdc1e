// The cases of cases.txt through amqplib. `CASES` lists them in order; each takes a `Session` and throws on the first difference.
'use strict';

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const amqp = require('amqplib');

// Class tx (90) as `class << 16 | method`: amqplib can encode it, but has no method for it and does not export the numbers.
const TX = { select: 0x5a000a, selectOk: 0x5a000b, commit: 0x5a0014, commitOk: 0x5a0015, rollback: 0x5a001e, rollbackOk: 0x5a001f };

/** Connections for one case, closed at its end, and the verbs the cases share. */
class Session {
  constructor(url, restart) {
    this.url = url;
    this.restart = restart;
    this.open = [];
  }

  /** A new connection; `change` may edit the URL. What closes it is kept in `connection.closedWith`. */
  async connect(change = () => {}) {
    const url = new URL(this.url);
    change(url);
    const connection = await amqp.connect(url.toString());
    connection.on('error', (error) => (connection.closedWith = error));
    this.open.push(connection);
    return connection;
  }

  /** A channel on `connection`, or on a new one. What closes it is kept in `channel.closedWith`. */
  async channel(connection) {
    return watched(await (connection ?? (await this.connect())).createChannel());
  }

  /** A channel that awaits confirms, on a new connection. */
  async confirmChannel() {
    return watched(await (await this.connect()).createConfirmChannel());
  }

  /** A fresh queue `name` and a channel on a new connection. */
  async queue(name, options = {}) {
    const channel = await this.confirmChannel();
    await channel.deleteQueue(name);
    await channel.assertQueue(name, { durable: false, ...options });
    return channel;
  }

  /** Closes what is still open. */
  async close() {
    for (const connection of this.open) await connection.close().catch(() => {});
  }
}

function watched(channel) {
  channel.on('error', (error) => (channel.closedWith = error));
  return channel;
}

/** The decimal texts `first` to `afterLast - 1`. */
function texts(first, afterLast) {
  return Array.from({ length: afterLast - first }, (_, index) => String(first + index));
}

/** Publishes to `queue` through the default exchange and waits for the confirms. */
async function publish(channel, queue, bodies, options = {}) {
  for (const body of bodies) channel.sendToQueue(queue, Buffer.from(body), options);
  await channel.waitForConfirms();
}

/** Waits until `condition` holds, `seconds` at most. */
async function until(condition, what, seconds = 10) {
  for (const end = Date.now() + seconds * 1000; !condition(); await sleep(20)) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
  }
}

/** Ready messages of `queue`. */
async function count(channel, queue) {
  return (await channel.checkQueue(queue)).messageCount;
}

/** Gets and acknowledges everything; returns the bodies. */
async function drain(channel, queue) {
  const bodies = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (!message) return bodies;
    bodies.push(message.content.toString());
  }
}

/** Gets one message that must be `body`; returns it. */
async function get(channel, queue, body, redelivered) {
  const message = await channel.get(queue);
  assert.ok(message, `get: empty, want ${body}`);
  assert.deepEqual([message.content.toString(), message.fields.redelivered], [body, redelivered]);
  return message;
}

/** Runs `action`, after which the server must close `closing` (a channel or a connection) with `code` and `text`. */
async function closes(closing, code, text, action) {
  await Promise.resolve(action()).catch(() => {}); // The call that was waiting fails too; the close itself is what counts.
  await until(() => closing.closedWith, `close ${code}`);
  assert.equal(closing.closedWith.code, code);
  assert.ok(closing.closedWith.message.includes(text), `${closing.closedWith.message} does not say ${text}`);
}

/** Fails unless connecting is refused with `text`. */
async function refused(session, change, text) {
  try {
    await session.connect(change);
  } catch (error) {
    assert.ok(error.message.includes(text), `${error.message} does not say ${text}`);
    return;
  }
  throw new Error('not refused');
}

/** Binds queues q0, q1, … to a fresh exchange and checks where `publishes` (key, headers, queues) arrive. */
async function route(session, kind, bindings, publishes) {
  const exchange = `e2e.node.${kind}`;
  const channel = await session.confirmChannel();
  await channel.deleteExchange(exchange);
  await channel.assertExchange(exchange, kind, { durable: false });
  const queues = [];
  for (const [key, options] of bindings) {
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(queue, exchange, key, options);
    queues.push(queue);
  }
  publishes.forEach(([key, headers], number) => channel.publish(exchange, key, Buffer.from(String(number)), { headers }));
  await channel.waitForConfirms();
  for (const [index, queue] of queues.entries()) {
    const want = publishes.flatMap(([, , to], number) => (to.includes(index) ? [String(number)] : []));
    assert.deepEqual(await drain(channel, queue), want, `queue ${index}, bound with ${bindings[index]}`);
  }
  await channel.deleteExchange(exchange);
}

/** Durable things and persistent messages survive a restart, acknowledged and transient ones do not. */
async function restartCase(session, how) {
  const durable = `e2e.node.${how}`;
  const exchange = `${durable}.exchange`;
  const transient = `${durable}.transient`;
  let channel = await session.queue(durable, { durable: true });
  await channel.deleteQueue(transient);
  await channel.assertQueue(transient, { durable: false });
  await channel.assertExchange(exchange, 'direct', { durable: true });
  await channel.bindQueue(durable, exchange, 'k');
  for (const body of texts(0, 100)) {
    channel.publish(exchange, 'k', Buffer.from(body), { persistent: true, headers: { number: Number(body) } });
    channel.publish(exchange, 'k', Buffer.from('transient'), { persistent: false });
  }
  await channel.waitForConfirms();
  for (const body of texts(0, 10)) {
    channel.ack(await get(channel, durable, body, false));
    channel.ack(await get(channel, durable, 'transient', false));
  }
  await channel.checkQueue(durable); // A reply: the acks were read.
  await sleep(500);
  await session.restart(how);
  channel = await session.confirmChannel();
  const received = [];
  for (let message; (message = await channel.get(durable, { noAck: true })); ) {
    received.push([message.content.toString(), message.properties.headers.number]);
  }
  assert.deepEqual(received, texts(10, 100).map((body) => [body, Number(body)]));
  channel.publish(exchange, 'k', Buffer.from('routed'));
  await channel.waitForConfirms();
  assert.deepEqual(await drain(channel, durable), ['routed']);
  await channel.deleteExchange(exchange);
  await channel.deleteQueue(durable);
  await closes(channel, 404, `NOT_FOUND - no queue '${transient}' in vhost '/'`, () => channel.checkQueue(transient));
}

const CASES = {
  async 'publish-confirm'(session) {
    const queue = 'e2e.node.confirm';
    const channel = await session.queue(queue, { durable: true });
    await publish(channel, queue, texts(0, 500), { persistent: true });
    assert.equal(await count(channel, queue), 500);
    await channel.deleteQueue(queue);
  },

  async 'consume-prefetch'(session) {
    const queue = 'e2e.node.prefetch';
    const channel = await session.queue(queue);
    await publish(channel, queue, texts(0, 30));
    const received = [];
    await channel.prefetch(10);
    await channel.consume(queue, (message) => received.push(message));
    await until(() => received.length >= 10, 'ten deliveries');
    await sleep(300);
    assert.equal(received.length, 10, 'deliveries before the first ack');
    channel.ack(received[4], true);
    await until(() => received.length >= 15, 'five more deliveries');
    await sleep(300);
    assert.equal(received.length, 15, 'deliveries after acknowledging five');
    while (received.length < 30) {
      const before = received.length;
      channel.ack(received[before - 1], true);
      await until(() => received.length >= Math.min(30, before + 10), `more than ${before} deliveries`);
    }
    assert.deepEqual(received.map((message) => message.content.toString()), texts(0, 30));
    channel.ackAll();
    await channel.deleteQueue(queue);
  },

  async 'consumers-round-robin'(session) {
    const queue = 'e2e.node.robin';
    const channel = await session.queue(queue);
    const received = [[], []];
    for (const mine of received) {
      await channel.consume(queue, (message) => mine.push(message.content.toString()), { noAck: true });
    }
    await publish(channel, queue, texts(0, 10));
    await until(() => received[0].length + received[1].length >= 10, 'ten deliveries');
    assert.deepEqual(received.map((mine) => mine.length), [5, 5]);
    assert.deepEqual(received.flat().sort(), texts(0, 10));
    await channel.deleteQueue(queue);
  },

  async requeue(session) {
    const queue = 'e2e.node.requeue';
    const channel = await session.queue(queue);
    await publish(channel, queue, ['a', 'b', 'c']);
    channel.nack(await get(channel, queue, 'a', false), false, true);
    channel.reject(await get(channel, queue, 'a', true), true);
    channel.reject(await get(channel, queue, 'a', true), false);
    await get(channel, queue, 'b', false);
    channel.nack(await get(channel, queue, 'c', false), true, true);
    await get(channel, queue, 'b', true);
    channel.ack(await get(channel, queue, 'c', true), true);
    assert.equal(await count(channel, queue), 0);
    await channel.deleteQueue(queue);
  },

  async recover(session) {
    const queue = 'e2e.node.recover';
    const channel = await session.queue(queue);
    await publish(channel, queue, ['a', 'b']);
    await get(channel, queue, 'a', false);
    await get(channel, queue, 'b', false);
    await channel.recover();
    await get(channel, queue, 'a', true);
    await get(channel, queue, 'b', true);
    await channel.deleteQueue(queue);
  },

  async get(session) {
    const queue = 'e2e.node.get';
    const channel = await session.queue(queue);
    assert.equal(await channel.get(queue), false);
    await publish(channel, queue, texts(0, 3));
    for (const remaining of [2, 1, 0]) {
      const message = await channel.get(queue);
      assert.equal(message.fields.messageCount, remaining);
      assert.deepEqual([message.fields.exchange, message.fields.routingKey], ['', queue]);
      assert.equal(message.content.toString(), String(2 - remaining));
      channel.ack(message);
    }
    assert.equal(await channel.get(queue), false);
    await channel.deleteQueue(queue);
  },

  async 'mandatory-return'(session) {
    const channel = await session.confirmChannel();
    const events = [];
    channel.on('return', (message) => events.push(message));
    const confirmed = new Promise((resolve, reject) => {
      channel.publish('amq.direct', 'e2e.node.nowhere', Buffer.from('back'), { mandatory: true, messageId: 'm-1' }, (error) => {
        events.push('confirm');
        if (error) reject(error);
        else resolve();
      });
    });
    await confirmed;
    assert.equal(events.length, 2, 'a return and a confirm');
    const [returned, last] = events;
    assert.equal(last, 'confirm');
    assert.deepEqual([returned.fields.replyCode, returned.fields.replyText], [312, 'NO_ROUTE']);
    assert.deepEqual([returned.fields.exchange, returned.fields.routingKey], ['amq.direct', 'e2e.node.nowhere']);
    assert.deepEqual([returned.properties.messageId, returned.content.toString()], ['m-1', 'back']);
  },

  async 'large-bodies'(session) {
    const queue = 'e2e.node.large';
    const channel = await session.queue(queue);
    const hash = (body) => createHash('sha256').update(body).digest('hex');
    for (const size of [0, 1, 200 * 1024, 5 * 1024 * 1024]) {
      const body = Buffer.alloc(size);
      for (let index = 0; index < size; index += 1) body[index] = (index * 31) % 251;
      channel.sendToQueue(queue, body);
      await channel.waitForConfirms();
      const message = await channel.get(queue, { noAck: true });
      assert.equal(message.content.length, size);
      assert.equal(hash(message.content), hash(body), `${size} octets`);
    }
    await channel.deleteQueue(queue);
  },

  async properties(session) {
    const queue = 'e2e.node.properties';
    const channel = await session.queue(queue);
    const sent = {
      contentType: 'text/plain',
      contentEncoding: 'utf-8',
      headers: {
        text: 'ü',
        flag: true,
        integer: -70000,
        long: 2 ** 40,
        fraction: 0.5,
        void: null,
        octets: Buffer.from([0, 255]),
        when: { '!': 'timestamp', value: 1700000000 },
        list: [1, 'two', [3], { four: 4 }],
        table: { inner: { deep: 'yes' } },
      },
      deliveryMode: 2,
      priority: 3,
      correlationId: 'correlation',
      replyTo: 'reply',
      expiration: '60000',
      messageId: 'message',
      timestamp: 1700000000,
      type: 'kind',
      userId: 'guest',
      appId: 'application',
    };
    channel.sendToQueue(queue, Buffer.from('x'), sent);
    await channel.waitForConfirms();
    const { properties } = await channel.get(queue, { noAck: true });
    assert.deepEqual({ ...properties }, { ...sent, clusterId: undefined });
    await channel.deleteQueue(queue);
  },

  async 'error-404-passive'(session) {
    const connection = await session.connect();
    const channel = await session.channel(connection);
    const text = "NOT_FOUND - no queue 'e2e.node.missing' in vhost '/'";
    await closes(channel, 404, text, () => channel.checkQueue('e2e.node.missing'));
    await (await session.channel(connection)).checkExchange('amq.direct');
  },

  async 'error-404-publish'(session) {
    const connection = await session.connect();
    const channel = await session.channel(connection);
    const text = "NOT_FOUND - no exchange 'e2e.node.missing' in vhost '/'";
    await closes(channel, 404, text, () => channel.publish('e2e.node.missing', 'k', Buffer.from('x')));
    await session.channel(connection);
  },

  async 'error-405-exclusive'(session) {
    const queue = 'e2e.node.locked';
    await session.queue(queue, { exclusive: true });
    const text =
      `RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '${queue}' in vhost '/'. It could be originally declared ` +
      'on another connection or the exclusive property value does not match that of the original declaration.';
    const declaring = await session.channel();
    await closes(declaring, 405, text, () => declaring.assertQueue(queue, { exclusive: true, durable: false }));
    const getting = await session.channel();
    await closes(getting, 405, text, () => getting.get(queue));
  },

  async 'error-406-inequivalent'(session) {
    const queue = 'e2e.node.inequivalent';
    const channel = await session.queue(queue);
    const text =
      `PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${queue}' in vhost '/': ` +
      "received 'true' but current is 'false'";
    await closes(channel, 406, text, () => channel.assertQueue(queue, { durable: true }));
    await (await session.channel()).deleteQueue(queue);
  },

  async 'error-406-double-ack'(session) {
    const queue = 'e2e.node.doubleack';
    const channel = await session.queue(queue);
    await publish(channel, queue, ['a']);
    const message = await get(channel, queue, 'a', false);
    const text = `PRECONDITION_FAILED - unknown delivery tag ${message.fields.deliveryTag}`;
    await closes(channel, 406, text, () => {
      channel.ack(message);
      channel.ack(message);
    });
    await (await session.channel()).deleteQueue(queue);
  },

  async 'error-503-exchange-type'(session) {
    const connection = await session.connect();
    const channel = await session.channel(connection);
    const text = "COMMAND_INVALID - unknown exchange type 'x-nonsense'";
    await closes(connection, 503, text, () => channel.assertExchange('e2e.node.nonsense', 'x-nonsense'));
  },

  async 'error-530-vhost'(session) {
    // amqplib keeps code and text of this close to itself.
    await refused(session, (url) => (url.pathname = '/e2e-missing'), 'Expected ConnectionOpenOk; got <ConnectionClose channel:0>');
  },

  async 'error-403-login'(session) {
    const text = 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.';
    await refused(session, (url) => (url.password = 'wrong'), text);
  },

  async 'queue-server-named'(session) {
    const channel = await session.confirmChannel();
    const { queue: name } = await channel.assertQueue('', { exclusive: true });
    assert.match(name, /^amq\.gen-.{22}$/);
    const { queue: last } = await channel.assertQueue('', { exclusive: true });
    assert.notEqual(last, name);
    await channel.bindQueue('', 'amq.fanout', '');
    channel.publish('amq.fanout', '', Buffer.from('to the last'));
    await channel.waitForConfirms();
    assert.deepEqual(await drain(channel, last), ['to the last']);
  },

  async 'queue-exclusive'(session) {
    const queue = 'e2e.node.exclusive';
    await session.queue(queue, { exclusive: true });
    await session.close();
    await sleep(300);
    const other = await session.channel();
    await closes(other, 404, `NOT_FOUND - no queue '${queue}' in vhost '/'`, () => other.checkQueue(queue));
  },

  async 'queue-auto-delete'(session) {
    const queue = 'e2e.node.autodelete';
    const channel = await session.queue(queue, { autoDelete: true });
    assert.equal(await count(channel, queue), 0, 'it stays without a first consumer');
    const { consumerTag } = await channel.consume(queue, () => {});
    await channel.cancel(consumerTag);
    await closes(channel, 404, `NOT_FOUND - no queue '${queue}' in vhost '/'`, () => channel.checkQueue(queue));
  },

  async 'queue-purge-delete'(session) {
    const queue = 'e2e.node.purge';
    const channel = await session.queue(queue);
    await publish(channel, queue, texts(0, 5));
    await get(channel, queue, '0', false);
    assert.equal((await channel.purgeQueue(queue)).messageCount, 4);
    await publish(channel, queue, texts(0, 2));
    assert.equal((await channel.deleteQueue(queue)).messageCount, 2);
    assert.equal((await channel.deleteQueue(queue)).messageCount, 0, 'deleting what is missing');
  },

  'exchange-direct': (session) => route(session, 'direct', [['a'], ['b']], [['a', {}, [0]], ['b', {}, [1]], ['c', {}, []]]),

  'exchange-fanout': (session) => route(session, 'fanout', [['a'], ['']], [['a', {}, [0, 1]], ['z', {}, [0, 1]]]),

  'exchange-topic': (session) => {
    const publishes = [
      ['quick.orange.fox', {}, [0, 2]],
      ['lazy', {}, [1, 2]],
      ['lazy.orange.cat', {}, [0, 1, 2]],
      ['a.b', {}, [2, 3]],
      ['a.x.y.b', {}, [2, 3]],
      ['', {}, [2]],
    ];
    return route(session, 'topic', [['*.orange.*'], ['lazy.#'], ['#'], ['a.#.b']], publishes);
  },

  'exchange-headers': (session) => {
    const bindings = [
      ['', { 'x-match': 'all', a: '1', b: 2 }],
      ['', { 'x-match': 'any', a: '1', b: 2 }],
    ];
    const publishes = [
      ['', { a: '1', b: 2 }, [0, 1]],
      ['', { a: '1' }, [1]],
      ['', { a: '2', c: 2 }, []],
      ['', {}, []],
    ];
    return route(session, 'headers', bindings, publishes);
  },

  async 'exchange-to-exchange'(session) {
    const [source, middle] = ['e2e.node.source', 'e2e.node.middle'];
    const channel = await session.confirmChannel();
    for (const [name, kind] of [[source, 'topic'], [middle, 'fanout']]) {
      await channel.deleteExchange(name);
      await channel.assertExchange(name, kind, { durable: false });
    }
    const { queue } = await channel.assertQueue('', { exclusive: true });
    await channel.bindExchange(middle, source, 'k.*');
    await channel.bindQueue(queue, middle, '');
    channel.publish(source, 'k.1', Buffer.from('through'));
    channel.publish(source, 'other', Buffer.from('not'));
    await channel.waitForConfirms();
    assert.deepEqual(await drain(channel, queue), ['through']);
    await channel.unbindExchange(middle, source, 'k.*');
    channel.publish(source, 'k.1', Buffer.from('late'));
    await channel.waitForConfirms();
    assert.deepEqual(await drain(channel, queue), []);
    await channel.deleteExchange(source);
    await channel.deleteExchange(middle);
  },

  async transactions(session) {
    const queue = 'e2e.node.tx';
    const watcher = await session.queue(queue);
    const connection = await session.connect();
    const channel = await session.channel(connection);
    const send = (bodies) => bodies.forEach((body) => channel.sendToQueue(queue, Buffer.from(body)));
    const commit = () => channel.rpc(TX.commit, {}, TX.commitOk);
    const rollback = () => channel.rpc(TX.rollback, {}, TX.rollbackOk);
    await channel.rpc(TX.select, {}, TX.selectOk);
    send(texts(0, 3));
    await channel.checkQueue(queue);
    assert.equal(await count(watcher, queue), 0, 'before commit');
    await commit();
    assert.equal(await count(watcher, queue), 3, 'after commit');
    send(texts(3, 6));
    await rollback();
    assert.equal(await count(watcher, queue), 3, 'after rollback');
    const message = await get(channel, queue, '0', false);
    channel.ack(message);
    await rollback(); // Forgets the ack: the delivery is outstanding again.
    channel.ack(message);
    await commit();
    await connection.close();
    assert.deepEqual(await drain(watcher, queue), texts(1, 3));
    await watcher.deleteQueue(queue);
  },

  async 'cancel-notification'(session) {
    const queue = 'e2e.node.cancelled';
    const channel = await session.queue(queue);
    const received = [];
    await channel.consume(queue, (message) => received.push(message));
    await (await session.channel()).deleteQueue(queue);
    await until(() => received.length > 0, 'the cancellation');
    assert.deepEqual(received, [null]); // How amqplib tells a consumer that the server cancelled it.
  },

  async 'many-channels'(session) {
    const queue = 'e2e.node.channels';
    const channel = await session.queue(queue);
    const connection = await session.connect();
    const channels = await Promise.all(texts(0, 50).map(() => connection.createConfirmChannel()));
    for (const [number, each] of channels.entries()) {
      each.sendToQueue(queue, Buffer.from(String(number)));
      await each.waitForConfirms();
    }
    assert.deepEqual(await drain(channel, queue), texts(0, 50));
    await channel.deleteQueue(queue);
  },

  async heartbeat(session) {
    const connection = await session.connect((url) => url.searchParams.set('heartbeat', '1'));
    const channel = await session.channel(connection);
    await sleep(4000);
    await channel.assertQueue('', { exclusive: true });
    assert.equal(connection.closedWith, undefined);
  },

  async 'close-requeues'(session) {
    const queue = 'e2e.node.closed';
    const channel = await session.queue(queue);
    await publish(channel, queue, texts(0, 3));
    for (const body of texts(0, 3)) await get(channel, queue, body, false);
    await channel.close();
    const other = await session.channel();
    for (const body of texts(0, 3)) await get(other, queue, body, true);
    await other.deleteQueue(queue);
  },

  'restart-term': (session) => restartCase(session, 'term'),

  'restart-kill': (session) => restartCase(session, 'kill'),
};

module.exports = { CASES, Session };
