"""The grader math-verify in a process of its own, which is replaced if it hangs or dies."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from lm_eval_pruned.errors import MissingPackageError

INSTALL = "pip install 'math-verify[antlr4_13_2]'"
# Importing sympy on a loaded machine, and one row; math-verify's own limit is 5 seconds for each of its two steps.
START_SECONDS = 120.0
ROW_SECONDS = 15.0

_SCRIPT = Path(__file__).with_name("math_verify_process.py")


class PeerVerdict(NamedTuple):
    """math-verify's verdict: its status is "ok", "no_answer", "timeout", or "failed: " with the exception."""

    correct: bool
    status: str
    extracted: str | None = None
    milliseconds: float = 0.0


class MathVerify:
    """math-verify, to be used in a `with` statement.

    Args:
        python: an interpreter that has math-verify; by default the running one.
        seconds: that one row may take; None is ROW_SECONDS.

    Raises:
        MissingPackageError: math-verify cannot be imported.
    """

    def __init__(self, python: str | Path = sys.executable, seconds: float | None = None) -> None:
        self._python = python
        self._seconds = ROW_SECONDS if seconds is None else seconds
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def judge(self, golds: Sequence[str], text: str, kind: str = "math", *, is_response: bool) -> PeerVerdict:
        """Judge a response, or an answer that is already extracted; a row that exceeds the limit is a timeout."""
        request = {"golds": list(golds), "text": text, "kind": kind, "is_response": is_response}
        begin = time.perf_counter()
        reply = self._ask(json.dumps(request).encode() + b"\n", self._seconds)
        if reply is None:
            self._stop()
            self._start()
            return PeerVerdict(correct=False, status="timeout", milliseconds=1000 * (time.perf_counter() - begin))
        return PeerVerdict(*json.loads(reply))

    def _start(self) -> None:
        # -P: the folder of the script must not hide packages of the same name.
        command, pipe = [self._python, "-P", str(_SCRIPT)], subprocess.PIPE
        # A file, since nobody reads a pipe while the process runs, and a full one would block it.
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors)
            first = self._ask(b"", START_SECONDS)
            if first is None:
                self._stop()
                errors.seek(0)
                cause = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise MissingPackageError(f"--audit math-verify does not start ({cause or 'no reply'}): {INSTALL}")
        self.version = str(json.loads(first))

    def _ask(self, request: bytes, seconds: float) -> bytes | None:
        """Write a request and return the line that answers it, or None if none comes in time."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        deadline, reply = time.monotonic() + seconds, b""
        while not reply.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            part = os.read(self._process.stdout.fileno(), 2**16)
            if not part:
                return None
            reply += part
        return reply

    def _stop(self) -> None:
        self._process.kill()
        self._process.communicate()
