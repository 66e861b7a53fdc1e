"""Calls the application whose queues are quorum queues: Celery keeps its delays in queues with TTL and dead letters then."""
import time

import app as application

LIMIT = 20

assert application.add.delay(2, 2).get(timeout=LIMIT) == 4
sent = time.time()
ran = application.time_of_run.apply_async(countdown=3).get(timeout=LIMIT)
assert 1.9 <= ran - sent <= 15, ran - sent
