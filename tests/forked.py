"""Commands in processes forked from one that has done their imports, which take a fresh interpreter ten seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tests import harness_tasks

DEADLINE = 300

_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["lm_eval_pruned.sweeps.imports", __name__])


class Done(NamedTuple):
    """A finished command."""

    returncode: int
    stdout: str
    stderr: str


def start(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start `lm_eval` or `lm-eval-pruned` with arguments, writing to `log`.out and `log`.err."""
    process = _PROCESSES.Process(target=_execute, args=(list(command), log, dict(environment or {})))
    process.start()
    return process


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Done:
    """Run a command as `start` does, to its end."""
    process = start(command, log, environment)
    process.join(DEADLINE)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode is not None
    return Done(process.exitcode, *(log.with_suffix(suffix).read_text() for suffix in (".out", ".err")))


def _execute(command: list[str], log: Path, environment: Mapping[str, str]) -> None:
    from lm_eval.__main__ import cli_evaluate

    from lm_eval_pruned.cli import main

    harness_tasks.read_once()
    os.environ.update(environment)
    with ExitStack() as stack:
        for suffix, stream in ((".out", sys.stdout), (".err", sys.stderr)):
            file = stack.enter_context(log.with_suffix(suffix).open("wb"))
            os.dup2(file.fileno(), stream.fileno())
    program, *arguments = command
    sys.argv = [program, *arguments]
    if program == "lm_eval":
        cli_evaluate()
    else:
        sys.exit(main(arguments))
