"""The three kinds of pruning method (score, solve, drop), their function types, and the registry of methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import METHODS_GROUP
from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.masks.rule import MaskRule, Ranking
from lm_eval_pruned.registry import Registry, source_digest, summary_of


@runtime_checkable
class Score(Protocol):
    """A pure function from a weight and the statistics of its inputs to scores; the lowest are removed."""

    def __call__(self, weight: Float[Tensor, "out in"], statistics: InputStatistics | None) -> Float[Tensor, "out in"]:
        """Scores [out in], in float32, from a weight [out in] in any dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreMethod:
    """A method that scores every weight and removes the lowest within each ranking.

    Attributes:
        summary: one line for `lm-eval-pruned list`.
        score: the score function.
        compare: whether scores are ranked within each row or within the matrix, unless the user says otherwise.
        needs_calibration: whether `score` reads statistics.
        by_rows: whether the scores of a row depend on no other row, so that a matrix can be scored in slices.
        source: digest of the package that defines it, see `registry.source_digest`.
    """

    summary: str
    score: Score
    compare: Ranking
    needs_calibration: bool
    by_rows: bool
    source: str | None = ""
    drops_blocks: ClassVar[bool] = False
    ranks: ClassVar[bool] = True
    solves: ClassVar[bool] = False


@runtime_checkable
class Solve(Protocol):
    """A pure function that chooses weights to remove and updates the others to compensate."""

    def __call__(
        self, weight: Float[Tensor, "out in"], gram: Float[Tensor, "in in"], rule: MaskRule
    ) -> Float[Tensor, "out in"]:
        """New weight [out in] in float32, exactly 0 where removed, from the sum of x x^T over the inputs [in in]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveMethod:
    """A method that solves for the remaining weights; fields as in `ScoreMethod`."""

    summary: str
    solve: Solve
    compare: Ranking = "matrix"
    source: str | None = ""
    needs_calibration: ClassVar[Literal[True]] = True
    by_rows: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = False
    ranks: ClassVar[bool] = False
    solves: ClassVar[bool] = True


@runtime_checkable
class Influence(Protocol):
    """A pure function from the hidden states before and after a block to how much the block changes each token."""

    def __call__(
        self, inputs: Float[Tensor, "*tokens hidden"], outputs: Float[Tensor, "*tokens hidden"]
    ) -> Float[Tensor, "*tokens"]:
        """Influence [*tokens], in float32; the blocks with the lowest mean are dropped.

        `*tokens` is [batch tokens], and has a dimension more in models with several hidden states for each token.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DropMethod:
    """A method that ranks blocks and drops whole ones; fields as in `ScoreMethod`."""

    summary: str
    influence: Influence
    source: str | None = ""
    compare: ClassVar[Ranking] = "matrix"
    needs_calibration: ClassVar[Literal[True]] = True
    by_rows: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = True
    ranks: ClassVar[bool] = False
    solves: ClassVar[bool] = False


Method = ScoreMethod | SolveMethod | DropMethod

METHODS: Registry[Method] = Registry("method", group=METHODS_GROUP)


def score_method(
    name: str, *, compare: Ranking, needs_calibration: bool, by_rows: bool = False
) -> Callable[[Score], Score]:
    """Register a score function; the first line of its docstring becomes its summary.

    Args:
        name: value of the argument `method`.
        compare: "row" or "matrix", the set within which scores are ranked.
        needs_calibration: whether the function reads the statistics of the inputs; it gets None otherwise.
        by_rows: whether each row is scored independently, which saves memory on large matrices.
    """

    def register(score: Score) -> Score:
        method = ScoreMethod(
            summary=summary_of(score),
            score=score,
            compare=compare,
            needs_calibration=needs_calibration,
            by_rows=by_rows,
            source=source_digest(score),
        )
        METHODS.add(name, method)
        return score

    return register


def solve_method(name: str) -> Callable[[Solve], Solve]:
    """Register a solve function; the first line of its docstring becomes its summary."""

    def register(solve: Solve) -> Solve:
        METHODS.add(name, SolveMethod(summary=summary_of(solve), solve=solve, source=source_digest(solve)))
        return solve

    return register


def drop_method(name: str) -> Callable[[Influence], Influence]:
    """Register an influence function; the first line of its docstring becomes its summary."""

    def register(influence: Influence) -> Influence:
        METHODS.add(
            name, DropMethod(summary=summary_of(influence), influence=influence, source=source_digest(influence))
        )
        return influence

    return register
