"""A pytest plugin: leaves out the tests that SUITE_LEFT_OUT names and writes one line a test, `outcome<TAB>name`, to SUITE_OUTCOMES."""
import os

LEFT_OUT = set(filter(None, os.environ.get("SUITE_LEFT_OUT", "").split("\n")))
OUTCOMES = open(os.environ["SUITE_OUTCOMES"], "a", buffering=1)
STATES = {}


def is_left_out(name):
    exact = name.split("[")[0]
    return any(exact.startswith(left[:-1]) if left.endswith("*") else left in (name, exact) for left in LEFT_OUT)


def pytest_configure(config):
    for marker in ("env(name)", "flaky", "timeout", "asyncio", "slow", "catch_loop_exceptions"):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config, items):
    dropped = [item for item in items if is_left_out(item.nodeid)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not is_left_out(item.nodeid)]


def pytest_collectreport(report):
    if report.failed:
        OUTCOMES.write(f"failed\t{report.nodeid} (cannot be loaded)\n")


def pytest_runtest_logreport(report):
    state = STATES.setdefault(report.nodeid, "passed")
    if report.outcome == "rerun":
        STATES[report.nodeid] = "passed"
        return
    if report.outcome == "failed":
        STATES[report.nodeid] = "failed"
    elif report.outcome == "skipped" and state == "passed":
        STATES[report.nodeid] = "skipped"
    if report.when == "teardown":
        OUTCOMES.write(f"{STATES[report.nodeid]}\t{report.nodeid}\n")
