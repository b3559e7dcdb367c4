"""Start sweeps as processes, and find their descendants by a variable in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lm_eval_pruned.reasoning.response_store import FILE
from tests.models.evaluation import stored

MARK = "SWEEP_OF_A_TEST"
DEADLINE = 300
# Time within which descendants notice that their parent is gone.
SECONDS_TO_NOTICE = 30


def start(config, output, *arguments, **variables) -> subprocess.Popen[str]:
    """Start a sweep in its own session, with stderr redirected to stdout."""
    # Tests that run in the background may ignore SIGINT, which their children would inherit.
    python = ("env", "--default-signal=INT", sys.executable)
    return subprocess.Popen(
        [*python, "-m", "lm_eval_pruned", "sweep", str(config), "--output", str(output), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=DEADLINE)
    return process.returncode, output


def responses(output: Path) -> int:
    """Count the responses that the cells of a sweep have stored."""
    return sum(stored(path) for path in output.glob(f"cells/*/responses/{FILE}"))


def wait_for_responses(process: subprocess.Popen[str], output: Path, least: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while responses(output) < least:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes(mark: str) -> list[str]:
    """Return the command lines of the processes whose environment has this mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def left_behind(mark: str) -> list[str]:
    """Return the processes with this mark that still run after SECONDS_TO_NOTICE."""
    deadline = time.monotonic() + SECONDS_TO_NOTICE
    while (found := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
