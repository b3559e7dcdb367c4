"""Progress of a sweep: a live table on a terminal, otherwise a line for each finished cell and one every minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lm_eval_pruned.progress import duration
from lm_eval_pruned.sweeps.running import CellJob, CellOutcome, running_seconds

# Number of finished cells in the table, and of waiting ones.
LAST = 8
NEXT = 3
# Each refresh reads a file per unfinished cell, perhaps over a network.
REFRESH_SECONDS = 2.0
# Without a terminal a line is written so often, and names so many of the running cells.
LINE_SECONDS = 60.0
LINE_CELLS = 4


class ProgressDisplay:
    """Shows the progress of a sweep in which `done_before` cells were already done."""

    def __init__(self, jobs: Sequence[CellJob], done_before: int) -> None:
        self._jobs = {job.cell.id: job for job in jobs}
        self._waiting = dict(self._jobs)
        self._outcomes: list[CellOutcome] = []
        self._done_before = done_before
        self._started = self._refreshed = time.monotonic()
        self._running: dict[str, float] = {}
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.update(self._table())
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, event: CellOutcome | None) -> None:
        """Record an outcome, or None to refresh the running cells."""
        now = time.monotonic()
        if event is not None:
            self._outcomes.append(event)
            self._waiting.pop(event.cell)
            self._running.pop(event.cell, None)
        if self._live and (event is not None or now - self._refreshed >= REFRESH_SECONDS):
            self._look(now)
            self._live.update(self._table(), refresh=True)
        elif event is not None and not self._live:
            state = "failed" if event.error else "done"
            label, stopped = self._jobs[event.cell].label, f", {event.stopped}" if event.stopped else ""
            _write(f"[{len(self._outcomes)}/{len(self._jobs)}] {state} in {event.seconds:.0f} s: {label}{stopped}")
        elif not self._live and now - self._refreshed >= LINE_SECONDS:
            self._look(now)
            _write(self._running_line())

    def _look(self, now: float) -> None:
        """Find the running cells, and for how long they have been running."""
        self._refreshed = now
        seconds = {name: running_seconds(job) for name, job in self._waiting.items()}
        self._running = {name: value for name, value in seconds.items() if value is not None}

    def _running_line(self) -> str:
        cells = [f"{self._jobs[name].label} ({duration(value)})" for name, value in self._running.items()]
        more = [f"{len(cells) - LINE_CELLS} more"] if len(cells) > LINE_CELLS else []
        named = f"; running: {'; '.join([*cells[:LINE_CELLS], *more])}" if cells else ""
        return f"{duration(time.monotonic() - self._started)}: {self.summary()}{named}"

    @property
    def done(self) -> int:
        """Number of cells that are done."""
        return self._done_before + len(self._outcomes) - len(self.failed)

    @property
    def failed(self) -> list[CellOutcome]:
        """Outcomes of the cells that failed."""
        return [outcome for outcome in self._outcomes if outcome.error]

    def failure_lines(self) -> list[str]:
        """Return a line for each failed cell: its label, its last error and its log file."""
        return [
            f"failed: {self._jobs[outcome.cell].label}: {outcome.error} ({self._jobs[outcome.cell].log})"
            for outcome in self.failed
        ]

    def summary(self) -> str:
        """Return the number of cells in each state, their rate and the time left."""
        succeeded = len(self._outcomes) - len(self.failed)
        elapsed = time.monotonic() - self._started
        words = [
            f"{self.done} done" + (f" ({self._done_before} before)" * bool(self._done_before)),
            f"{len(self.failed)} failed",
            f"{len(self._running)} running",
            f"{len(self._waiting) - len(self._running)} waiting",
        ]
        # What failed at once says nothing about the time that the others take.
        if succeeded:
            words.append(f"{60 * succeeded / elapsed:.2g} cells a minute")
        if succeeded and self._waiting:
            words.append(f"about {duration(self._seconds_left(elapsed))} left")
        return ", ".join(words)

    def _seconds_left(self, elapsed: float) -> float:
        """Estimate from the mean time of a cell and how many ran side by side, less what running ones have had."""
        times = [outcome.seconds for outcome in self._outcomes if not outcome.error]
        mean = sum(times) / len(times)
        side_by_side = max(1.0, (sum(times) + sum(self._running.values())) / elapsed)
        remaining = sum(max(0.0, mean - self._running.get(name, 0.0)) for name in self._waiting)
        return remaining / side_by_side

    def _table(self) -> Table:
        table = Table(title=self.summary(), title_justify="left", expand=True)
        for name, justify in (("state", "left"), ("time", "right"), ("cell", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for outcome in self._outcomes[-LAST:]:
            state = Text("failed", "red") if outcome.error else Text("done", "green")
            # Text, so that square brackets in a name are not read as markup.
            stopped = f", {outcome.stopped}" if outcome.stopped else ""
            table.add_row(state, duration(outcome.seconds), Text(self._jobs[outcome.cell].label + stopped))
        for name, seconds in self._running.items():
            table.add_row("running", duration(seconds), Text(self._jobs[name].label))
        for name in [name for name in self._waiting if name not in self._running][:NEXT]:
            table.add_row("waiting", "", Text(self._jobs[name].label))
        return table


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
