"""Apply an artifact: set the stored masks and weights in a model, or in checkpoint tensors as they stream by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.artifacts.report import Outcome
from lm_eval_pruned.pruning.artifacts.sink import BlockSink, visit_blocks
from lm_eval_pruned.pruning.artifacts.store import SCORES, TENSORS, Artifact
from lm_eval_pruned.pruning.masks.packing import count_zeros, zero_in_place, zeroed_copy
from lm_eval_pruned.pruning.model.decoder import Block, Decoder, Linear
from lm_eval_pruned.pruning.model.drop_blocks import drop_blocks

_WEIGHT = ".weight"
# The first number in the name of a tensor is the index of its block.
_BLOCK = re.compile(r"(.*?\.\d+\.)")


@torch.no_grad()
def apply_artifact(artifact: Artifact, decoder: Decoder, sink: BlockSink) -> Outcome:
    """Prune a model, in place, as the same weights were pruned when the artifact was made; nothing is calibrated."""
    targets, removed = _targets(artifact.report), _removed(artifact.report)

    def process(block: Block) -> None:
        for linear in block.linears:
            stored = artifact.tensors.get(linear.name)
            if stored is not None:
                apply_stored(linear, stored)

    zeros = visit_blocks(drop_blocks(decoder, removed), sink, process)
    return Outcome(targets, removed, zeros)


def apply_stored(linear: Linear, stored: Tensor) -> None:
    """Set a Linear to what an artifact stores of it: a whole weight, or a packed mask."""
    if stored.dtype != torch.uint8:
        linear.as_stored(linear.weight).copy_(stored)
    elif linear.expert is None and linear.operand.device.type == "cpu":
        linear.operand.data = zeroed_copy(linear.operand, stored)
    else:
        zero_in_place(linear.as_stored(linear.weight), stored)


def _targets(report: Mapping[str, object]) -> dict[str, float]:
    linears = cast("list[dict[str, object]]", report["linears"])
    return {str(item["name"]): float(str(item["target"])) for item in linears}


def _removed(report: Mapping[str, object]) -> frozenset[int]:
    return frozenset(cast("list[int]", report["removed_blocks"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedStream:
    """Prunes the tensors of a checkpoint as an inference engine reads them.

    Attributes:
        folder: folder of the artifact.
        names: the matrices that it prunes.
        pruned: those of them that have been read so far.
        zeros: zeros in all matrices that have been read, by decoder block.
    """

    folder: Path
    names: frozenset[str]
    pruned: set[str] = field(default_factory=set)
    zeros: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(cls, folder: Path) -> PrunedStream:
        """Read the names in the folder of an artifact, but no tensor yet."""
        with safe_open(folder / TENSORS, framework="pt") as file:
            return cls(folder=folder, names=frozenset(file.keys()) - {SCORES})

    def __call__(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield the named tensors, pruned where the artifact says so; the given tensors are not modified.

        Raises:
            DataError: a mask has another shape than its weight.
        """
        with safe_open(self.folder / TENSORS, framework="pt") as file:
            for name, given in weights:
                linear, weight = name.removesuffix(_WEIGHT), given
                if linear in self.names and name.endswith(_WEIGHT):
                    stored = file.get_tensor(linear)
                    weight = zeroed_copy(given, stored) if stored.dtype == torch.uint8 else stored.to(given)
                    self.pruned.add(linear)
                block = block_of(name)
                if block and weight.ndim > 1:
                    self.zeros[block] += count_zeros(weight)
                yield name, weight

    def check(self) -> None:
        """Check that every matrix to prune was in the stream.

        Raises:
            PruningError: one was not.
        """
        missing = sorted(self.names - self.pruned)
        if missing:
            raise PruningError(
                f"{len(missing)} of {len(self.names)} matrices were to be pruned and are not in the checkpoint under "
                f"their names, {missing[0]} among them: another load_format may have other files; leave it out"
            )


def block_of(name: str) -> str:
    """Return the prefix of a tensor's name that names its decoder block; "" outside the blocks.

    Example:
        >>> block_of("model.layers.11.mlp.experts.3.up_proj.weight"), block_of("lm_head.weight")
        ('model.layers.11.', '')
    """
    match = _BLOCK.match(name)
    return match[1] if match else ""


def can_stream(masked: Iterable[str], checkpoint: Iterable[str]) -> bool:
    """Return whether every matrix to prune is in a checkpoint under the name that it has in the model.

    Example:
        >>> can_stream(["h.0.q"], ["h.0.q.weight", "h.0.q.bias"]), can_stream(["h.0.q"], ["transformer.h.0.q.weight"])
        (True, False)
    """
    return {f"{name}{_WEIGHT}" for name in masked} <= {*checkpoint}
