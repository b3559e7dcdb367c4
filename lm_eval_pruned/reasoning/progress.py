"""Progress in tokens: how many were written, at what rate, and how many are likely to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from tqdm import tqdm


@dataclass(slots=True, kw_only=True, eq=False)
class Progress:
    """A bar over all rows; once some are done, the others are expected to be as long as those on average.

    `bounds` is the most that each row can write, in tokens; `open` counts the lines a row has at present.
    """

    bar: tqdm[None]
    bounds: Sequence[int]
    written: list[int]
    open: list[int]

    @classmethod
    def start(cls, bounds: Sequence[int], *, is_quiet: bool = False) -> Progress:
        """Open the bar; it is drawn on a terminal only."""
        bar = tqdm(total=sum(bounds), desc="thinking", unit="tok", unit_scale=True, disable=is_quiet or None)
        return cls(bar=bar, bounds=bounds, written=[0] * len(bounds), open=[1] * len(bounds))

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()

    def wrote(self, row: int, tokens: int = 1) -> None:
        """Count new tokens."""
        self.written[row] += tokens
        self.bar.update(tokens)

    def opened(self, row: int, lines: int) -> None:
        """Count new lines of a row, or with -1 one that has come to its end."""
        self.open[row] += lines
        if not self.open[row]:
            self.bar.total = self.expected()
            self.bar.refresh()

    def expected(self) -> int:
        """Return how many tokens there will be at the end, by the mean of the rows that are done.

        Example:
            >>> progress = Progress.start([100, 100, 100], is_quiet=True)
            >>> progress.expected()
            300
            >>> for _ in range(20):
            ...     progress.wrote(0)
            >>> progress.opened(0, -1)
            >>> progress.expected()
            60
        """
        done = [written for written, lines in zip(self.written, self.open, strict=True) if not lines]
        if not done:
            return sum(self.bounds)
        mean = sum(done) / len(done)
        return sum(
            max(written, round(mean)) if lines else written
            for written, lines in zip(self.written, self.open, strict=True)
        )
