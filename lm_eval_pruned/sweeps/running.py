"""Running a cell: a process of its own, in a folder of its own, which is done when its last file says so."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple, TypeAlias

from filelock import FileLock
from tqdm import tqdm

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.output import write_text
from lm_eval_pruned.sweeps.cell import Cell

RESULTS, PARTIAL, RESPONSES = "results", "partial", "responses"
DONE_FILE, CELL_FILE, LOG_FILE, LOCK_FILE, RUNNING_FILE = "done.json", "cell.json", "log.txt", ".lock", "running"

# A process that a signal ended, as the kernel does where memory runs out, is started so many times more.
RETRIES = 2
SECONDS_A_LOOK = 0.2
# Of a log, so much is searched for what went wrong.
TAIL_BYTES = 20_000
MAX_ERROR_CHARACTERS = 300

# Takes the command line of the harness.
Harness: TypeAlias = Callable[[Sequence[str]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A cell to be run in `folder`; `start` is the sweep that wants it, `memory` what it needs in bytes."""

    cell: Cell
    folder: Path
    start: str
    memory: int
    environment: Mapping[str, str]


class Outcome(NamedTuple):
    """How a cell ended; `error` is empty where it is done."""

    cell: str
    seconds: float
    error: str


def cell_folder(output: Path, cell: Cell) -> Path:
    """Return the folder of a cell in that of its sweep."""
    return output / "cells" / cell.id


def is_done(folder: Path, cell: Cell) -> bool:
    """Tell whether a cell has its results, all of them, and they are its own."""
    try:
        done = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
        sizes = {str(name): int(size) for name, size in done["files"].items()}
        return bool(sizes) and done["cell"] == cell.id and sizes == _sizes(folder / RESULTS)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return False


def is_running(job: Job) -> bool:
    """Tell whether a process of this sweep has begun with the cell."""
    try:
        return (job.folder / RUNNING_FILE).read_text() == job.start
    except OSError:
        return False


def supervise(job: Job, harness: Harness) -> Generator[Outcome | None]:
    """Run a cell in a process of its own; yield None while it runs and then its outcome.

    Closing the iterator ends the process.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # CUDA does not survive a fork; where there is no GPU, a fork of one process saves all others the imports.
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["lm_eval_pruned.sweeps.imports"])
    new_process = multiprocessing.get_context("spawn").Process if job.cell.resources.gpus else forks.Process
    code = None
    for _ in range(1 + RETRIES):
        process = new_process(target=run_cell, args=(job, harness), name=job.cell.id)
        process.start()
        try:
            while process.is_alive():
                process.join(SECONDS_A_LOOK)
                yield None
        finally:
            process.kill()
            process.join()
        code = process.exitcode
        if code is not None and code >= 0:
            break
    seconds = time.monotonic() - began
    if is_done(job.folder, job.cell):
        yield Outcome(job.cell.id, seconds, "")
    else:
        died = f"ended by signal {-code}, {1 + RETRIES} times" if code and code < 0 else f"ended with exit code {code}"
        yield Outcome(job.cell.id, seconds, last_error(job.folder / LOG_FILE) if code and code > 0 else died)


def run_cell(job: Job, harness: Harness) -> None:
    """Run a cell in this process, unless another process has done so by the time its lock is free."""
    # Ctrl-C reaches every process of a terminal; the sweep answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock is a semaphore of the machine, and one that a killed process leaves behind is complained of.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(job.environment)
    with FileLock(job.folder / LOCK_FILE):
        if is_done(job.folder, job.cell):
            return
        log = os.open(job.folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        running = job.folder / RUNNING_FILE
        write_text(running, job.start)
        try:
            _run(job, harness)
        finally:
            running.unlink()


def _run(job: Job, harness: Harness) -> None:
    folder = job.folder
    write_text(folder / CELL_FILE, json.dumps({"label": job.cell.label, **job.cell.deciding()}, indent=2) + "\n")
    (folder / DONE_FILE).unlink(missing_ok=True)
    for name in (PARTIAL, RESULTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / PARTIAL).mkdir()
    # Under this name nobody who looks for results finds them before they are whole.
    began = time.monotonic()
    harness(job.cell.arguments(responses=folder / RESPONSES, output=folder / PARTIAL / "run.json"))
    seconds = time.monotonic() - began
    found = list((folder / PARTIAL).glob("run_*.json"))
    if len(found) != 1:
        raise DataError(f"the harness wrote {len(found)} results files")
    found[0].rename(found[0].with_name(found[0].name.replace("run_", "results_", 1)))
    (folder / PARTIAL).rename(folder / RESULTS)
    content = {"cell": job.cell.id, "seconds": round(seconds, 3), "files": _sizes(folder / RESULTS)}
    write_text(folder / DONE_FILE, json.dumps(content, indent=2) + "\n")


def last_error(log: Path) -> str:
    """Return the last line of a log that speaks of an error, or else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return "it left no log"
    said = [line for line in lines if line]
    errors = [line for line in said if "error" in line.lower()]
    return ([*said, *errors] or ["its log is empty"])[-1][:MAX_ERROR_CHARACTERS]


def _end_with_parent() -> None:
    """End when the process that started this one has died: it could not stop a cell any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
