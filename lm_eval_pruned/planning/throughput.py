"""Measure this machine's throughput for each kind of operation, and estimate the time of pruning from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from lm_eval_pruned.planning.memory import peak_memory_bytes
from lm_eval_pruned.planning.work import phases
from lm_eval_pruned.pruning.allocations.signals.tail_exponent import squared_singular_values
from lm_eval_pruned.pruning.artifacts.report import peak_memory
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods.sparsegpt import BLOCK, sparsegpt
from lm_eval_pruned.pruning.model.flops import Work, seconds, total
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape
from lm_eval_pruned.pruning.recipe import Recipe

# Large enough to keep a device busy, small enough to be measured in a tenth of a second. On a GPU, a product with sides
# of 1024 takes little longer than its launch; decompositions keep to them, as larger ones take seconds.
LARGEST_SIDE = 1024
LARGEST_SIDE_OF_A_GPU = 8192
SECONDS_PER_KIND = 0.1


class Estimate(NamedTuple):
    """Bytes by what holds them, seconds by phase, and the throughput that the seconds were derived from."""

    memory_bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    throughput: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalProduct:
    """A matrix product [tokens columns] x [columns rows] whose speed stands for all products of a model."""

    tokens: int
    rows: int
    columns: int
    dtype: torch.dtype
    device: str

    @classmethod
    def of(cls, architecture: Architecture, windows: WindowShape, dtype: torch.dtype, device: str) -> TypicalProduct:
        """Return the product of a model's largest matrix with one calibration window.

        Args:
            architecture: shapes of the model.
            windows: shape of the calibration set; only the tokens per window count.
            dtype: dtype of the weights.
            device: device that is measured, such as "cuda".
        """
        matrices = [matrix for block in architecture.blocks for matrix in block.matrices]
        largest = max(matrices, key=lambda matrix: matrix.rows * matrix.columns)
        return cls(tokens=windows.seqlen, rows=largest.rows, columns=largest.columns, dtype=dtype, device=device)


def estimate_cost(
    recipe: Recipe,
    architecture: Architecture,
    windows: WindowShape,
    *,
    dtype: torch.dtype,
    stored: torch.dtype,
    device: str,
) -> Estimate:
    """Estimate memory and time of pruning on this machine.

    Args:
        recipe: how the model is pruned.
        architecture: the shapes of the model.
        windows: the size of the calibration set.
        dtype: dtype of the loaded weights.
        stored: dtype of the checkpoint.
        device: device to prune on.
    """
    memory = peak_memory_bytes(recipe, architecture, windows)
    if torch.device(device).type == "cpu":
        is_whole = architecture.outside is None
        converted = {"stored": architecture.weights * stored.itemsize} if is_whole and stored != dtype else {}
        memory = {"process": peak_memory(torch.device("cpu")), **converted, **memory}
    else:
        # Masks are in the memory of the CPU, as are Python and weights before conversion.
        memory.pop("masks", None)
    works = phases(recipe, architecture, windows)
    product = TypicalProduct.of(architecture, windows, dtype, device)
    throughput = measure_throughput(total(works.values()), recipe.rule(recipe.config.target), product)
    return Estimate(memory, {phase: seconds(work, throughput) for phase, work in works.items()}, throughput)


@torch.no_grad()
def measure_throughput(wanted: Work, rule: MaskRule, product: TypicalProduct) -> Work:
    """Measure operations per second of the kinds that `wanted` has any of; the others are 0.

    Args:
        wanted: the operations to be estimated.
        rule: how weights are ranked.
        product: shape, dtype and device of the products.
    """
    largest = LARGEST_SIDE if torch.device(product.device).type == "cpu" else LARGEST_SIDE_OF_A_GPU
    tokens, rows, columns = (min(side, largest) for side in (max(product.tokens, 1), product.rows, product.columns))
    m = rule.pattern[1] if rule.pattern else 1
    columns -= columns % m
    device, dtype = product.device, product.dtype
    generator = torch.Generator(device).manual_seed(0)

    def random(*sides: int) -> Tensor:
        return torch.rand(sides, generator=generator, device=device)

    inputs, weight = random(tokens, columns), random(rows, columns)
    inputs_in_dtype, weight_in_dtype = inputs.to(dtype), weight.to(dtype)
    # So few columns that all are eliminated one by one, none by a product.
    few = min(columns, max(m, BLOCK - BLOCK % m))
    narrow, gram = weight[:, :few].contiguous(), torch.eye(few, device=device)
    square = random(*(min(rows, columns, LARGEST_SIDE),) * 2)
    flops = 2 * tokens * rows * columns
    trials: dict[str, tuple[float, Callable[[], object]]] = {
        "matmul_flops": (flops, lambda: torch.nn.functional.linear(inputs_in_dtype, weight_in_dtype)),
        "fp32_matmul_flops": (flops, lambda: torch.nn.functional.linear(inputs, weight)),
        "elementwise": (inputs.numel(), lambda: _norm_and_gate(inputs_in_dtype)),
        "sorted": (weight.numel(), lambda: rule.keep_by_rows(lambda rows: weight[rows], weight)),
        "solved": (narrow.numel(), lambda: sparsegpt(narrow, gram, rule)),
        "svd_flops": (len(square) ** 3, lambda: squared_singular_values(square)),
    }
    kinds = [kind for kind, count in wanted._asdict().items() if count]
    return Work(**{kind: amount / _seconds(run) for kind in kinds for amount, run in [trials[kind]]})


def _seconds(run: Callable[[], object]) -> float:
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=SECONDS_PER_KIND).median)


def _norm_and_gate(inputs: Tensor) -> Tensor:
    """Do about as many elementwise operations as a block does between two products."""
    precise = inputs.float()
    normed = precise * torch.rsqrt(precise.square().mean(dim=-1, keepdim=True) + 1e-6)
    return torch.nn.functional.silu(inputs) * normed.to(inputs.dtype)
