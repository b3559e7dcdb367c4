"""Run each cell in its own process and folder; a file written last marks it as done."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple, TypeAlias

from filelock import FileLock
from tqdm import tqdm

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.output import write_text
from lm_eval_pruned.results.records.stopped import EARLY_STOPPING, stopped_task
from lm_eval_pruned.results.statistics.early import StoppingRule
from lm_eval_pruned.sweeps.cell import Cell
from lm_eval_pruned.sweeps.divergence import DIVERGENCE_LOG, diverge_arguments, is_diverged
from lm_eval_pruned.sweeps.early import EarlyStop

RESULTS, PARTIAL, RESPONSES = "results", "partial", "responses"
DONE_FILE, CELL_FILE, LOG_FILE, LOCK_FILE, RUNNING_FILE = "done.json", "cell.json", "log.txt", ".lock", "running"

# A process killed by a signal, for example by the kernel's out-of-memory killer, is restarted this many times.
RETRIES = 2
POLL_SECONDS = 0.2
# The end of a log that is searched for the error.
TAIL_BYTES = 20_000
MAX_ERROR_CHARACTERS = 300

# Runs the harness, or `diverge`, with the given command line.
Harness: TypeAlias = Callable[[Sequence[str]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """A cell to be run in `folder`; `start` identifies the sweep's process, `memory` is in bytes.

    With `traces`, the results of its dense cell, the cell has been run, and its divergence is measured. `stop` ends it
    when its verdict is certain; without it all questions are asked, of a cell that was stopped those that are left.
    """

    cell: Cell
    folder: Path
    start: str
    memory: int
    environment: Mapping[str, str]
    traces: Path | None = None
    stop: EarlyStop | None = None

    @property
    def label(self) -> str:
        """Readable name."""
        return self.cell.label if self.traces is None else f"divergence of {self.cell.label}"

    @property
    def log(self) -> Path:
        """The file that holds what its process prints."""
        return self.folder / (LOG_FILE if self.traces is None else DIVERGENCE_LOG)

    @property
    def is_done(self) -> bool:
        """Whether its results are complete, or those of a cell that this rule has stopped."""
        if self.traces is not None:
            return is_diverged(self.folder)
        return is_done(self.folder, self.cell, rule=self.stop.rule if self.stop else None)


class CellOutcome(NamedTuple):
    """How a cell ended; `error` is empty if it succeeded, and `stopped` unless it was stopped early."""

    cell: str
    seconds: float
    error: str
    stopped: str = ""


def cell_folder(output: Path, cell: Cell) -> Path:
    """Return the folder of a cell inside the sweep's output folder."""
    return output / "cells" / cell.id


def is_done(folder: Path, cell: Cell, *, rule: StoppingRule | None = None) -> bool:
    """Whether the folder has the complete results of this cell, or those of one that `rule` has stopped."""
    try:
        done = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
        sizes = {str(name): int(size) for name, size in done["files"].items()}
        is_asked = done.get("stopped") is None or (rule is not None and done["stopped"]["rule"] == asdict(rule))
        return bool(sizes) and is_asked and done["cell"] == cell.id and sizes == _sizes(folder / RESULTS)
    except (OSError, *MALFORMED):
        return False


def stopped_words(folder: Path) -> str:
    """Say after how many questions a cell that is done was stopped, and with which verdicts; "" if it was not."""
    stopped = json.loads((folder / DONE_FILE).read_text(encoding="utf-8")).get("stopped") or {"tasks": {}}
    found = [stopped_task({EARLY_STOPPING: stopped}, task) for task in stopped["tasks"]]
    return "; ".join(dict.fromkeys(one.words() for one in found if one is not None))


def running_seconds(job: CellJob) -> float | None:
    """Return for how long a process of this sweep has been running the cell; None if none is."""
    file = job.folder / RUNNING_FILE
    try:
        # The clocks of two machines may differ.
        return max(0.0, time.time() - file.stat().st_mtime) if file.read_text() == job.start else None
    except OSError:
        return None


