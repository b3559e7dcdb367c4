"""Block sinks: where pruned blocks and the tensors of an artifact go while a model is pruned block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from lm_eval_pruned.pruning.masks.packing import count_zeros, count_zeros_each
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.model.narrowing import Narrowing


@runtime_checkable
class BlockSink(Protocol):
    """Takes what an artifact stores of each Linear, and each finished block while its weights are onloaded."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What was stored: packed masks or solved weights by the name of their Linear, and measured signals."""

    def store(self, name: str, tensor: Tensor) -> None:
        """Store a tensor of the artifact."""

    def block_done(self, block: Block) -> None:
        """Take a pruned block."""

    def narrow(self, narrowing: Narrowing, kept: Mapping[str, Tensor]) -> None:
        """Leave channels or experts out of each block that follows; see `Narrowing.apply`."""


@dataclass(slots=True)
class InMemorySink:
    """Collects the tensors of an artifact in memory; the blocks stay where they are."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def store(self, name: str, tensor: Tensor) -> None:
        """Store a tensor of the artifact."""
        self.tensors[name] = tensor

    def block_done(self, block: Block) -> None:
        """Leave the block in the model."""

    def narrow(self, narrowing: Narrowing, kept: Mapping[str, Tensor]) -> None:
        """Do nothing: the whole model is narrowed once all blocks are done."""


def zeros_of(linears: Sequence[Linear]) -> dict[str, int]:
    """Return the number of zeros of each Linear, by name."""
    counts = count_zeros_each([linear.weight for linear in linears])
    return {linear.name: count for linear, count in zip(linears, counts, strict=True)}


def visit_blocks(
    decoder: Decoder, sink: BlockSink, process: Callable[[Block], object] = lambda block: None
) -> dict[str, int]:
    """Onload each block in order, process it, pass it to the sink, and return the zeros of each Linear, by name."""
    zeros: dict[str, int] = {}
    for block in decoder.onload_blocks():
        process(block)
        zeros |= zeros_of(block.linears)
        sink.block_done(block)
    return zeros


def narrow_blocks(
    decoder: Decoder, narrowing: Narrowing, kept: Mapping[str, Tensor], sink: BlockSink
) -> dict[str, int]:
    """Remove channels or experts from every block, in place, and return the zeros of each Linear, by name.

    A weight that is taken out counts as zero.

    Args:
        decoder: the dense model.
        narrowing: what changes.
        kept: for each block, by its name, the channels or experts to keep, in order.
        sink: takes the blocks.
    """
    zeros: dict[str, int] = {}
    sink.narrow(narrowing, kept)
    for block in decoder.onload_blocks():
        for linear in block.linears:
            left = narrowing.weight_left(block, linear, kept)
            zeros[linear.name] = linear.weight.numel() - left.numel() + count_zeros(left)
        sink.block_done(block)
    narrowing.apply(decoder.model, kept)
    return zeros
