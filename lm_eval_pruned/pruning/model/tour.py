"""A tour: every block of a decoder once, in memory while it is at hand, its zeros counted when it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lm_eval_pruned.pruning.masks.packing import count_zeros
from lm_eval_pruned.pruning.model.decoder import Block, Decoder


@dataclass(slots=True, kw_only=True)
class Tour:
    """Iterate over it once; `leave` gets every block behind what was done to it, while its weights are still there.

    `before` counts the zeros that the Linears had when they came, `zeros` by name those with which they leave.
    """

    decoder: Decoder
    leave: Callable[[Block], object]
    before: int = 0
    zeros: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Block]:
        modules = [block.module for block in self.decoder.blocks]
        # The modules come first: what they hold ends with the last of them.
        for _, block in zip(self.decoder.presence.each(modules), self.decoder.blocks, strict=True):
            self.before += sum(count_zeros(linear.weight) for linear in block.linears)
            yield block
            self.zeros.update({linear.name: count_zeros(linear.weight) for linear in block.linears})
            self.leave(block)

    def finish(self) -> None:
        """Visit every block and do nothing there but count."""
        for _ in self:
            pass
