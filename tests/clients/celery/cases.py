"""Runs the application's cases one after the other and writes one line each, `outcome<TAB>name`, to SUITE_OUTCOMES."""
import collections
import contextlib
import datetime
import os
import pathlib
import subprocess
import sys
import threading
import time
import traceback

# Beside the outcomes: the marks of tasks, the logs of workers, and results in files.
DIRECTORY = pathlib.Path(os.environ["SUITE_OUTCOMES"]).parent
for part in ("marks", "results"):
    (DIRECTORY / part).mkdir()
os.environ["MARKS"] = str(DIRECTORY / "marks")

import app as application  # noqa: E402: the application reads MARKS
from celery import chain, chord, group  # noqa: E402
from celery.exceptions import TaskRevokedError, TimeoutError  # noqa: E402
from workers import Worker, worker  # noqa: E402

app = application.app
LIMIT = 30
CASES = []


def case(function):
    CASES.append(function)
    return function


def raises(kind, function):
    try:
        function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def eventually(condition, limit=LIMIT):
    give_up = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < give_up, "it did not become true in time"
        time.sleep(0.1)


def call(script, *arguments, **environment):
    """Runs a caller whose application is configured otherwise than this one."""
    command = [sys.executable, script, *arguments]
    subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=2 * LIMIT)


def declare(name):
    with app.connection() as connection:
        app.amqp.queues[name](connection.default_channel).declare()


def forget(name):
    """Deletes a queue and its exchange, which another application declares otherwise."""
    with app.connection() as connection:
        connection.default_channel.queue_delete(name)
        connection.default_channel.exchange_delete(name)


def depth(name):
    with app.connection() as connection:
        return connection.default_channel.queue_declare(name, passive=True).message_count


# Two workers with results over rpc://


@case
def a_result_over_rpc():
    assert application.add.delay(2, 3).get(timeout=LIMIT) == 5


@case
def an_error_over_rpc():
    error = raises(ValueError, lambda: application.fails.delay().get(timeout=LIMIT))
    assert "as it should" in str(error)


@case
def a_large_argument_and_result():
    text = "x" * 1_000_000
    assert application.echo.delay(text).get(timeout=LIMIT) == text


@case
def two_hundred_results():
    results = [application.add.delay(number, number) for number in range(200)]
    assert [result.get(timeout=LIMIT) for result in results] == [2 * number for number in range(200)]


@case
def automatic_retries_with_backoff():
    assert application.succeeds_at_the_third_try.delay().get(timeout=LIMIT) == 2


@case
def retries_that_run_out():
    result = application.never_succeeds.delay()
    raises(ValueError, lambda: result.get(timeout=LIMIT))


@case
def a_countdown():
    sent = time.time()
    ran = application.time_of_run.apply_async(countdown=2).get(timeout=LIMIT)
    assert ran - sent >= 1.9, ran - sent


@case
def an_eta():
    eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    ran = application.time_of_run.apply_async(eta=eta).get(timeout=LIMIT)
    assert ran >= eta.timestamp() - 0.1


@case
def a_group_over_rpc():
    result = group(application.add.s(number, 1) for number in range(20)).apply_async()
    assert result.get(timeout=LIMIT) == list(range(1, 21))


@case
def a_chain_over_rpc():
    assert chain(application.add.s(1, 2), application.add.s(3), application.add.s(4))().get(timeout=LIMIT) == 10


@case
def a_chord_over_rpc_is_refused_by_celery_itself():
    raises(NotImplementedError, lambda: chord([application.add.s(1, 1)])(application.total.s()))


@case
def a_callback_and_an_errback():
    name = "links"
    application.add.apply_async((1, 1), link=application.remember.si(name, "success"))
    application.fails.apply_async(link_error=application.remember.si(name, "error"))
    eventually(lambda: sorted(application.marks(name)) == ["error", "success"])


@case
def a_topic_exchange():
    declare("weather")
    application.add.apply_async((1, 1), exchange="weather", routing_key="climate.of.tomorrow")
    forecast = application.add.apply_async((1, 2), exchange="weather", routing_key="weather.of.tomorrow")
    assert depth("weather") == 1
    app.control.add_consumer("weather", reply=True, timeout=5)
    assert forecast.get(timeout=LIMIT) == 3
    app.control.cancel_consumer("weather", reply=True, timeout=5)


@case
def ping_reaches_both_workers():
    answers = app.control.inspect(timeout=5).ping() or {}
    assert sorted(answers) == ["one@localhost", "two@localhost"], answers


@case
def ping_reaches_a_named_worker():
    assert app.control.ping(destination=["two@localhost"], timeout=5) == [{"two@localhost": {"ok": "pong"}}]


@case
def inspection_of_workers():
    inspect = app.control.inspect(timeout=5)
    queues = inspect.active_queues()
    assert all(any(queue["name"] == "work" for queue in queues[name]) for name in ("one@localhost", "two@localhost"))
    assert sorted(inspect.stats()) == ["one@localhost", "two@localhost"]
    assert "app.add" in inspect.registered()["one@localhost"]


@case
def revoking_a_task_that_waits():
    result = application.add.apply_async((1, 1), countdown=4)
    app.control.revoke(result.id, reply=True, timeout=5)
    raises(TaskRevokedError, lambda: result.get(timeout=LIMIT))


