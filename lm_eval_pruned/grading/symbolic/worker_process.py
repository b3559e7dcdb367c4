"""Child-process side of the sympy worker: the sandbox limits, and the loop that reads pairs and writes decisions."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from typing import IO

from lm_eval_pruned.grading.limits import MAX_WORKER_BYTES, PARENT_CHECK_INTERVAL, WORKER_CPU_GRACE

# Audit events that sympy never causes, and code in an answer would.
_FORBIDDEN_EVENTS = (
    "socket. subprocess. shutil. pty. os.system os.exec os.fork os.posix_spawn os.spawn os.remove os.rename os.rmdir "
    "os.mkdir os.kill os.link os.symlink os.truncate"
)
_FORBIDDEN = tuple(_FORBIDDEN_EVENTS.split())


def serve(parent: int) -> None:
    """Decide pairs until stdin ends."""
    pairs, replies = _private_pipes()
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    from lm_eval_pruned.grading.symbolic.compare import decide

    # Warm up: the first use fills the tables of the parser and of sympy.
    decide(r"\frac{x+1}{\sqrt{2}}\sin^2 x", r"\frac{\sqrt{2}(1+x)}{2}(1-\cos^{2}(x))")
    _enter_sandbox()
    _write(replies, {"ready": True})
    for line in pairs:
        pair = json.loads(line)
        _limit_cpu_seconds(pair["seconds"])
        decision = decide(pair["left"], pair["right"])
        _write(replies, {"equal": decision.equal, "reason": decision.reason})


def _private_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Move the pipes away from stdin and stdout, which libraries may read from and print to."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return pipes


def _write(pipe: IO[bytes], reply: dict[str, object]) -> None:
    pipe.write(json.dumps(reply).encode() + b"\n")


def _exit_with_parent(parent: int) -> None:
    """Exit soon after the parent ends: during a computation the process does not notice that stdin has ended."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_INTERVAL)
    os._exit(1)


def _enter_sandbox() -> None:
    """Limit memory, and forbid writing files and starting processes; this cannot be undone."""
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)
    if sys.platform != "win32":
        import resource

        for limit, value in (
            (resource.RLIMIT_AS, MAX_WORKER_BYTES),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            # Some systems have a limit that cannot be set.
            with suppress(ValueError, OSError):
                resource.setrlimit(limit, (value, value))


def _limit_cpu_seconds(seconds: float) -> None:
    """Have the kernel end this process if the parent is stopped or too busy to do so."""
    if sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(used.ru_utime + used.ru_stime + seconds) + WORKER_CPU_GRACE
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith(_FORBIDDEN):
        raise PermissionError(event)
