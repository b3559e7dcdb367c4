"""Streaming: the tensors of a checkpoint are pruned one by one as an engine reads them, by what an artifact holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.artifact import SCORES, TENSORS
from lm_eval_pruned.pruning.packing import count_zeros, zeroed

_WEIGHT = ".weight"
# What numbers the decoder blocks is the first number in a name.
_BLOCK = re.compile(r"(.*?\.\d+\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedStream:
    """What an artifact's folder does to the tensors of its checkpoint.

    `names` are the matrices it prunes; `pruned` collects those that have come by, and `zeros` counts, by decoder block,
    the zeros in all matrices that have.
    """

    folder: Path
    names: frozenset[str]
    pruned: set[str] = field(default_factory=set)
    zeros: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(cls, folder: Path) -> PrunedStream:
        """Read what there is in the folder of an artifact, and no tensor yet."""
        with safe_open(folder / TENSORS, framework="pt") as file:
            return cls(folder=folder, names=frozenset(file.keys()) - {SCORES})

    def __call__(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield the named tensors, pruned where the artifact says so; what was given is not changed.

        Raises:
            DataError: a mask is not one of this shape.
        """
        with safe_open(self.folder / TENSORS, framework="pt") as file:
            for name, given in weights:
                linear, weight = name.removesuffix(_WEIGHT), given
                if linear in self.names and name.endswith(_WEIGHT):
                    kept = file.get_tensor(linear)
                    weight = zeroed(given, kept) if kept.dtype == torch.uint8 else kept.to(given)
                    self.pruned.add(linear)
                block = block_of(name)
                if block and weight.ndim > 1:
                    self.zeros[block] += count_zeros(weight)
                yield name, weight

    def check(self) -> None:
        """Make sure that every matrix has come by.

        Raises:
            PruningError: one has not.
        """
        missing = sorted(self.names - self.pruned)
        if missing:
            raise PruningError(
                f"{len(missing)} of {len(self.names)} matrices were to be pruned and are not in the checkpoint under "
                f"their names, {missing[0]} among them: another load_format may have other files; leave it out"
            )


def block_of(name: str) -> str:
    """Return the part of a tensor's name that says in which block it is, nothing if it is in none.

    Example:
        >>> block_of("model.layers.11.mlp.experts.3.up_proj.weight"), block_of("lm_head.weight")
        ('model.layers.11.', '')
    """
    match = _BLOCK.match(name)
    return match[1] if match else ""


def can_stream(masked: Iterable[str], checkpoint: Iterable[str]) -> bool:
    """Tell whether every matrix to prune is in a checkpoint under the name it has in the model.

    Example:
        >>> can_stream(["h.0.q"], ["h.0.q.weight", "h.0.q.bias"]), can_stream(["h.0.q"], ["transformer.h.0.q.weight"])
        (True, False)
    """
    return {f"{name}{_WEIGHT}" for name in masked} <= {*checkpoint}
