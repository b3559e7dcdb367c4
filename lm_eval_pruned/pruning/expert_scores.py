"""Choose the experts that every mixture keeps: score the tokens that are routed to each, in the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.calibrator import visit_outputs
from lm_eval_pruned.pruning.calibration.counted import select_counted
from lm_eval_pruned.pruning.methods import ExpertMethod
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.experts import routed_arguments, unfused_experts
from lm_eval_pruned.pruning.model.narrowing import Narrowing, mixture_of


@torch.no_grad()
def kept_experts(decoder: Decoder, narrowing: Narrowing, windows: Windows, method: ExpertMethod) -> dict[str, Tensor]:
    """Return the experts that each mixture keeps, in order, by name of its block; of equal scores the first go.

    An expert that no token is routed to has a score of 0.

    Args:
        decoder: the dense model, whose blocks are onloaded one by one.
        narrowing: how many experts there are, and stay.
        windows: calibration token ids.
        method: scores the tokens of an expert.

    Raises:
        PruningError: a score is not finite.
    """
    mixtures = {block.index: mixture_of(block) for block in decoder.blocks if block.name in narrowing.first(decoder)}
    sums = {index: torch.zeros(narrowing.units, dtype=torch.float64) for index in mixtures}
    tokens = {index: torch.zeros(narrowing.units, dtype=torch.float64) for index in mixtures}
    routed: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def remember(index: int, module: nn.Module, arguments: tuple[Tensor, ...], keywords: Mapping[str, Tensor]) -> None:
        routed[index] = routed_arguments(module, arguments, keywords)

    def score(block: Block, before: Tensor, after: Tensor, counted: Tensor | None) -> None:
        del before, after
        if block.index not in mixtures:
            return
        module = mixtures[block.index]
        hidden, chosen, gates = (
            select_counted(one, counted, f"the router of {block.name}") for one in routed.pop(block.index)
        )
        for expert in sorted(set(chosen.flatten().tolist())):
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            # An expert on its own, with a gate of 1, returns its output.
            outputs = module.forward(hidden[rows], chosen[rows, places][:, None], torch.ones_like(gates[rows, :1]))
            sums[block.index][expert] += method.score(gates[rows, places], outputs).double().sum().cpu()
            tokens[block.index][expert] += len(rows)
        progress.update(1)

    handles = [
        module.register_forward_pre_hook(partial(remember, index), with_kwargs=True)
        for index, module in mixtures.items()
    ]
    try:
        with (
            progress_bar(len(mixtures) * len(windows), desc="experts", unit="window") as progress,
            unfused_experts(decoder.model),
        ):
            visit_outputs(decoder, decoder.blocks, windows, score)
    finally:
        for handle in handles:
            handle.remove()
    kept: dict[str, Tensor] = {}
    for block in decoder.blocks:
        if block.index in mixtures:
            scores = sums[block.index] / tokens[block.index].clamp(min=1)
            if not scores.isfinite().all():
                raise PruningError(f"what an expert of {block.name} writes is not finite: check the checkpoint")
            order = scores.argsort(stable=True)
            kept[block.name] = order[narrowing.units - narrowing.left :].sort().values
    return kept