def supervise(job: CellJob, harness: Harness) -> Generator[CellOutcome | None]:
    """Run a cell in its own process; yield None while it runs, then its outcome.

    Closing the generator kills the process.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # CUDA does not survive a fork. Without a GPU, forking one process that has imported everything saves time.
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["lm_eval_pruned.sweeps.imports"])
    new_process = multiprocessing.get_context("spawn").Process if job.cell.resources.gpus else forkserver.Process
    code = None
    for _ in range(1 + RETRIES):
        process = new_process(target=run_cell, args=(job, harness), name=job.cell.id)
        process.start()
        try:
            while process.is_alive():
                process.join(POLL_SECONDS)
                yield None
        finally:
            process.kill()
            process.join()
        code = process.exitcode
        if code is not None and code >= 0:
            break
    seconds = time.monotonic() - started
    if job.is_done:
        yield CellOutcome(
            job.cell.id, seconds, "", stopped_words(job.folder) if job.stop and job.traces is None else ""
        )
    else:
        died = f"ended by signal {-code}, {1 + RETRIES} times" if code and code < 0 else f"ended with exit code {code}"
        yield CellOutcome(job.cell.id, seconds, last_error(job.log) if code and code > 0 else died)


def run_cell(job: CellJob, harness: Harness) -> None:
    """Run a cell in this process, unless another process has done so by the time the lock is free."""
    # Ctrl-C reaches every process of a terminal; only the sweep handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's default lock is a system semaphore, and Python warns of one that a killed process leaks.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(job.environment)
    with FileLock(job.folder / LOCK_FILE):
        if job.is_done:
            return
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        running = job.folder / RUNNING_FILE
        write_text(running, job.start)
        try:
            if job.traces is None:
                _run(job, harness)
            else:
                harness(diverge_arguments(job.cell, traces=job.traces, output=job.folder))
        finally:
            running.unlink()


def _run(job: CellJob, harness: Harness) -> None:
    folder = job.folder
    write_text(
        folder / CELL_FILE, json.dumps({"label": job.cell.label, **job.cell.outcome_settings()}, indent=2) + "\n"
    )
    (folder / DONE_FILE).unlink(missing_ok=True)
    for name in (PARTIAL, RESULTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / PARTIAL).mkdir()
    # Until the rename nobody who searches for results_*.json finds an incomplete file.
    started = time.monotonic()
    with _stopping(job):
        harness(job.cell.arguments(responses=folder / RESPONSES, output=folder / PARTIAL / "run.json"))
    seconds = time.monotonic() - started
    files = list((folder / PARTIAL).glob("run_*.json"))
    if len(files) != 1:
        raise DataError(f"the harness wrote {len(files)} results files")
    stopped = json.loads(files[0].read_text(encoding="utf-8")).get(EARLY_STOPPING)
    files[0].rename(files[0].with_name(files[0].name.replace("run_", "results_", 1)))
    (folder / PARTIAL).rename(folder / RESULTS)
    content = {"cell": job.cell.id, "seconds": round(seconds, 3), "files": _sizes(folder / RESULTS), "stopped": stopped}
    write_text(folder / DONE_FILE, json.dumps(content, indent=2) + "\n")


def _stopping(job: CellJob) -> AbstractContextManager[None]:
    """Let the harness ask in rounds, if the cell is to be stopped."""
    if job.stop is None:
        return nullcontext()
    # Imports the harness, which the process of the sweep itself does without.
    from lm_eval_pruned.models.rounds import asking_in_rounds
    from lm_eval_pruned.sweeps.early_judge import EarlyJudge

    return asking_in_rounds(EarlyJudge(job.stop))


def last_error(log: Path) -> str:
    """Return the last line of a log that contains "error", or else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            stripped = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return "it left no log"
    lines = [line for line in stripped if line]
    errors = [line for line in lines if "error" in line.lower()]
    return ([*lines, *errors] or ["its log is empty"])[-1][:MAX_ERROR_CHARACTERS]


def _end_with_parent() -> None:
    """Exit when the parent process dies, which could no longer stop this cell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
