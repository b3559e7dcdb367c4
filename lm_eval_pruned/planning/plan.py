"""Plan a pruning run: what a recipe will do to a model, as far as the architecture alone determines it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from transformers import PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.allocate import allocate, mean_target
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.allocations.signals.kinds import Needs, Signal
from lm_eval_pruned.pruning.artifacts.report import BlockReport, all_excluded, report_block
from lm_eval_pruned.pruning.fit import check_config, check_decoder
from lm_eval_pruned.pruning.model.decoder import SUBLAYERS, Excluded, Linear, find_decoder, leave_alone
from lm_eval_pruned.pruning.model.narrowing import Narrowing
from lm_eval_pruned.pruning.model.removal import Removal
from lm_eval_pruned.pruning.model.structure import Sublayer
from lm_eval_pruned.pruning.recipe import Recipe, count_to_drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be pruned, counted; fields that `pruning_report.json` has mean the same here.

    Attributes:
        zero_weights: zeros there will be; if the sparsities are not known before load, those of a uniform allocation.
        blocks: sparsities of the blocks; empty if they are not known before load.
        signal: the signal that decides the sparsities at load, else None.
        remaining_weights: parameters of the model afterwards; None where that depends on which blocks go.
        dropped: how many of the `model_blocks` are dropped.
        removed_blocks: which ones, where the settings alone decide.
    """

    config: Mapping[str, object]
    target_sparsity: float
    model_weights: int
    model_blocks: int
    prunable_weights: int
    prunable_by_part: Mapping[Sublayer, int]
    zero_weights: int
    blocks: Sequence[BlockReport]
    signal: Signal | None
    remaining_weights: int | None
    dropped: int
    removed_blocks: Sequence[int]
    excluded: Sequence[Excluded]

    def as_dict(self) -> dict[str, object]:
        """Return plain lists, dicts and numbers, ready for JSON."""
        return {**asdict(replace(self, signal=None)), "signal": self.signal.name if self.signal else None}


def make_plan(recipe: Recipe, model: PreTrainedModel) -> Plan:
    """Say what `recipe` will do to `model`, whose weights may be on the meta device.

    Raises:
        PrunedEvalError: the recipe does not fit the model; the error is that of `prune_model`.
    """
    check_config(recipe, model.config)
    decoder = leave_alone(find_decoder(model), recipe.exclude)
    blocks = len(decoder.blocks)
    dropped = count_to_drop(recipe.config, blocks) if recipe.drops_blocks else 0
    signal = recipe.allocation.signal if recipe.measures_signal else None
    if signal is not None and signal.needs == Needs.NOTHING:
        signal = None
    # Uniform stands in for an allocation whose signal is not measured yet.
    known = recipe if signal is None else replace(recipe, allocation=ALLOCATIONS["uniform"])
    named = recipe.known_drops(blocks) if dropped else ()
    change = check_decoder(recipe, decoder)
    targets = allocate(known, decoder, None).targets
    total = sum(parameter.numel() for parameter in model.parameters())
    remaining: int | None = None if dropped else total
    match change:
        case Narrowing():
            # All units are of one size, whichever will go.
            targets = change.targets(decoder, change.first(decoder))
            remaining = total - change.removed
        case Removal():
            # What blocks share stays with one that is left.
            left = change.parameters(model)
            targets = {one.name: float(getattr(one.module, one.parameter) not in left) for one in decoder.linears}
            remaining = change.remaining(model)
    scoped = [linear for linear in decoder.linears if linear.name in targets]
    zeros = {linear.name: _zeros(linear, known, targets[linear.name]) for linear in scoped}
    sizes = decoder.sizes
    by_sublayer = dict.fromkeys(SUBLAYERS, 0)
    for linear in scoped:
        by_sublayer[linear.sublayer] += sizes[linear.name]
    prunable = sum(by_sublayer.values())
    reached = dropped / blocks if dropped and not named else mean_target(targets, decoder)
    return Plan(
        config=recipe.effective(),
        target_sparsity=recipe.config.target if recipe.config.is_stated else reached,
        model_weights=total,
        model_blocks=blocks,
        prunable_weights=prunable,
        prunable_by_part=by_sublayer,
        zero_weights=prunable * dropped // blocks if dropped and not named else sum(zeros.values()),
        blocks=[]
        if (dropped and not named) or signal
        else [report_block(block, targets, zeros, sizes) for block in decoder.blocks],
        signal=signal,
        remaining_weights=remaining,
        dropped=dropped,
        removed_blocks=named,
        excluded=all_excluded(decoder, targets, recipe.config.scope),
    )


def _zeros(linear: Linear, recipe: Recipe, target: float) -> int:
    if recipe.method is None:
        return 0
    if recipe.drops_blocks:
        return int(target) * linear.weight.numel()
    if recipe.reshapes:
        return round(target * linear.weight.numel())
    try:
        return recipe.rule(target).zeros(*linear.weight.shape)
    except PruningError as error:
        raise PruningError(f"{linear.name}: {error}") from None
