"""Kinds of methods that remove blocks, channels or experts from a model, and the types of their functions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.masks.rule import Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshaping:
    """What all methods have in common that take blocks, channels or experts out; fields as in `ScoreMethod`."""

    summary: str
    source: str | None = ""
    needs_calibration: ClassVar[bool] = True
    drops_blocks: ClassVar[bool] = True
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
class DropMethod(Reshaping):
    """A method that ranks blocks by their influence and drops whole ones.

    Attributes:
        influence: the influence of a block, or of consecutive blocks, on each token.
        consecutive: whether consecutive blocks are dropped, those across which the influence on the last token of a
            window is lowest; otherwise each block has its own influence, and the last is never dropped.
    """

    influence: Influence
    consecutive: bool = False
    seeded: ClassVar[bool] = False


@runtime_checkable
class Choose(Protocol):
    """A pure function that chooses blocks to drop by their positions alone.

    One that is registered as `seeded` also takes `seed` by keyword.
    """

    def __call__(self, blocks: int, count: int) -> Collection[int]:
        """The `count` blocks to drop, of `blocks` counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionMethod(Reshaping):
    """A method that drops blocks by their positions."""

    choose: Choose
    seeded: bool = False
    needs_calibration: ClassVar[bool] = False

    def chosen(self, blocks: int, count: int, seed: int) -> tuple[int, ...]:
        """Return the blocks to drop, in order."""
        return tuple(sorted(self.choose(blocks, count, **({"seed": seed} if self.seeded else {}))))


@runtime_checkable
class ScoreChannels(Protocol):
    """A pure function from the weight that reads the channels of an MLP and their norms to a score of each channel."""

    def __call__(self, weight: Float[Tensor, "out in"], statistics: InputStatistics) -> Float[Tensor, " in"]:
        """Scores [in], in float32; the channels with the lowest are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthMethod(Reshaping):
    """A method that removes channels from the MLPs, as many from each."""

    score: ScoreChannels
    unit: ClassVar[Literal["channel"]] = "channel"
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
class ExpertMethod(Reshaping):
    """A method that removes experts, as many from each block that has some."""

    score: ScoreTokens
    unit: ClassVar[Literal["expert"]] = "expert"
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
class SearchMethod(Reshaping):
    """A method that leaves out blocks and runs the whole model to choose those to drop."""

    search: Search
    seeded: ClassVar[bool] = False
