"""Progress of a sweep: a live table on a terminal, otherwise one line per finished cell."""

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

from lm_eval_pruned.sweeps.running import LOG_FILE, CellJob, CellOutcome, is_running

# Number of finished cells in the table.
LAST = 8
# Each refresh reads a file per unfinished cell, perhaps over a network.
REFRESH_SECONDS = 2.0


class ProgressDisplay:
    """Shows the progress of a sweep in which `done_before` cells were already done."""

    def __init__(self, jobs: Sequence[CellJob], done_before: int) -> None:
        self._jobs = {job.cell.id: job for job in jobs}
        self._waiting = dict(self._jobs)
        self._outcomes: list[CellOutcome] = []
        self._done_before = done_before
        self._started = self._refreshed = time.monotonic()
        self._running: list[CellJob] = []
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
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
        if self._live and (event is not None or now - self._refreshed >= REFRESH_SECONDS):
            self._refreshed = now
            self._running = [job for job in self._waiting.values() if is_running(job)]
            self._live.update(self._table(), refresh=True)
        elif event is not None and not self._live:
            state = "failed" if event.error else "done"
            label = self._jobs[event.cell].cell.label
            sys.stdout.write(f"[{len(self._outcomes)}/{len(self._jobs)}] {state} in {event.seconds:.0f} s: {label}\n")
            sys.stdout.flush()

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
            f"failed: {self._jobs[outcome.cell].cell.label}: {outcome.error} "
            f"({self._jobs[outcome.cell].folder / LOG_FILE})"
            for outcome in self.failed
        ]

    def summary(self) -> str:
        """Return the number of cells in each state, their rate and the time left."""
        ended, elapsed = len(self._outcomes), time.monotonic() - self._started
        words = [
            f"{self.done} done" + (f" ({self._done_before} before)" * bool(self._done_before)),
            f"{len(self.failed)} failed",
            f"{len(self._running)} running",
            f"{len(self._waiting) - len(self._running)} waiting",
        ]
        if ended:
            words.append(f"{60 * ended / elapsed:.1f} cells a minute")
        if ended and self._waiting:
            words.append(f"about {_duration(elapsed / ended * len(self._waiting))} left")
        return ", ".join(words)

    def _table(self) -> Table:
        table = Table(title=self.summary(), title_justify="left", expand=True)
        for name, justify in (("state", "left"), ("seconds", "right"), ("cell", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for outcome in self._outcomes[-LAST:]:
            state = Text("failed", "red") if outcome.error else Text("done", "green")
            # Text, so that square brackets in a name are not read as markup.
            table.add_row(state, f"{outcome.seconds:.0f}", Text(self._jobs[outcome.cell].cell.label))
        for job in self._running:
            table.add_row("running", "", Text(job.cell.label))
        return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
