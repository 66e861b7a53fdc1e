"""The Celery application: its tasks, and its configuration by environment variables, for workers and callers alike.

RESULTS     the result backend: rpc:// or a directory's file:// (Celery itself refuses chords over rpc://)
MARKS       a directory in which tasks leave marks that no message carries
QUEUE_TYPE  classic; or quorum, which Celery pairs with delays by TTL and dead letters in the broker
"""
import os
import pathlib
import time

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

MARKS = pathlib.Path(os.environ["MARKS"])
QUEUE_TYPE = os.environ.get("QUEUE_TYPE", "classic")

app = Celery("suite", broker="pyamqp://guest:guest@localhost:5672//", backend=os.environ.get("RESULTS", "rpc://"))


def queue(name, exchange_type="direct", routing_key=None, **arguments):
    return Queue(name, Exchange(name, type=exchange_type), routing_key=routing_key or name, queue_arguments=arguments)


QUEUES = [
    queue("work"),
    queue("priorities", **{"x-max-priority": 10}),
    queue("late"),
    queue("weather", exchange_type="topic", routing_key="weather.#"),
    queue("acks-late"),
    queue("child-lost"),
    queue("warm"),
    Broadcast("to-all"),
]
# Where one queue is a quorum queue Celery treats all of them so: these need an application of their own.
QUORUM_QUEUES = [queue("work", exchange_type="topic", **{"x-queue-type": "quorum"})]

app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_native_delayed_delivery_queue_type="classic",
    broker_transport_options={"confirm_publish": True},
    result_expires=600,
    task_create_missing_queues=False,
    task_default_queue="work",
    task_default_queue_type=QUEUE_TYPE,
    task_default_exchange="work",
    task_default_exchange_type="topic" if QUEUE_TYPE == "quorum" else "direct",
    task_default_routing_key="work",
    task_queues=QUORUM_QUEUES if QUEUE_TYPE == "quorum" else QUEUES,
    task_send_sent_event=True,
    task_track_started=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
)


def mark(name, text=""):
    with open(MARKS / name, "a") as file:
        file.write(f"{text}\n")


def marks(name):
    path = MARKS / name
    return path.read_text().splitlines() if path.exists() else []


@app.task
def add(first, second):
    return first + second


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fails():
    raise ValueError("as it should")


@app.task(bind=True, autoretry_for=(ConnectionError,), retry_backoff=True, retry_backoff_max=1, retry_jitter=False, max_retries=3)
def succeeds_at_the_third_try(self):
    if self.request.retries < 2:
        raise ConnectionError("not yet")
    return self.request.retries


@app.task(bind=True, max_retries=2)
def never_succeeds(self):
    raise self.retry(countdown=0.2, exc=ValueError("never"))


@app.task
def time_of_run():
    return time.time()


@app.task
def remember(name, text):
    mark(name, text)


@app.task
def echo(text):
    return text


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def outlives_its_worker(self, name):
    """The first worker that runs it is killed meanwhile; the next one is told that the message came before."""
    mark(name, os.getpid())
    if len(marks(name)) == 1:
        time.sleep(60)
    return bool(self.request.delivery_info["redelivered"])


@app.task
def sleeps(name, seconds):
    mark(name)
    time.sleep(seconds)
    return seconds
