"""Kinds of pruning methods: score, solve, drop, position, search, width, expert; their function types, registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.config import METHODS_GROUP
from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.masks.rule import MaskRule, Ranking
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


class _Reshaping:
    """What all methods have in common that take blocks, channels or experts out of the model."""

    __slots__ = ()
    compare: ClassVar[Ranking] = "matrix"
    by_rows: ClassVar[bool] = False
    reshapes: ClassVar[bool] = True
    ranks: ClassVar[bool] = False
    solves: ClassVar[bool] = False


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
class DropMethod(_Reshaping):
    """A method that ranks blocks by their influence and drops whole ones; other fields as in `ScoreMethod`.

    Attributes:
        influence: the influence of a block, or of consecutive blocks, on each token.
        consecutive: whether consecutive blocks are dropped, those across which the influence on the last token of a
            window is lowest; otherwise each block has its own influence, and the last is never dropped.
    """

    summary: str
    influence: Influence
    consecutive: bool = False
    source: str | None = ""
    needs_calibration: ClassVar[Literal[True]] = True
    seeded: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = True


@runtime_checkable
class Choose(Protocol):
    """A pure function that chooses blocks to drop by their positions alone.

    One that is registered as `seeded` also takes `seed` by keyword.
    """

    def __call__(self, blocks: int, count: int) -> Collection[int]:
        """The `count` blocks to drop, of `blocks` counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionMethod(_Reshaping):
    """A method that drops blocks by their positions; fields as in `ScoreMethod`."""

    summary: str
    choose: Choose
    seeded: bool = False
    source: str | None = ""
    needs_calibration: ClassVar[Literal[False]] = False
    drops_blocks: ClassVar[bool] = True

    def chosen(self, blocks: int, count: int, seed: int) -> tuple[int, ...]:
        """Return the blocks to drop, in order."""
        return tuple(sorted(self.choose(blocks, count, **({"seed": seed} if self.seeded else {}))))


@runtime_checkable
class ScoreChannels(Protocol):
    """A pure function from the weight that reads the channels of an MLP and their norms to a score of each channel."""

    def __call__(self, weight: Float[Tensor, "out in"], statistics: InputStatistics) -> Float[Tensor, " in"]:
        """Scores [in], in float32; the channels with the lowest are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthMethod(_Reshaping):
    """A method that removes channels from the MLPs, as many from each; fields as in `ScoreMethod`."""

    summary: str
    score: ScoreChannels
    source: str | None = ""
    unit: ClassVar[Literal["channel"]] = "channel"
    needs_calibration: ClassVar[Literal[True]] = True
    seeded: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = False


@runtime_checkable
class ScoreTokens(Protocol):
    """A pure function from the gates and outputs of the tokens that were routed to an expert to a score of each."""

    def __call__(
        self, gates: Float[Tensor, " tokens"], outputs: Float[Tensor, "tokens hidden"]
    ) -> Float[Tensor, " tokens"]:
        """Scores [tokens], in float32; the experts with the lowest means are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertMethod(_Reshaping):
    """A method that removes experts, as many from each block that has some; fields as in `ScoreMethod`."""

    summary: str
    score: ScoreTokens
    source: str | None = ""
    unit: ClassVar[Literal["expert"]] = "expert"
    needs_calibration: ClassVar[Literal[True]] = True
    seeded: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = False


# Returns what leaving out some blocks costs.
Damage = Callable[[Collection[int]], float]


@runtime_checkable
class Search(Protocol):
    """A pure function that chooses blocks to drop by the damage that their absence does."""

    def __call__(self, blocks: int, count: int, damage: Damage) -> Collection[int]:
        """The `count` blocks to drop, of `blocks` counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchMethod(_Reshaping):
    """A method that leaves out blocks and runs the whole model to choose those to drop; fields as in `ScoreMethod`."""

    summary: str
    search: Search
    source: str | None = ""
    needs_calibration: ClassVar[Literal[True]] = True
    seeded: ClassVar[bool] = False
    drops_blocks: ClassVar[bool] = True


Method = ScoreMethod | SolveMethod | DropMethod | PositionMethod | SearchMethod | WidthMethod | ExpertMethod

METHODS: Registry[Method] = Registry("method", group=METHODS_GROUP)


def score_method(
    name: str, *, compare: Ranking, needs_calibration: bool, by_rows: bool = False, seeded: bool = False
) -> Callable[[Score], Score]:
    """Register a score function; the first line of its docstring becomes its summary.

    Args:
        name: value of the argument `method`.
        compare: "row" or "matrix", the set within which scores are ranked.
        needs_calibration: whether the function reads the statistics of the inputs; it gets None otherwise.
        by_rows: whether each row is scored independently, which saves memory on large matrices.
        seeded: whether the function draws numbers, and takes `seed` by keyword.
    """

    def register(score: Score) -> Score:
        method = ScoreMethod(
            summary=summary_of(score),
            score=score,
            compare=compare,
            needs_calibration=needs_calibration,
            by_rows=by_rows,
            seeded=seeded,
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


def drop_method(name: str, *, consecutive: bool = False) -> Callable[[Influence], Influence]:
    """Register an influence function; the first line of its docstring becomes its summary.

    Args:
        name: value of the argument `method`.
        consecutive: whether it drops consecutive blocks, see `DropMethod`.
    """

    def register(influence: Influence) -> Influence:
        method = DropMethod(
            summary=summary_of(influence),
            influence=influence,
            consecutive=consecutive,
            source=source_digest(influence),
        )
        METHODS.add(name, method)
        return influence

    return register


def position_method(name: str, *, seeded: bool = False) -> Callable[[Choose], Choose]:
    """Register a function that chooses blocks; the first line of its docstring becomes its summary."""

    def register(choose: Choose) -> Choose:
        method = PositionMethod(summary=summary_of(choose), choose=choose, seeded=seeded, source=source_digest(choose))
        METHODS.add(name, method)
        return choose

    return register


def width_method(name: str) -> Callable[[ScoreChannels], ScoreChannels]:
    """Register a function that scores channels; the first line of its docstring becomes its summary."""

    def register(score: ScoreChannels) -> ScoreChannels:
        METHODS.add(name, WidthMethod(summary=summary_of(score), score=score, source=source_digest(score)))
        return score

    return register


def expert_method(name: str) -> Callable[[ScoreTokens], ScoreTokens]:
    """Register a function that scores the tokens of an expert; the first line of its docstring becomes its summary."""

    def register(score: ScoreTokens) -> ScoreTokens:
        METHODS.add(name, ExpertMethod(summary=summary_of(score), score=score, source=source_digest(score)))
        return score

    return register


def search_method(name: str) -> Callable[[Search], Search]:
    """Register a function that searches for blocks; the first line of its docstring becomes its summary."""

    def register(search: Search) -> Search:
        METHODS.add(name, SearchMethod(summary=summary_of(search), search=search, source=source_digest(search)))
        return search

    return register
