"""Calls chords (chords.py KIND): groups whose results together are the argument of one more task."""
import sys

from app import add, fails, succeeds_at_the_third_try, total
from celery import chain, chord, group
from celery.exceptions import ChordError

LIMIT = 30


def whole():
    assert chord(add.s(number, number) for number in range(20))(total.s()).get(timeout=LIMIT) == 380
    nested = chord([group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)])(total.s())
    assert nested.get(timeout=LIMIT) == 12
    upgraded = chain(group(add.s(1, 1), add.s(2, 2)), total.s(), add.s(1))()
    assert upgraded.get(timeout=LIMIT) == 7


def failing():
    result = chord([add.s(1, 1), fails.s()])(total.s())
    try:
        result.get(timeout=LIMIT)
    except (ChordError, ValueError):
        return
    raise AssertionError("the chord succeeded")


def retried():
    assert chord([add.s(1, 1), succeeds_at_the_third_try.si()])(total.s()).get(timeout=LIMIT) == 4


{"whole": whole, "failing": failing, "retried": retried}[sys.argv[1]]()
