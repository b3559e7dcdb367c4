"""Rows: sequences of token ids to continue, whoever runs the model, and what follows once one has been continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lm_eval_pruned.reasoning.sampling import Sampling

Finish = Literal["stop", "length"]


class Generated(NamedTuple):
    """New token ids without what stopped them, why they ended, and the token ids that stopped them."""

    ids: list[int]
    finish: Finish
    ending: Sequence[int] = ()


class Stop(NamedTuple):
    """What ends a generation: an end-of-sequence token always, and these texts; a text may span several tokens."""

    texts: tuple[str, ...]


class Row(NamedTuple):
    """A sequence to continue until `stop`, or until it has `room` new tokens; nothing ends it before the `least`.

    `then` is called with what was generated and returns the rows that follow. It is called at each of `marks`, numbers
    of new tokens below `room`, for a row that runs so far without an end, and at the end. `key` is that of its noise;
    `longest` bounds the length, in tokens, of the row and of all that can follow it.
    """

    ids: list[int]
    room: int
    key: int
    stop: Stop
    sampling: Sampling
    then: Callable[[Generated], Sequence[Row]]
    longest: int
    marks: tuple[int, ...] = ()
    least: int = 0


@runtime_checkable
class Backend(Protocol):
    """What runs a model; text becomes ids and ids become more ids."""

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize; `special` adds what the tokenizer puts at the start of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""

    def run(self, rows: Sequence[Row]) -> None:
        """Continue every row, and every row that follows, until nothing follows."""


def at_budget(trace: Generated, budget: int) -> Generated:
    """Return what the same generation would have been with room for `budget` tokens and no more.

    What ended it must fit too: thinking of exactly the budget's length was not seen to end.

    Example:
        >>> at_budget(Generated([5, 6, 7], "stop", ending=(1,)), 3)
        Generated(ids=[5, 6, 7], finish='length', ending=())
        >>> at_budget(Generated([5, 6, 7], "stop", ending=(1,)), 4).finish
        'stop'
    """
    whole = [*trace.ids, *trace.ending]
    return trace if trace.finish == "stop" and len(whole) <= budget else Generated(whole[:budget], "length")


def following(row: Row, trace: Generated) -> list[Row]:
    """Return what follows at every mark of a row and at its end, on a backend that says only then what it has written.

    Example:
        >>> from lm_eval_pruned.reasoning.sampling import Sampling
        >>> seen = []
        >>> row = Row([1], 4, 0, Stop(()), Sampling(), lambda part: seen.append(part.ids) or [], longest=9, marks=(2,))
        >>> following(row, Generated([5, 6, 7, 8], "length"))
        []
        >>> seen
        [[5, 6], [5, 6, 7, 8]]
    """
    rows: list[Row] = []
    for mark in (*row.marks, row.room):
        part = at_budget(trace, mark)
        rows += row.then(part)
        if part.finish == "stop":
            break
    return rows


def run_in_rounds(generate: Callable[[Sequence[Row]], Sequence[Generated]], rows: Sequence[Row]) -> None:
    """Run rows on a backend that continues many of them in one call: one call for all, one for all that follow, ..."""
    while rows:
        rows = [after for row, trace in zip(rows, generate(rows), strict=True) for after in following(row, trace)]