@case
def a_message_that_expires_before_it_is_consumed():
    declare("late")
    result = application.add.apply_async((1, 1), queue="late", expires=1)
    assert depth("late") == 1
    time.sleep(2)
    assert depth("late") == 0
    raises(TimeoutError, lambda: result.get(timeout=1))


@case
def a_broadcast_reaches_both_workers():
    name = "broadcast"
    with worker("three", "-Q", "to-all", "-c", "1"), worker("four", "-Q", "to-all", "-c", "1"):
        application.remember.apply_async((name, "here"), queue="to-all", ignore_result=True)
        eventually(lambda: len(application.marks(name)) == 2)


@case
def events_of_a_task():
    seen = collections.defaultdict(set)

    def notice(event):
        seen[event.get("uuid", event.get("hostname"))].add(event["type"])

    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": notice})
        thread = threading.Thread(target=receive, args=[receiver], daemon=True)
        thread.start()
        time.sleep(1)
        result = application.add.delay(1, 1)
        expected = {"task-sent", "task-received", "task-started", "task-succeeded"}
        eventually(lambda: expected <= seen[result.id])
        eventually(lambda: "worker-heartbeat" in seen["one@localhost"] and "worker-heartbeat" in seen["two@localhost"])
        receiver.should_stop = True
        thread.join(10)


def receive(receiver):
    with contextlib.suppress(TimeoutError, OSError):
        receiver.capture(limit=None, timeout=LIMIT)


@case
def shutting_down_a_worker_by_message():
    last = Worker("last", "-Q", "late")
    try:
        last.wait_until_ready()
        app.control.shutdown(destination=["last@localhost"])
        assert last.ended_within(LIMIT)
    finally:
        last.kill()


# Workers of their own


@case
def a_killed_worker_leaves_its_task_to_another():
    name = "killed"
    with worker("victim", "-Q", "acks-late", "-c", "1") as victim:
        result = application.outlives_its_worker.apply_async((name,), queue="acks-late")
        eventually(lambda: len(application.marks(name)) == 1)
        victim.kill()
    with worker("heir", "-Q", "acks-late", "-c", "1"):
        assert result.get(timeout=LIMIT) is True


@case
def a_killed_child_gives_its_task_back():
    name = "child"
    with worker("parent", "-Q", "child-lost", "-c", "1"):
        result = application.outlives_its_worker.apply_async((name,), queue="child-lost")
        eventually(lambda: len(application.marks(name)) == 1)
        os.kill(int(application.marks(name)[0]), 9)
        assert result.get(timeout=LIMIT) is True


@case
def a_warm_shutdown_finishes_what_runs():
    with worker("leaving", "-Q", "warm", "-c", "1") as leaving:
        running = application.sleeps.apply_async(("warm", 3), queue="warm")
        waiting = application.add.apply_async((1, 1), queue="warm")
        eventually(lambda: application.marks("warm"))
        assert leaving.stop()
        assert running.get(timeout=LIMIT) == 3
    assert depth("warm") >= 1
    with worker("next", "-Q", "warm", "-c", "1"):
        assert waiting.get(timeout=LIMIT) == 2


@case
def priorities_are_served_highest_first():
    declare("priorities")
    name = "priorities"
    for priority in [3, 0, 9, 5, 1, 7, 9, 0, 5]:
        application.remember.apply_async((name, priority), queue="priorities", priority=priority, ignore_result=True)
    with worker("ordered", "-Q", "priorities", "-c", "1", "-P", "solo"):
        eventually(lambda: len(application.marks(name)) == 9)
    assert application.marks(name) == ["9", "9", "7", "5", "5", "3", "1", "0", "0"], application.marks(name)


@case
def chords():
    chord_of("whole")


@case
def a_chord_with_a_part_that_fails():
    chord_of("failing")


@case
def a_chord_with_a_part_that_is_retried():
    chord_of("retried")


def chord_of(kind):
    """Chords need results that can be counted: files here, since Celery has none over rpc://."""
    results = {"RESULTS": f"file://{DIRECTORY / 'results'}"}
    with worker(f"chords-{kind}", "-Q", "work", "-c", "2", **results):
        call("chords.py", kind, **results)


@case
def quorum_queues_with_delays_kept_by_the_broker():
    environment = {"QUEUE_TYPE": "quorum"}
    forget("work")
    with worker("quorum", "-Q", "work", "-c", "2", **environment):
        call("quorum.py", **environment)


def run(function, outcomes):
    began = time.monotonic()
    try:
        function()
        outcome = "passed"
    except Exception:
        outcome = "failed"
        traceback.print_exc()
    print(f"{outcome} {function.__name__} {time.monotonic() - began:.1f} s", flush=True)
    outcomes.write(f"{outcome}\t{function.__name__}\n")


def main():
    shared = CASES.index(a_killed_worker_leaves_its_task_to_another)
    with open(os.environ["SUITE_OUTCOMES"], "a", buffering=1) as outcomes:
        one, two = Worker("one", "-Q", "work", "-c", "2"), Worker("two", "-Q", "work", "-c", "2")
        try:
            one.wait_until_ready()
            two.wait_until_ready()
            for function in CASES[:shared]:
                run(function, outcomes)
        finally:
            one.kill()
            two.kill()
        for function in CASES[shared:]:
            run(function, outcomes)


if __name__ == "__main__":
    main()
