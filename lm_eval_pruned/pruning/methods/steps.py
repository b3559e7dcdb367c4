"""How a method prunes one Linear: the statistic it collects, and the mask or the solution that it applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputGram, InputNorm, InputStatistics, Statistic
from lm_eval_pruned.pruning.masks.packing import apply_mask, pack
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods.kinds import Method, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.model.decoder import Linear

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class LinearStep(Generic[Result]):
    """How one Linear is pruned: the statistic of its inputs that is collected, and the function that prunes it.

    `prune` changes the weight in place and returns what an artifact stores of it: a packed mask, or the new weight.
    """

    collect: Callable[[], Statistic[Result]]
    prune: Callable[[Linear, Result | None, MaskRule], Tensor]


def linear_step(method: Method, seed: int) -> LinearStep[Any]:
    """Return how a method prunes one Linear; `seed` is that of methods that draw numbers."""
    match method:
        case ScoreMethod():
            return LinearStep(InputNorm, _by_score(method, seed))
        case SolveMethod():
            return LinearStep(InputGram, _by_solving(method))
        case _:
            raise AssertionError("a method that drops blocks prunes no Linear")


def _by_score(method: ScoreMethod, seed: int) -> Callable[[Linear, InputStatistics | None, MaskRule], Tensor]:
    """Set the lowest-scored weights of a Linear to zero and return its packed mask.

    The inputs of an expert that no calibration token was routed to are taken to have equal norms.
    """

    def prune(linear: Linear, statistics: InputStatistics | None, rule: MaskRule) -> Tensor:
        weight = linear.weight.detach()
        known = statistics or InputStatistics(norm=weight.new_ones(weight.shape[1], dtype=torch.float32))
        score = method.with_seed(seed, linear.name).score
        if method.by_rows:
            keep = rule.keep_by_rows(lambda rows: score(weight[rows], known), weight)
        else:
            keep = rule.keep(score(weight, known))
        apply_mask(weight, keep)
        return pack(linear.as_stored(keep))

    return prune


def _by_solving(method: SolveMethod) -> Callable[[Linear, Tensor | None, MaskRule], Tensor]:
    """Replace the weight of a Linear by its solution and return it.

    The inputs of an expert that no calibration token was routed to are taken to be independent, with equal norms.
    """

    @torch.no_grad()
    def prune(linear: Linear, gram: Tensor | None, rule: MaskRule) -> Tensor:
        weight = linear.weight
        known = torch.eye(weight.shape[1], device=weight.device) if gram is None else gram
        weight.copy_(method.solve(weight, known, rule))
        return linear.as_stored(weight.detach())

    return prune
