"""A plan: what a recipe will do to a model, as far as the model's architecture alone can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.allocate import allocate, mean_target
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.allocations.kinds import Signal
from lm_eval_pruned.pruning.artifacts.report import BlockReport, all_excluded, report_block
from lm_eval_pruned.pruning.engine import check_supported
from lm_eval_pruned.pruning.methods import DropMethod
from lm_eval_pruned.pruning.model.decoder import Excluded, Linear, Part, find_decoder
from lm_eval_pruned.pruning.model.drop_blocks import count_to_drop
from lm_eval_pruned.pruning.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done, counted; names that `pruning_report.json` has mean the same here.

    Where the sparsities are not known before load, `blocks` is empty, `signal` names what decides them, and
    `zero_weights` counts what would go if all blocks lost the same. `dropped` is how many of the `model_blocks` go.
    """

    config: Mapping[str, object]
    target_sparsity: float
    model_weights: int
    model_blocks: int
    prunable_weights: int
    prunable_by_part: Mapping[Part, int]
    zero_weights: int
    blocks: Sequence[BlockReport]
    signal: Signal | None
    dropped: int
    excluded: Sequence[Excluded]


def make_plan(recipe: Recipe, model: PreTrainedModel) -> Plan:
    """Say what `recipe` will do to `model`, whose weights may be on the meta device.

    Raises:
        PrunedEvalError: the recipe does not fit the model; the error is that of `prune_model`.
    """
    check_supported(recipe, model)
    decoder = find_decoder(model)
    blocks = len(decoder.blocks)
    dropped = count_to_drop(recipe.config, blocks) if isinstance(recipe.method, DropMethod) else 0
    is_given = recipe.scores is not None or recipe.allocation.signal == "none"
    # Until a signal is measured, uniform stands in for the allocation that reads it.
    known = recipe if is_given else replace(recipe, allocation=ALLOCATIONS["uniform"])
    signal = None if is_given or recipe.method is None else recipe.allocation.signal
    targets = allocate(known, model, decoder, None).targets
    scoped = [linear for block in decoder.blocks for linear in block.linears if linear.name in targets]
    zeros = {linear.name: _zeros(linear, known, targets[linear.name]) for linear in scoped}
    by_part: dict[Part, int] = {"attn": 0, "mlp": 0}
    for linear in scoped:
        by_part[linear.part] += linear.weight.numel()
    prunable = sum(by_part.values())
    reached = dropped / blocks if dropped else mean_target(targets, decoder)
    return Plan(
        config=recipe.effective(),
        target_sparsity=recipe.config.target if recipe.config.is_stated else reached,
        model_weights=sum(parameter.numel() for parameter in model.parameters()),
        model_blocks=blocks,
        prunable_weights=prunable,
        prunable_by_part=by_part,
        zero_weights=prunable * dropped // blocks if dropped else sum(zeros.values()),
        blocks=[] if dropped or signal else [report_block(block, targets, zeros) for block in decoder.blocks],
        signal=signal,
        dropped=dropped,
        excluded=all_excluded(decoder, targets, recipe.config.scope),
    )


def _zeros(linear: Linear, recipe: Recipe, target: float) -> int:
    if recipe.method is None:
        return 0
    try:
        return recipe.rule(target).zeros(*linear.weight.shape)
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None
