"""Worker processes of the application, each a process group of its own."""
import contextlib
import os
import signal
import subprocess
import sys
import time

START_LIMIT = 60
STOP_LIMIT = 30


class Worker:
    def __init__(self, name, *arguments, **environment):
        self.name = f"{name}@localhost"
        self.log = open(os.path.join(os.environ["MARKS"], f"worker-{name}.log"), "ab")
        command = [sys.executable, "-m", "celery", "-A", "app", "worker", "--hostname", self.name, "--loglevel", "INFO", *arguments]
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, start_new_session=True)

    def wait_until_ready(self):
        give_up = time.monotonic() + START_LIMIT
        while b" ready." not in open(self.log.name, "rb").read():
            if time.monotonic() > give_up or self.process.poll() is not None:
                raise AssertionError(f"{self.name} did not start: {self.last_words()}")
            time.sleep(0.1)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """A warm shutdown; True when it came to its end by itself."""
        self.process.terminate()
        return self.ended_within(STOP_LIMIT)

    def ended_within(self, seconds):
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def last_words(self):
        return open(self.log.name, "rb").read()[-2000:].decode(errors="replace")


@contextlib.contextmanager
def worker(name, *arguments, **environment):
    started = Worker(name, *arguments, **environment)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.kill()
