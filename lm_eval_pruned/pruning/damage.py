"""The damage of leaving out blocks: the loss of the calibration text, or its KL divergence from the dense model."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lm_eval_pruned.config import GreedyBy
from lm_eval_pruned.divergence.head import TwoParts, divide
from lm_eval_pruned.divergence.measure import DenseTraces, dense_traces, mean_kl, mean_loss
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.files import MALFORMED, write_atomically
from lm_eval_pruned.pruning.calibration.activations import Windows, split_call
from lm_eval_pruned.pruning.calibration.recording import Forward, replaced_forward
from lm_eval_pruned.pruning.model.decoder import Block, Decoder


@dataclass(slots=True, kw_only=True)
class BlockDamage:
    """Measures the damage of leaving out blocks; each number is kept in a file, so that a search can go on.

    Attributes:
        decoder: the model, with all its blocks in memory.
        traces: the calibration windows.
        by: what is measured.
        notes: file of the numbers that are known; None keeps them in memory alone.
        on_measured: called after each number that was not known.
    """

    decoder: Decoder
    traces: Sequence[TokenTrace]
    by: GreedyBy
    notes: Path | None
    on_measured: Callable[[], object]
    _known: dict[str, float] = field(default_factory=dict)
    _parts: TwoParts | None = None
    _dense: DenseTraces | None = None

    def __post_init__(self) -> None:
        """Read what an earlier search measured; a damaged file counts as missing."""
        try:
            read = json.loads(self.notes.read_text()) if self.notes is not None else {}
            self._known = {str(name): float(value) for name, value in read.items()}
        except (OSError, AttributeError, *MALFORMED):
            self._known = {}

    def __call__(self, removed: Collection[int]) -> float:
        """Return the damage, in nats a token.

        Raises:
            PruningError: it is not a number.
        """
        name = "+".join(map(str, sorted(removed)))
        if name not in self._known:
            value = self._measure(frozenset(removed))
            if not abs(value) < float("inf"):
                raise PruningError(f"the {self.by} without blocks {name} is not a number: load in float32 or bfloat16")
            self._known[name] = value
            if self.notes is not None:
                # A full disk costs what has been measured, not the search.
                with suppress(OSError):
                    self.notes.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(self.notes, json.dumps(self._known))
        self.on_measured()
        return self._known[name]

    def _measure(self, removed: frozenset[int]) -> float:
        if self._parts is None:
            self._parts = divide(
                self.decoder.model, torch.tensor([self.traces[0].ids[:16]], device=self.decoder.device)
            )
            if self.by == "kl":
                self._dense = dense_traces(self._parts, self.traces)
        with _left_out(self.decoder, removed):
            return mean_loss(self._parts, self.traces) if self._dense is None else mean_kl(self._parts, self._dense)


def traces_of(windows: Windows) -> list[TokenTrace]:
    """Return calibration windows as traces, of which each token but the first has a distribution before it.

    Raises:
        PruningError: they have no such token.
    """
    rows: list[list[int]] = [window.tolist() for window in windows]
    traces = [TokenTrace(question="", ids=tuple(row), start=1, thinking=0) for row in rows if len(row) > 1]
    if not traces:
        raise PruningError("the calibration windows have a single token each: give a calib_seqlen of at least 2")
    return traces


def trials(blocks: int, count: int) -> int:
    """Return how many times a greedy search measures the damage.

    Example:
        >>> trials(4, 2)
        7
    """
    return sum(blocks - step for step in range(count))


@contextmanager
def _left_out(decoder: Decoder, removed: Collection[int]) -> Iterator[None]:
    """Let blocks return their input for a `with` block; those that return more than hidden states run all the same."""

    def around(block: Block, forward: Forward) -> Forward:
        def called(*arguments: object, **keywords: object) -> object:
            before = split_call(arguments, keywords)[0].clone()
            output = forward(*arguments, **keywords)
            return (before, *output[1:]) if isinstance(output, tuple) else before

        return called

    with replaced_forward([block for block in decoder.blocks if block.index in removed], around):
        yield
