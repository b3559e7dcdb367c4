"""Rates: how much of each kind of work this machine does in a second, and the time that pruning will take by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from lm_eval_pruned.planning.memory import footprint
from lm_eval_pruned.planning.work import Work, phases, seconds, total
from lm_eval_pruned.pruning.artifacts.report import peak_memory
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods.sparsegpt import BLOCK, sparsegpt
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape
from lm_eval_pruned.pruning.recipe import Recipe

# Large enough to keep a device busy, small enough for a glance.
LARGEST_SIDE = 1024
SECONDS_A_KIND = 0.1


class Estimate(NamedTuple):
    """Bytes by what holds them, seconds by phase, and the work a second that these were derived from."""

    memory_bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    rates: Work


def estimate_here(
    recipe: Recipe,
    architecture: Architecture,
    windows: WindowShape,
    *,
    dtype: torch.dtype,
    stored: torch.dtype,
    device: str,
) -> Estimate:
    """Estimate memory and time on this machine; `stored` is the dtype of the checkpoint, `dtype` that of the model."""
    held = footprint(recipe, architecture, windows)
    if torch.device(device).type == "cpu":
        is_whole = architecture.outside is None
        converted = {"stored": architecture.weights * stored.itemsize} if is_whole and stored != dtype else {}
        held = {"process": peak_memory(torch.device("cpu")), **converted, **held}
    else:
        # Those are kept by the CPU, as is all of the above: weights reach a GPU converted.
        held.pop("masks", None)
    works = phases(recipe, architecture, windows)
    matrices = [matrix for block in architecture.blocks for matrix in block.matrices]
    largest = max(matrices, key=lambda matrix: matrix.rows * matrix.columns)
    rates = measure_rates(
        total(works.values()),
        recipe.rule(recipe.config.target),
        tokens=windows.seqlen,
        rows=largest.rows,
        columns=largest.columns,
        dtype=dtype,
        device=device,
    )
    return Estimate(held, {phase: seconds(work, rates) for phase, work in works.items()}, rates)


@torch.no_grad()
def measure_rates(
    wanted: Work, rule: MaskRule, *, tokens: int, rows: int, columns: int, dtype: torch.dtype, device: str
) -> Work:
    """Measure the rates of the kinds of work that `wanted` has any of; the others are 0.

    `tokens`, `rows` and `columns` are those of a typical product, and `rule` says how weights are ranked.
    """
    tokens, rows, columns = (min(side, LARGEST_SIDE) for side in (max(tokens, 1), rows, columns))
    size = rule.pattern[1] if rule.pattern else 1
    columns -= columns % size
    generator = torch.Generator(device).manual_seed(0)

    def random(*sides: int) -> Tensor:
        return torch.rand(sides, generator=generator, device=device)

    inputs, weight = random(tokens, columns), random(rows, columns)
    inputs_in_dtype, weight_in_dtype = inputs.to(dtype), weight.to(dtype)
    # So few columns that all are eliminated one by one, none by a product.
    few = min(columns, max(size, BLOCK - BLOCK % size))
    narrow, gram = weight[:, :few].contiguous(), torch.eye(few, device=device)
    square = random(min(rows, columns), min(rows, columns))
    flops = 2 * tokens * rows * columns
    tried: dict[str, tuple[float, Callable[[], object]]] = {
        "products": (flops, lambda: torch.nn.functional.linear(inputs_in_dtype, weight_in_dtype)),
        "precise": (flops, lambda: torch.nn.functional.linear(inputs, weight)),
        "elements": (inputs.numel(), lambda: _between(inputs_in_dtype)),
        "ranked": (weight.numel(), lambda: rule.keep_by_rows(lambda some: weight[some], weight)),
        "eliminated": (narrow.numel(), lambda: sparsegpt(narrow, gram, rule)),
        "decomposed": (len(square) ** 3, lambda: torch.linalg.svdvals(square)),
    }
    kinds = [kind for kind, count in wanted._asdict().items() if count]
    return Work(**{kind: amount / _seconds(do) for kind in kinds for amount, do in [tried[kind]]})


def _seconds(do: Callable[[], object]) -> float:
    timer = Timer("do()", globals={"do": do}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=SECONDS_A_KIND).median)


def _between(inputs: Tensor) -> Tensor:
    """Do about as much an element as blocks do between their products: a norm and a gate."""
    precise = inputs.float()
    normed = precise * torch.rsqrt(precise.square().mean(dim=-1, keepdim=True) + 1e-6)
    return torch.nn.functional.silu(inputs) * normed.to(inputs.dtype)
