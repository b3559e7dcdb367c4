"""The pruning report: settings, targets, and achieved sparsity counted from the weights."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
import transformers
from numpy.typing import NDArray

from lm_eval_pruned import __version__
from lm_eval_pruned.pruning.model.decoder import SUBLAYERS, Block, Decoder, Excluded

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearReport:
    """Weights and zeros of one Linear, and its target sparsity; 0 outside the scope."""

    name: str
    weights: int
    zeros: int
    target: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """Sparsities of one block: the targets of its attention and its MLP, and the one achieved over both."""

    index: int
    attn: float
    mlp: float
    achieved: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """`pruning_report.json`, and `config.pruning` of a results file of the harness.

    `dense_sha256` is the digest of the weights before pruning, which tells whether two runs are of one model; it is
    empty in reports of older versions. `remaining_weights` are the parameters of the model once blocks or channels are
    taken out; 0 in reports of older versions. `scores` [blocks groups] are LayerIF's, ready for a `.npy`; they are not
    part of the JSON.
    """

    fingerprint: str
    config: Mapping[str, object]
    target_sparsity: float
    achieved_sparsity: float
    prunable_weights: int
    zero_weights: int
    model_weights: int
    blocks: Sequence[BlockReport]
    removed_blocks: Sequence[int]
    linears: Sequence[LinearReport]
    excluded: Sequence[Mapping[str, str]]
    seconds: Mapping[str, float]
    peak_memory_bytes: int
    software: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION
    dense_sha256: str = ""
    remaining_weights: int = 0
    scores: NDArray[np.float64] | None = None

    def as_dict(self) -> dict[str, object]:
        """Return plain lists, dicts and numbers, ready for JSON; `schema_version` first."""
        content = asdict(replace(self, scores=None))
        del content["scores"]
        return {"schema_version": content.pop("schema_version"), **content}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PruneReport:
        """Rebuild a report from the output of `as_dict`.

        Raises:
            TypeError: a field is missing or unknown.
        """
        blocks = [BlockReport(**block) for block in content["blocks"]]
        return cls(**{**content, "blocks": blocks, "linears": [LinearReport(**item) for item in content["linears"]]})


@dataclass(slots=True)
class Stopwatch:
    """Accumulates the seconds spent in named phases."""

    seconds: dict[str, float] = field(
        default_factory=lambda: {"load": 0.0, "calibrate": 0.0, "allocate": 0.0, "prune": 0.0}
    )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent in the `with` block to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


class Outcome(NamedTuple):
    """The result of pruning: target sparsity of every Linear in scope, dropped blocks, and zeros of every Linear."""

    targets: Mapping[str, float]
    removed: Collection[int]
    zeros: Mapping[str, int]


class Counts(NamedTuple):
    """The fields of a report that are counted from the weights."""

    achieved_sparsity: float
    prunable_weights: int
    zero_weights: int
    blocks: list[BlockReport]
    removed_blocks: list[int]
    linears: list[LinearReport]
    excluded: list[dict[str, str]]


def count_outcome(decoder: Decoder, outcome: Outcome, scope: str, sizes: Mapping[str, int]) -> Counts:
    """Add up the zeros of a pruned model; `decoder` is that of the dense model.

    Linears without a target are excluded. `sizes` counts the weights of each Linear of the dense model; one that went
    with dropped blocks counts as zero. Blocks and Linears have the indices and names of the dense model.
    """
    targets, removed, zeros = outcome
    linears = {
        linear.name: LinearReport(
            name=linear.name,
            weights=sizes[linear.name],
            zeros=zeros.get(linear.name, sizes[linear.name]),
            target=targets[linear.name],
        )
        for block in decoder.blocks
        for linear in block.linears
        if linear.name in targets
    }
    prunable = sum(item.weights for item in linears.values())
    zero_weights = sum(item.zeros for item in linears.values())
    counts = {name: item.zeros for name, item in linears.items()}
    return Counts(
        achieved_sparsity=zero_weights / max(prunable, 1),
        prunable_weights=prunable,
        zero_weights=zero_weights,
        blocks=[report_block(block, targets, counts, sizes) for block in decoder.blocks],
        removed_blocks=sorted(removed),
        linears=list(linears.values()),
        excluded=[asdict(item) for item in all_excluded(decoder, targets, scope)],
    )


def software_versions(device: torch.device, *, deterministic: bool) -> dict[str, str]:
    """Return the versions that a report names, and what else decides the last digits of a sum.

    Args:
        device: the device of the weights.
        deterministic: whether a second run on the same kind of device would compute the same sums.
    """
    is_cuda = device.type == "cuda"
    return {
        "lm_eval_pruned": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        **({"cuda": str(torch.version.cuda or torch.version.hip)} if is_cuda else {}),
        # `reproducible` sees to it.
        "float32_products": "ieee",
        "deterministic": "yes" if deterministic else "no",
    }


def report_block(
    block: Block, targets: Mapping[str, float], zeros: Mapping[str, int], sizes: Mapping[str, int]
) -> BlockReport:
    """Sum up a block from the targets of its Linears in scope, their zeros, counted or planned, and their sizes."""
    scoped = [linear for linear in block.linears if linear.name in targets]
    attn, mlp = (
        max((targets[linear.name] for linear in scoped if linear.sublayer == sublayer), default=0.0)
        for sublayer in SUBLAYERS
    )
    weights = sum(sizes[linear.name] for linear in scoped)
    achieved = sum(zeros[linear.name] for linear in scoped) / weights if weights else 0.0
    return BlockReport(index=block.index, attn=attn, mlp=mlp, achieved=achieved)


def all_excluded(decoder: Decoder, targets: Mapping[str, float], scope: str) -> list[Excluded]:
    """Return the matrices that are never pruned, and those outside the scope."""
    outside = [linear.name for linear in decoder.linears if linear.name not in targets]
    return [*decoder.excluded, *(Excluded(name=name, reason=f"scope={scope}") for name in outside)]


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far, in bytes: of the GPU that the model is on, or else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, getrusage can report the peak of the process that started this one.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
