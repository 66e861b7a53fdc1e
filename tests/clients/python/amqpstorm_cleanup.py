"""A pytest plugin: AMQPStorm's suite deletes its queues and exchanges over the HTTP API after each test; here by AMQP."""
import amqpstorm
from amqpstorm.tests import HOST, PASSWORD, USERNAME
from amqpstorm.tests.functional import utility


def clean(names, queue=False, exchange=False):
    if not queue and not exchange:
        return
    with amqpstorm.Connection(HOST, USERNAME, PASSWORD) as connection, connection.channel() as channel:
        for name in names:
            if queue:
                channel.queue.delete(name)
            if exchange:
                channel.exchange.delete(name)


def pytest_configure(config):
    utility.clean = clean
