"""A pytest plugin: the fixtures that aiormq's suite expects and does not publish, for a broker that is there already."""
import types

import pytest
from yarl import URL


@pytest.fixture(scope="session")
def rabbitmq_container():
    return types.SimpleNamespace(host="127.0.0.1", ports={"5672/tcp": 5672, "5671/tcp": 5671})


@pytest.fixture(scope="session")
def amqp_direct_url(rabbitmq_container):
    return URL.build(scheme="amqp", user="guest", password="guest", path="//", host=rabbitmq_container.host,
                     port=rabbitmq_container.ports["5672/tcp"])
