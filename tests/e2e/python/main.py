"""Runs the cases of cases.txt through pika, one line a case.

`E2E_URL=amqp://… python3 main.py [CASE …]` prints `ok NAME` or `FAIL NAME: why` and exits 1 if any failed. A case that needs a
restart prints `restart term` or `restart kill` and waits for the line `restarted` on standard input.
"""

import os
import sys

from cases import CASES, Session


def restart(how):
    """Asks whoever runs us to restart the broker, and waits until it serves again."""
    print(f"restart {how}", flush=True)
    answer = sys.stdin.readline().strip()
    if answer != "restarted":
        raise AssertionError(f"nobody restarted the broker: {answer!r}")


def main():
    """Runs the named cases, or all."""
    url = os.environ["E2E_URL"]
    names = sys.argv[1:] or list(CASES)
    failed = False
    for name in names:
        session = Session(url, restart)
        try:
            CASES[name](session)
            print(f"ok {name}", flush=True)
        except Exception as error:  # Whatever went wrong is this case's failure, and the next one still runs.
            failed = True
            why = " ".join(f"{type(error).__name__}: {error!r}".split())
            print(f"FAIL {name}: {why}", flush=True)
        finally:
            session.close()
    sys.exit(1 if failed else 0)


main()
