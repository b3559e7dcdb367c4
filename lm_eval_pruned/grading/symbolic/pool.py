"""A few processes, kept warm and killed at a deadline, decide what only sympy can decide.

They are started by `subprocess`, not by `multiprocessing`: nothing is forked, the user's `__main__` is not imported
again, and no signal is used in the caller. A pair and its decision are one line of JSON each.
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
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from lm_eval_pruned.grading.limits import (
    MAX_PAIRS_PER_WORKER,
    MAX_SYMPY_CHARACTERS,
    MAX_WORKER_BYTES,
    MAX_WORKERS,
    SPARE_WORKER_AFTER,
    WORKER_DEADLINE,
    WORKER_START_DEADLINE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# The first line on stdin is the caller's sys.path, so that the worker finds the very packages that the caller has.
_START = (
    "import json, sys; hello = json.loads(sys.stdin.buffer.readline()); sys.path[:] = hello['path']; "
    "from lm_eval_pruned.grading.symbolic import worker_process; worker_process.serve(hello['parent'])"
)


class Answer(NamedTuple):
    """What a worker found; `equal` is None unless it could decide. "timeout" stands for a limit of memory, too."""

    equal: bool | None
    status: Literal["ok", "timeout", "unparsed"]
    reason: str


def ask(left: str, right: str, *, deadline: float = WORKER_DEADLINE) -> Answer:
    r"""Compare two LaTeX expressions by sympy, in another process, within `deadline` seconds; never raises.

    Waiting for a free worker and starting one do not count as time of the pair. May be called from any thread; from
    asyncio, as `await asyncio.to_thread(ask, left, right)`. The order of the two texts never matters.

    Example:
        >>> ask(r"\sin^2 x + \cos^2 x", "1").equal
        True
    """
    left, right = sorted((left, right))
    if not left.strip() or not right.strip():
        return Answer(None, "unparsed", "empty")
    if max(len(left), len(right)) > MAX_SYMPY_CHARACTERS:
        return Answer(None, "unparsed", f"longer than {MAX_SYMPY_CHARACTERS} characters")
    return _pool.ask(left, right, deadline)


def close() -> None:
    """End all workers of this process; the next question starts new ones."""
    _pool.close()


class _WorkerEndedError(Exception):
    """The worker closed its pipe: it was killed, by us or by somebody else."""


class _Worker:
    """One process; used by one thread at a time. It starts on its own and is waited for before its first pair."""

    def __init__(self) -> None:
        self.tasks = 0
        self.ready = self.ended = False
        kept = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON" or name == "PYTHONHOME"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=tempfile.gettempdir(),
            # The order in which sympy treats symbols, and so the time it takes, depends on hashes.
            env=kept | {"PYTHONHASHSEED": "0"},
            # Ctrl-C in a terminal is for the caller.
            start_new_session=True,
        )
        path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100
        with suppress(_WorkerEndedError):
            self._send({"path": path, "parent": os.getpid()})

    def wait(self) -> None:
        """Wait until the worker can take a pair; raise _WorkerEndedError if it cannot."""
        if not self.ready:
            with self._deadline(WORKER_START_DEADLINE):
                self._receive()
            self.ready = True

    def exchange(self, question: dict[str, object], deadline: float) -> dict[str, object]:
        """Send a question and return the reply; at the deadline kill the worker and raise _WorkerEndedError."""
        self.tasks += 1
        with self._deadline(deadline):
            self._send(question)
            return self._receive()

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        # Ctrl-C as well: the next question must not read this one's answer.
        except BaseException:
            self.ended = True
            raise
        finally:
            timer.cancel()
            # A timer that has fired may be about to kill; afterwards the worker is dead or out of danger.
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
        """Whether another pair can be given to it."""
        return not self.ended and self.tasks < MAX_PAIRS_PER_WORKER and self.process.poll() is None

    def end(self) -> None:
        """Kill the process and collect it."""
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close our ends of the pipes: a process that only inherited them must not keep the worker alive."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self.process.returncode is None:
            # In a forked child it is no child of ours: nothing to wait for, nothing to warn of.
            self.process.returncode = 0


class _Pool:
    """The workers of one process, at most `size` of them, started when needed."""

    def __init__(self, size: int) -> None:
        self.free = threading.BoundedSemaphore(size)
        self.idle: list[_Worker] = []
        self.workers: set[_Worker] = set()

    def ask(self, left: str, right: str, deadline: float) -> Answer:
        with self.free:
            try:
                worker = self._take()
            except (_WorkerEndedError, OSError) as error:
                return Answer(None, "timeout", f"no worker could be started: {type(error).__name__}")
            spare = threading.Timer(SPARE_WORKER_AFTER, self._provide)
            spare.daemon = True
            spare.start()
            try:
                return _answer(worker, left, right, deadline)
            finally:
                spare.cancel()
                self._give_back(worker)

    def _take(self) -> _Worker:
        worker = self._idle_one() or self._start()
        try:
            worker.wait()
        except BaseException:
            self._end(worker)
            raise
        return worker

    def _idle_one(self) -> _Worker | None:
        # Two threads may see the last one.
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
            self._provide()

    def _provide(self) -> None:
        """Start a worker for the next pair beside what the caller does; if it cannot start, that pair says so."""
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
        # A busy one is collected by the thread that waits for it.
        for worker in list(self.workers):
            worker.process.kill()


def _answer(worker: _Worker, left: str, right: str, deadline: float) -> Answer:
    began = time.monotonic()
    try:
        reply = worker.exchange({"left": left, "right": right, "seconds": deadline}, deadline)
    except _WorkerEndedError:
        late = time.monotonic() - began >= deadline
        return Answer(None, "timeout", f"not decided in {deadline:g} s" if late else "the worker was killed")
    if reply.get("exhausted"):
        worker.ended = True
        return Answer(None, "timeout", f"not decided in {MAX_WORKER_BYTES // 1024**2} MiB")
    equal = reply["equal"] if isinstance(reply["equal"], bool) else None
    return Answer(equal, "unparsed" if equal is None else "ok", str(reply["reason"]))


def _new_pool() -> _Pool:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _Pool(min(MAX_WORKERS, cores))


def _forget_workers_of_parent() -> None:
    global _pool  # noqa: PLW0603
    for worker in _pool.workers:
        worker.forget()
    _pool = _new_pool()


_pool = _new_pool()
atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers_of_parent)
