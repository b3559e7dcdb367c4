"""Progress bar in tokens: how many were generated, at what rate, and how many are likely to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from tqdm import tqdm

from lm_eval_pruned.progress import ProgressLines, progress_bar
from lm_eval_pruned.reasoning.requests import Row


@dataclass(slots=True, kw_only=True, eq=False)
class Progress:
    """Token counts of all rows and their bar; running rows are expected to generate the mean of finished ones again.

    Attributes:
        bar: the bar.
        bounds: the most tokens that each row and its followers can generate.
        generated: tokens generated for each row so far.
        running: sequences that each row has at present: itself and its forks.
    """

    bar: tqdm[None] | ProgressLines
    bounds: Sequence[int]
    generated: list[int]
    running: list[int]

    @classmethod
    def start(cls, rows: Sequence[Row], *, is_quiet: bool = False) -> Progress:
        """Open the bar, or lines where there is no terminal."""
        bounds = [most_tokens(row) for row in rows]
        bar = progress_bar(sum(bounds), desc="thinking", unit="token", is_quiet=is_quiet)
        return cls(bar=bar, bounds=bounds, generated=[0] * len(bounds), running=[1] * len(bounds))

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()

    def add_tokens(self, row: int, tokens: int = 1) -> None:
        """Count new tokens of a row."""
        self.generated[row] += tokens
        if self.bar.n + tokens >= self.bar.total:
            self.bar.total = self.expected()
        self.bar.update(tokens)

    def add_sequences(self, row: int, change: int) -> None:
        """Count new sequences of a row; -1 is one that has finished."""
        self.running[row] += change
        if not self.running[row]:
            self.bar.total = self.expected()
            self.bar.refresh()

    def tick(self) -> None:
        """Show that the run goes on, between tokens that come late."""
        self.bar.update(0)

    def expected(self) -> int:
        """Estimate the tokens of the whole run from the mean of the finished rows.

        The last rows that run are the longest, so each is expected to generate as many tokens as that mean once more,
        up to its bound.

        Example:
            >>> from lm_eval_pruned.reasoning.requests import Stop
            >>> from lm_eval_pruned.reasoning.sampling import Sampling
            >>> row = Row([1], 90, 0, Stop(()), Sampling(), lambda _: [], max_length=101)
            >>> progress = Progress.start([row, row, row], is_quiet=True)
            >>> progress.expected()
            300
            >>> for _ in range(20):
            ...     progress.add_tokens(0)
            >>> progress.add_sequences(0, -1)
            >>> progress.expected()
            60
        """
        finished = [tokens for tokens, running in zip(self.generated, self.running, strict=True) if not running]
        if not finished:
            return sum(map(max, self.bounds, self.generated))
        mean = round(sum(finished) / len(finished))
        return sum(
            min(tokens + mean, max(tokens, bound)) if running else tokens
            for tokens, running, bound in zip(self.generated, self.running, self.bounds, strict=True)
        )


def most_tokens(row: Row) -> int:
    """Return the most tokens that a row and all that follow it can generate: each checkpoint has an answer.

    Example:
        >>> from lm_eval_pruned.reasoning.requests import Stop
        >>> from lm_eval_pruned.reasoning.sampling import Sampling
        >>> most_tokens(Row([1], 90, 0, Stop(()), Sampling(), lambda _: [], max_length=101, checkpoints=(30, 60)))
        120
    """
    whole = row.max_length - len(row.ids)
    return whole + len(row.checkpoints) * (whole - row.max_new_tokens)
