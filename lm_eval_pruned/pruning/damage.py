"""The damage of leaving out blocks: the loss of the calibration text, or its KL divergence from the dense model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lm_eval_pruned.config import GreedyBy
from lm_eval_pruned.divergence.head import TwoParts, divide
from lm_eval_pruned.divergence.measure import Counted, DenseTraces, dense_traces, mean_kl, mean_loss
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.artifacts.journal import Journal
from lm_eval_pruned.pruning.calibration.activations import split_call
from lm_eval_pruned.pruning.calibration.running import Forward, replaced_forward
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.shapes import SHORT_WINDOW


@dataclass(slots=True, kw_only=True)
class BlockDamage:
    """Measures the damage of leaving out blocks; each number is kept in a file, so that a search can go on.

    Attributes:
        decoder: the model, with all its blocks in memory.
        traces: the calibration windows.
        counted: which of their tokens count; None counts all.
        by: what is measured.
        journal: the numbers that an interrupted search has measured.
        on_measured: called after each number.
    """

    decoder: Decoder
    traces: Sequence[TokenTrace]
    counted: Counted
    by: GreedyBy
    journal: Journal
    on_measured: Callable[[], object]
    _parts: TwoParts | None = None
    _dense: DenseTraces | None = None

    def __call__(self, removed: Collection[int]) -> float:
        """Return the damage, in nats a token.

        Raises:
            PruningError: it is not a number.
        """
        name = "+".join(map(str, sorted(removed)))
        value = self.journal.once(name, lambda: self._measure(frozenset(removed)))
        if not abs(value) < float("inf"):
            raise PruningError(
                f"the {self.by} without blocks {name} is not a number: check the checkpoint, and load in "
                "float32 or bfloat16"
            )
        self.on_measured()
        return value

    def _measure(self, removed: frozenset[int]) -> float:
        if self._parts is None:
            self._parts = divide(
                self.decoder.model, torch.tensor([self.traces[0].ids[:SHORT_WINDOW]], device=self.decoder.device)
            )
            if self.by == "kl":
                self._dense = dense_traces(self._parts, self.traces)
        with _left_out(self.decoder, removed):
            if self._dense is None:
                return mean_loss(self._parts, self.traces, self.counted)
            return mean_kl(self._parts, self._dense, self.counted)


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
