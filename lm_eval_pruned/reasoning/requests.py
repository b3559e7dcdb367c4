"""Generation requests: token sequences for a backend to continue, and the backend protocol.

A row is one such request. When it finishes, its `on_finish` returns the rows that continue from there, so that budget
forcing is written once and runs on any backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lm_eval_pruned.reasoning.sampling import Sampling

Finish = Literal["stop", "length"]


class Generated(NamedTuple):
    """New token ids without those that stopped them, the finish reason, and the ids that stopped them."""

    ids: list[int]
    finish: Finish
    stop_ids: Sequence[int] = ()


class Stop(NamedTuple):
    """Stop texts of a generation; a text may span several tokens. End-of-sequence tokens always stop it as well."""

    texts: tuple[str, ...]


class Row(NamedTuple):
    """A token sequence to continue, with its limits, its sampling and a callback for what comes next.

    Attributes:
        ids: the prompt.
        max_new_tokens: most tokens to generate.
        seed: seed of this row's sampling noise.
        stop: what ends the generation early.
        sampling: how tokens are drawn.
        on_finish: takes what was generated and returns the rows that follow. It is called at every checkpoint that the
            row reaches without stopping, and at its end.
        max_length: bound, in tokens, on the length of this row and of every row that follows it.
        checkpoints: rising numbers of new tokens, all below `max_new_tokens`.
        min_new_tokens: nothing stops the row before this many new tokens.
    """

    ids: list[int]
    max_new_tokens: int
    seed: int
    stop: Stop
    sampling: Sampling
    on_finish: Callable[[Generated], Sequence[Row]]
    max_length: int
    checkpoints: tuple[int, ...] = ()
    min_new_tokens: int = 0


@runtime_checkable
class Backend(Protocol):
    """An inference backend: a tokenizer and a model that continues token sequences."""

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize; `special` adds what the tokenizer puts at the start of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""

    def run(self, rows: Sequence[Row]) -> None:
        """Continue every row, and the rows that follow, until none are left."""


def cut_at_budget(generated: Generated, budget: int) -> Generated:
    """Return what the same generation would have been with a `max_new_tokens` of `budget`.

    What stopped it must fit too: a generation of exactly `budget` tokens was cut before its end could be seen.

    Example:
        >>> cut_at_budget(Generated([5, 6, 7], "stop", stop_ids=(1,)), 3)
        Generated(ids=[5, 6, 7], finish='length', stop_ids=())
        >>> cut_at_budget(Generated([5, 6, 7], "stop", stop_ids=(1,)), 4).finish
        'stop'
    """
    ids = [*generated.ids, *generated.stop_ids]
    return generated if generated.finish == "stop" and len(ids) <= budget else Generated(ids[:budget], "length")


def finish_row(row: Row, generated: Generated) -> list[Row]:
    """Call `on_finish` at every checkpoint and at the end of a finished row, and return all rows that follow.

    For backends that return a row only once it has finished.

    Example:
        >>> from lm_eval_pruned.reasoning.sampling import Sampling
        >>> seen = []
        >>> row = Row([1], 4, 0, Stop(()), Sampling(), lambda one: seen.append(one.ids) or [], 9, checkpoints=(2,))
        >>> finish_row(row, Generated([5, 6, 7, 8], "length"))
        []
        >>> seen
        [[5, 6], [5, 6, 7, 8]]
    """
    following: list[Row] = []
    for length in (*row.checkpoints, row.max_new_tokens):
        beginning = cut_at_budget(generated, length)
        following += row.on_finish(beginning)
        if beginning.finish == "stop":
            break
    return following


def run_in_rounds(generate: Callable[[Sequence[Row]], Sequence[Generated]], rows: Sequence[Row]) -> None:
    """Run rows with one call of `generate` for all of them, another for all rows that follow, and so on."""
    while rows:
        rows = [new for row, generated in zip(rows, generate(rows), strict=True) for new in finish_row(row, generated)]
