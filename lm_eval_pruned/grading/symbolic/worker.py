"""Sympy worker: a process that compares pairs of answers; at the deadline of a pair it is killed and replaced.

It is started by `subprocess`, not by `multiprocessing`: nothing is forked, the caller's `__main__` is not imported
again, and no signal is used in the caller. A pair and the reply to it are one line of JSON each.
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
from contextlib import suppress
from functools import cache
from multiprocessing.connection import wait
from typing import IO, Literal, NamedTuple, cast

from lm_eval_pruned.grading.limits import (
    MAX_PAIRS_PER_WORKER,
    MAX_SYMPY_CHARACTERS,
    SHORTEST_DEADLINE,
    WORKER_DEADLINE,
    WORKER_PATIENCE,
    WORKER_START_DEADLINE,
)

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

    The start of a worker and the pair take `patience` seconds at most. It may be called from any thread, and threads
    take turns; from asyncio, as `await asyncio.to_thread(ask, left, right)`. The order of the texts does not matter.

    Example:
        >>> ask(r"\sin^2 x + \cos^2 x", "1", patience=60).equal
        True
    """
    left, right = sorted((left, right))
    if not left.strip() or not right.strip():
        return Outcome(None, "unparsed", "empty")
    if max(len(left), len(right)) > MAX_SYMPY_CHARACTERS:
        return Outcome(None, "unparsed", f"longer than {MAX_SYMPY_CHARACTERS} characters")
    with _turn:
        try:
            return _ask_in_turn(left, right, deadline, patience)
        except OSError as error:
            return Outcome(None, "timeout", f"no worker could be started: {type(error).__name__}")
        except EOFError:
            return Outcome(None, "timeout", "the worker was killed or needed too much memory")
        finally:
            # A new one starts before the next pair needs it.
            with suppress(OSError):
                _running_worker()


@cache
def start() -> None:
    """Start a worker once, so that the first pair does not wait for it."""
    with _turn, suppress(OSError):
        _running_worker()


def close() -> None:
    """End the worker of this process; the next pair starts a new one."""
    for worker in _workers:
        # A thread that waits for its reply gives up its turn.
        worker.process.kill()
    with _turn:
        _end_workers()


def _ask_in_turn(left: str, right: str, deadline: float, patience: float) -> Outcome:
    began = time.monotonic()
    worker = _running_worker()
    try:
        worker.await_start(patience)
    except TimeoutError:
        return Outcome(None, "timeout", f"the worker did not start in {patience:g} s")
    deadline = min(deadline, max(patience - (time.monotonic() - began), SHORTEST_DEADLINE))
    try:
        reply = worker.exchange({"left": left, "right": right, "seconds": deadline}, deadline)
    except TimeoutError:
        return Outcome(None, "timeout", f"not decided in {deadline:g} s")
    equal = reply["equal"] if isinstance(reply["equal"], bool) else None
    return Outcome(equal, "unparsed" if equal is None else "ok", str(reply["reason"]))


class _Worker:
    """One worker process; `await_start` must be called before each pair."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.has_started = False
        self.pairs = 0
        # Set while a reply is due: after an interruption (Ctrl-C included), the next pair must not get that reply.
        self.is_busy = False
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
        self.requests, self.replies = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100
        self._send({"path": path, "parent": os.getpid()})

    @property
    def is_usable(self) -> bool:
        """Whether the worker can take another pair."""
        is_late = not self.has_started and time.monotonic() - self.began > WORKER_START_DEADLINE
        is_spent = self.is_busy or self.pairs >= MAX_PAIRS_PER_WORKER
        return not is_late and not is_spent and self.process.poll() is None

    def await_start(self, seconds: float) -> None:
        """Wait until the worker has started; raise TimeoutError if it needs more time."""
        if not self.has_started:
            self._receive(seconds)
            self.has_started = True

    def exchange(self, pair: dict[str, object], seconds: float) -> dict[str, object]:
        """Send a pair and return the reply; raise TimeoutError if there is none in time."""
        self.pairs += 1
        self.is_busy = True
        self._send(pair)
        reply = self._receive(seconds)
        self.is_busy = False
        return reply

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self.process.kill()
        self.process.wait()
        self._close_pipes()

    def leave(self) -> None:
        """Forget the worker of our parent in a forked process, where its pipes would stay open."""
        self._close_pipes()
        # It is not a child of ours: there is nothing to wait for or to warn about.
        self.process.returncode = 0

    def _send(self, message: dict[str, object]) -> None:
        # Messages fit into the buffer of the pipe. That the worker has ended is seen when the reply is read.
        with suppress(BrokenPipeError):
            self.requests.write(json.dumps(message).encode() + b"\n")

    def _receive(self, seconds: float) -> dict[str, object]:
        # A reply is one line, written at once.
        if not wait([self.replies.fileno()], seconds):
            raise TimeoutError
        line = self.replies.readline()
        if not line:
            # It was killed, by us or by somebody else.
            self.end()
            raise EOFError
        reply: dict[str, object] = json.loads(line)
        return reply

    def _close_pipes(self) -> None:
        self.requests.close()
        self.replies.close()


# The worker, or none; one thread at a time uses it.
_workers: list[_Worker] = []
_turn = threading.Lock()


def _running_worker() -> _Worker:
    """Return the worker, a new one if it has ended."""
    if not _workers or not _workers[0].is_usable:
        _end_workers()
        _workers.append(_Worker())
    return _workers[0]


def _end_workers() -> None:
    while _workers:
        _workers.pop().end()


def _leave_worker_to_parent() -> None:
    global _turn  # noqa: PLW0603
    _turn = threading.Lock()
    while _workers:
        _workers.pop().leave()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_worker_to_parent)
