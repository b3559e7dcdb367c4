"""The kinds of pruning method and the registry they enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.masks.rule import Group, MaskRule
from lm_eval_pruned.registry import Registry


@runtime_checkable
class Score(Protocol):
    """A pure function from a weight and the statistics of its inputs to a score of the same shape; low scores go."""

    def __call__(self, weight: Float[Tensor, "out in"], statistics: InputStatistics | None) -> Float[Tensor, "out in"]:
        """Scores [out in], in float32, from a weight [out in] in any dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMethod:
    """A method that scores every weight and removes the lowest within a group.

    With `by_rows` the scores of a row depend on no other row: a matrix is then scored some rows at a time.
    """

    summary: str
    score: Score
    compare: Group
    needs_calibration: bool
    by_rows: bool


@runtime_checkable
class Solve(Protocol):
    """A pure function that chooses weights to remove and changes the others to make up for them."""

    def __call__(
        self, weight: Float[Tensor, "out in"], gram: Float[Tensor, "in in"], rule: MaskRule
    ) -> Float[Tensor, "out in"]:
        """New weight [out in] in float32, exactly 0 where removed, from the sum of x x^T over the inputs [in in]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveMethod:
    """A method that solves for the weights that stay."""

    summary: str
    solve: Solve
    compare: Group = "matrix"
    needs_calibration: Literal[True] = True


@runtime_checkable
class Influence(Protocol):
    """A pure function from the hidden states before and behind a block to how much each token was changed."""

    def __call__(
        self, inputs: Float[Tensor, "batch tokens hidden"], outputs: Float[Tensor, "batch tokens hidden"]
    ) -> Float[Tensor, "batch tokens"]:
        """Influence [batch tokens], in float32; the blocks whose mean is lowest go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropMethod:
    """A method that ranks blocks and drops whole ones."""

    summary: str
    influence: Influence
    needs_calibration: Literal[True] = True


Method = ScoreMethod | SolveMethod | DropMethod

METHODS: Registry[Method] = Registry("method")


def score_method(
    name: str, *, compare: Group, needs_calibration: bool, by_rows: bool = False
) -> Callable[[Score], Score]:
    """Register a score function; the first line of its docstring becomes its summary."""

    def enter(score: Score) -> Score:
        method = ScoreMethod(
            summary=_summary(score),
            score=score,
            compare=compare,
            needs_calibration=needs_calibration,
            by_rows=by_rows,
        )
        METHODS.add(name, method)
        return score

    return enter


def solve_method(name: str) -> Callable[[Solve], Solve]:
    """Register a solve function; the first line of its docstring becomes its summary."""

    def enter(solve: Solve) -> Solve:
        METHODS.add(name, SolveMethod(summary=_summary(solve), solve=solve))
        return solve

    return enter


def drop_method(name: str) -> Callable[[Influence], Influence]:
    """Register an influence function; the first line of its docstring becomes its summary."""

    def enter(influence: Influence) -> Influence:
        METHODS.add(name, DropMethod(summary=_summary(influence), influence=influence))
        return influence

    return enter


def _summary(function: object) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]
