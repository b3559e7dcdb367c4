"""Progress of a long phase: a bar on a terminal, and elsewhere a line every minute or five percent."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

# A log of a job of days has few lines, and one of a minute has some.
MOST_SECONDS = 60.0
LEAST_SECONDS = 5.0
STEP = 0.05


class ProgressLines:
    """Progress in whole lines on stderr, for nohup, batch systems and CI; it has the methods of a tqdm bar that we use.

    Attributes:
        total: units of the whole phase.
        n: units that are done.
    """

    def __init__(self, total: float, *, desc: str, unit: str) -> None:
        self.total = total
        self.n = 0.0
        self._desc, self._unit, self._postfix = desc, unit, ""
        self._started = self._written = time.monotonic()
        self._written_n = 0.0
        self._has_written = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """Count `n` more units."""
        self.n += n
        self.refresh()

    def set_postfix_str(self, postfix: str) -> None:
        """Set the text at the end of the next lines."""
        self._postfix = postfix

    def refresh(self) -> None:
        """Write a line if the last one is long enough ago."""
        seconds = time.monotonic() - self._written
        if seconds >= MOST_SECONDS or (seconds >= LEAST_SECONDS and self.n - self._written_n >= STEP * self.total):
            self._write()

    def close(self) -> None:
        """Write a last line if there was another one."""
        if self._has_written and self.n != self._written_n:
            self._write()

    def line(self) -> str:
        """Describe the progress: done, of how many, since when, how fast, and how long it is likely to take.

        Example:
            >>> ProgressLines(200, desc="wanda", unit="window").line()
            'wanda: 0 % (0 of 200 windows), 0 s'
        """
        elapsed = time.monotonic() - self._started
        share = min(1.0, self.n / self.total) if self.total else 1.0
        words = [
            f"{self._desc}: {share:.0%}".replace("%", " %")
            + f" ({_short(self.n)} of {_short(self.total)} {_plural(self._unit)})",
            duration(elapsed),
        ]
        if self.n and elapsed >= 1:
            rate = self.n / elapsed
            words.append(f"{_short(rate)} a second" if rate >= 1 else f"{duration(1 / rate)} each")
            if share < 1:
                words.append(f"about {duration((self.total - self.n) / rate)} left")
        return ", ".join([*words, self._postfix] if self._postfix else words)

    def _write(self) -> None:
        sys.stderr.write(f"{self.line()}\n")
        sys.stderr.flush()
        self._written, self._written_n, self._has_written = time.monotonic(), self.n, True


def progress_bar(total: float, *, desc: str, unit: str, is_quiet: bool = False) -> tqdm[None] | ProgressLines:
    """Return a bar on a terminal, lines elsewhere, and nothing visible if quiet or in any process but the first.

    Args:
        total: units of the whole phase.
        desc: its name.
        unit: one unit, in the singular.
        is_quiet: show nothing.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    if is_quiet or not is_first or sys.stderr.isatty():
        return tqdm(total=total, desc=desc, unit=unit, unit_scale=total >= 10_000, disable=is_quiet or not is_first)
    return ProgressLines(total, desc=desc, unit=unit)


def duration(seconds: float) -> str:
    """Write a time in the units that people read.

    Example:
        >>> duration(7), duration(200), duration(3 * 3600 + 120), duration(2 * 86400 + 3600)
        ('7 s', '3 min 20 s', '3 h 02 min', '2 d 1 h')
    """
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 60:
        return f"{whole} s"
    if hours == 0:
        return f"{minutes} min {whole % 60:02} s"
    return f"{hours} h {minutes % 60:02} min" if days == 0 else f"{days} d {hours % 24} h"


def _short(number: float) -> str:
    return tqdm.format_sizeof(number) if number >= 1000 else f"{number:.0f}" if number >= 10 else f"{number:.3g}"


def _plural(unit: str) -> str:
    return {"matrix": "matrices"}.get(unit, f"{unit}s")
