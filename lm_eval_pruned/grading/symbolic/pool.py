"""Pool of sympy worker processes; each pair has a deadline, at which its worker is killed and replaced.

Workers are started by `subprocess`, not by `multiprocessing`: nothing is forked, the caller's `__main__` is not
imported again, and no signal is used in the caller. A pair and the reply to it are one line of JSON each.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from lm_eval_pruned.grading.limits import (
    MAX_PAIRS_PER_WORKER,
    MAX_SYMPY_CHARACTERS,
    MAX_WORKER_BYTES,
    MAX_WORKERS,
    SHORTEST_DEADLINE,
    WORKER_DEADLINE,
    WORKER_PATIENCE,
    WORKER_START_DEADLINE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first line on stdin holds the caller's sys.path, so that the worker imports the same packages; without `site`,
# none of them is imported before.
_WORKER_PROGRAM = (
    "import json, sys; hello = json.loads(sys.stdin.buffer.readline()); sys.path[:] = hello['path']; "
    "from lm_eval_pruned.grading.symbolic import worker_process; worker_process.serve(hello['parent'])"
)


class Outcome(NamedTuple):
    """What a worker decided; `equal` is None if it could not decide. "timeout" also stands for the memory limit."""

    equal: bool | None
    status: Literal["ok", "timeout", "unparsed"]
    reason: str


def ask(left: str, right: str, *, deadline: float = WORKER_DEADLINE, patience: float = WORKER_PATIENCE) -> Outcome:
    r"""Compare two LaTeX expressions with sympy in another process, within `deadline` seconds; never raises.

    The start of a worker and the pair take `patience` seconds at most; waiting for a free worker does not count. It may
    be called from any thread; from asyncio, as `await asyncio.to_thread(ask, left, right)`. The order of the two texts
    does not matter.

    Example:
        >>> ask(r"\sin^2 x + \cos^2 x", "1", patience=60).equal
        True
    """
    left, right = sorted((left, right))
    if not left.strip() or not right.strip():
        return Outcome(None, "unparsed", "empty")
    if max(len(left), len(right)) > MAX_SYMPY_CHARACTERS:
        return Outcome(None, "unparsed", f"longer than {MAX_SYMPY_CHARACTERS} characters")
    return _pool.decide(left, right, deadline, patience)


@cache
def start() -> None:
    """Start a worker in the background, once, so that the first pair does not wait for it."""
    threading.Thread(target=_pool.start_spare, daemon=True).start()


def close() -> None:
    """End all workers of this process; the next pair starts new ones."""
    _pool.close()


class _WorkerEndedError(Exception):
    """The worker closed its pipe because it was killed, by us or by somebody else."""


class _Worker:
    """One worker process, used by one thread at a time; `wait` must be called before its first pair."""

    def __init__(self) -> None:
        self.pairs = 0
        self.ended = False
        self.started = threading.Event()
        environment = {name: text for name, text in os.environ.items() if name[:6] != "PYTHON" or name == "PYTHONHOME"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-S", "-c", _WORKER_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=tempfile.gettempdir(),
            # The order in which sympy treats symbols, and with it the time it takes, depends on hashes.
            env=environment | {"PYTHONHASHSEED": "0"},
            # Ctrl-C in a terminal is meant for the caller only.
            start_new_session=True,
        )
        path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100
        with suppress(_WorkerEndedError):
            self._send({"path": path, "parent": os.getpid()})
        threading.Thread(target=self._await_start, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until the worker has started, and tell whether it has; raise _WorkerEndedError if it never will."""
        started = self.started.wait(seconds)
        if self.ended:
            raise _WorkerEndedError
        return started

    def _await_start(self) -> None:
        try:
            with self._deadline(WORKER_START_DEADLINE):
                self._receive()
        except _WorkerEndedError:
            pass
        finally:
            self.started.set()

    def exchange(self, pair: dict[str, object], deadline: float) -> dict[str, object]:
        """Send a pair and return the reply; at the deadline, kill the worker and raise _WorkerEndedError."""
        self.pairs += 1
        with self._deadline(deadline):
            self._send(pair)
            return self._receive()

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        # Ctrl-C included: the next pair must not get the reply to this one.
        except BaseException:
            self.ended = True
            raise
        finally:
            timer.cancel()
            # A timer that has fired may be about to kill; once it is joined, the worker is dead or safe from it.
            timer.join()

    def _send(self, message: dict[str, object]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                line = line[self._pipe(self.process.stdin).write(line) :]
        except OSError as error:
            raise _WorkerEndedError from error

    def _receive(self) -> dict[str, object]:
        received = b""
        while not received.endswith(b"\n"):
            chunk = os.read(self._pipe(self.process.stdout).fileno(), 65536)
            if not chunk:
                raise _WorkerEndedError
            received += chunk
        reply: dict[str, object] = json.loads(received)
        return reply

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None or pipe.closed:
            raise _WorkerEndedError
        return pipe

    @property
    def usable(self) -> bool:
        """Whether the worker can take another pair."""
        return not self.ended and self.pairs < MAX_PAIRS_PER_WORKER and self.process.poll() is None

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close our ends of the pipes: in a forked process they would keep the parent's worker alive."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self.process.returncode is None:
            # In a forked process the worker is not a child of ours: there is nothing to wait for or to warn about.
            self.process.returncode = 0


class _Pool:
    """The workers of one process, at most `size` of them, started when they are needed."""

    def __init__(self, size: int) -> None:
        self.free = threading.BoundedSemaphore(size)
        self.idle: list[_Worker] = []
        self.workers: set[_Worker] = set()

    def decide(self, left: str, right: str, deadline: float, patience: float) -> Outcome:
        with self.free:
            try:
                began = time.monotonic()
                worker = self._take(patience)
            except (_WorkerEndedError, OSError) as error:
                return Outcome(None, "timeout", f"no worker could be started: {type(error).__name__}")
            if not worker.started.is_set():
                self.idle.append(worker)
                return Outcome(None, "timeout", f"the worker did not start in {patience:g} s")
            deadline = min(deadline, max(patience - (time.monotonic() - began), SHORTEST_DEADLINE))
            try:
                return _exchange_pair(worker, left, right, deadline)
            finally:
                self._give_back(worker)

    def _take(self, seconds: float) -> _Worker:
        worker = self._take_idle() or self._start()
        try:
            worker.wait(seconds)
        except BaseException:
            self._end(worker)
            raise
        return worker

    def _take_idle(self) -> _Worker | None:
        # Two threads may both see the last one.
        with suppress(IndexError):
            while True:
                worker = self.idle.pop()
                if worker.usable:
                    return worker
                self._end(worker)
        return None

    def _give_back(self, worker: _Worker) -> None:
        if worker.usable:
            self.idle.append(worker)
        else:
            self._end(worker)
            self.start_spare()

    def start_spare(self) -> None:
        """Start a worker for the next pair in advance; if it cannot start, that pair will report it."""
        if not self.idle:
            with suppress(OSError):
                self.idle.append(self._start())

    def _start(self) -> _Worker:
        worker = _Worker()
        self.workers.add(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        self.workers.discard(worker)
        worker.end()

    def close(self) -> None:
        while self.idle:
            self._end(self.idle.pop())
        # A busy one is waited for by the thread that uses it.
        for worker in list(self.workers):
            worker.process.kill()


def _exchange_pair(worker: _Worker, left: str, right: str, deadline: float) -> Outcome:
    began = time.monotonic()
    try:
        reply = worker.exchange({"left": left, "right": right, "seconds": deadline}, deadline)
    except _WorkerEndedError:
        late = time.monotonic() - began >= deadline
        return Outcome(None, "timeout", f"not decided in {deadline:g} s" if late else "the worker was killed")
    if reply.get("exhausted"):
        worker.ended = True
        return Outcome(None, "timeout", f"not decided in {MAX_WORKER_BYTES // 1024**2} MiB")
    equal = reply["equal"] if isinstance(reply["equal"], bool) else None
    return Outcome(equal, "unparsed" if equal is None else "ok", str(reply["reason"]))


def _make_pool() -> _Pool:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _Pool(min(MAX_WORKERS, cores))


def _leave_workers_to_parent() -> None:
    global _pool  # noqa: PLW0603
    for worker in _pool.workers:
        worker.forget()
    _pool = _make_pool()


_pool = _make_pool()
atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_workers_to_parent)
