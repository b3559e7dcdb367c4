"""Replay: what an artifact says was done to a model is done to the same weights again, and nothing is calibrated."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.artifacts.report import Outcome
from lm_eval_pruned.pruning.artifacts.store import SCORES, TENSORS, Artifact
from lm_eval_pruned.pruning.masks.packing import count_zeros, zero_out, zeroed
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.model.drop_blocks import drop_blocks
from lm_eval_pruned.pruning.model.tour import Tour


@torch.no_grad()
def replay(artifact: Artifact, model: nn.Module, decoder: Decoder, leave: Callable[[Block], object]) -> Outcome:
    """Do to `model` in place what an artifact says was done to the same weights before."""
    targets, removed = _targets(artifact.report), _removed(artifact.report)
    tour = Tour(decoder=drop_blocks(model, decoder, removed), leave=leave)
    for block in tour:
        for linear in block.linears:
            kept = artifact.tensors.get(linear.name)
            if kept is not None:
                _apply(linear, kept)
    return Outcome(targets, removed, tour.zeros)


def _apply(linear: Linear, kept: Tensor) -> None:
    """Set a Linear to what an artifact keeps of it: a whole weight, or a packed mask."""
    if kept.dtype != torch.uint8:
        linear.weight.copy_(kept)
    elif linear.expert is None and linear.weight.device.type == "cpu":
        linear.weight.data = zeroed(linear.weight, kept)
    else:
        zero_out(linear.weight, kept)


def _targets(report: Mapping[str, object]) -> dict[str, float]:
    linears = cast("list[dict[str, object]]", report["linears"])
    return {str(item["name"]): float(str(item["target"])) for item in linears}


def _removed(report: Mapping[str, object]) -> frozenset[int]:
    return frozenset(cast("list[int]", report["removed_blocks"]))


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
