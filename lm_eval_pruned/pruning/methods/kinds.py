"""Registry of pruning methods, and a decorator for each kind of method that registers a function."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, Protocol, TypedDict, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import METHODS_GROUP
from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.masks.rule import MaskRule, Ranking
from lm_eval_pruned.pruning.methods.reshaping import (
    Choose,
    DropMethod,
    ExpertMethod,
    Influence,
    PositionMethod,
    ScoreChannels,
    ScoreTokens,
    Search,
    SearchMethod,
    WidthMethod,
)
from lm_eval_pruned.registry import Registry, source_digest, summary_of


@runtime_checkable
class Score(Protocol):
    """A pure function from a weight and the statistics of its inputs to scores; the lowest are removed.

    One that is registered as `seeded` also takes `seed` by keyword.
    """

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
        seeded: whether `score` draws numbers.
        source: digest of the package that defines it, see `registry.source_digest`.
    """

    summary: str
    score: Score
    compare: Ranking
    needs_calibration: bool
    by_rows: bool
    seeded: bool = False
    source: str | None = ""
    drops_blocks: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    ranks: ClassVar[bool] = True
    solves: ClassVar[bool] = False

    def with_seed(self, seed: int, matrix: str) -> ScoreMethod:
        """Return the method with the seed of a matrix bound, which follows from `seed` and the name of the matrix."""
        if not self.seeded:
            return self
        digest = hashlib.sha256(f"{seed} {matrix}".encode()).digest()
        seeded: Callable[..., Float[Tensor, "out in"]] = self.score
        return replace(self, score=partial(seeded, seed=int.from_bytes(digest[:4], "big")))


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
    seeded: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    ranks: ClassVar[bool] = False
    solves: ClassVar[bool] = True


Method = ScoreMethod | SolveMethod | DropMethod | PositionMethod | SearchMethod | WidthMethod | ExpertMethod
F = TypeVar("F", bound=Callable[..., object])

METHODS: Registry[Method] = Registry("method", group=METHODS_GROUP)


def score_method(
    name: str, *, compare: Ranking, needs_calibration: bool, by_rows: bool = False, seeded: bool = False
) -> Callable[[Score], Score]:
    """Register a score function.

    Args:
        name: value of the argument `method`.
        compare: "row" or "matrix", the set within which scores are ranked.
        needs_calibration: whether the function reads the statistics of the inputs; it gets None otherwise.
        by_rows: whether each row is scored independently, which saves memory on large matrices.
        seeded: whether the function draws numbers, and takes `seed` by keyword.
    """

    def method(score: Score, about: _About) -> ScoreMethod:
        return ScoreMethod(
            score=score, compare=compare, needs_calibration=needs_calibration, by_rows=by_rows, seeded=seeded, **about
        )

    return _register(name, method)


def solve_method(name: str) -> Callable[[Solve], Solve]:
    """Register a solve function."""
    return _register(name, lambda solve, about: SolveMethod(solve=solve, **about))


def drop_method(name: str, *, consecutive: bool = False) -> Callable[[Influence], Influence]:
    """Register an influence function.

    Args:
        name: value of the argument `method`.
        consecutive: whether it drops consecutive blocks, see `DropMethod`.
    """
    return _register(name, lambda one, about: DropMethod(influence=one, consecutive=consecutive, **about))


def position_method(name: str, *, seeded: bool = False) -> Callable[[Choose], Choose]:
    """Register a function that chooses blocks."""
    return _register(name, lambda choose, about: PositionMethod(choose=choose, seeded=seeded, **about))


def search_method(name: str) -> Callable[[Search], Search]:
    """Register a function that searches for blocks."""
    return _register(name, lambda search, about: SearchMethod(search=search, **about))


def width_method(name: str) -> Callable[[ScoreChannels], ScoreChannels]:
    """Register a function that scores channels."""
    return _register(name, lambda score, about: WidthMethod(score=score, **about))


def expert_method(name: str) -> Callable[[ScoreTokens], ScoreTokens]:
    """Register a function that scores the tokens of an expert."""
    return _register(name, lambda score, about: ExpertMethod(score=score, **about))


class _About(TypedDict):
    """Fields of every method: its summary for `lm-eval-pruned list`, and the digest of its source."""

    summary: str
    source: str | None


def _register(name: str, method: Callable[[F, _About], Method]) -> Callable[[F], F]:
    """Return a decorator that registers the method of a function, whose docstring's first line is the summary."""

    def register(function: F) -> F:
        METHODS.add(name, method(function, {"summary": summary_of(function), "source": source_digest(function)}))
        return function

    return register
