"""A sequence while it is generated: its tokens, how many of them are cached, and what follows it."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_pruned.reasoning.backends.limits import MAX_FORCED_STEPS
from lm_eval_pruned.reasoning.requests import Row


@dataclass(slots=True, kw_only=True, eq=False)
class LiveSequence:
    """A token sequence in the batch while it is generated.

    Attributes:
        row: the row.
        ids: its prompt and the tokens generated so far.
        root: index of the row given to `run` that it descends from.
        cached: how many of its tokens the KV cache of the batch holds.
    """

    row: Row
    ids: list[int]
    root: int
    cached: int = 0

    @property
    def new_count(self) -> int:
        """Number of new tokens; 0 while forced ones are still being read."""
        return len(self.ids) - len(self.row.ids)

    @property
    def new_ids(self) -> list[int]:
        """The new tokens."""
        return self.ids[len(self.row.ids) :]

    def follow(self, row: Row) -> LiveSequence:
        """Return the sequence of a row that follows; it keeps the cache if its prompt begins with the cached tokens."""
        to_read = len(row.ids) - self.cached
        keeps_cache = 0 < to_read <= MAX_FORCED_STEPS and row.ids[: self.cached] == self.ids[: self.cached]
        return LiveSequence(row=row, ids=list(row.ids), root=self.root, cached=self.cached if keeps_cache else 0)
