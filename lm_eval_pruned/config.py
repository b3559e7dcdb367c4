"""Settings of pruning and of the pruned model: dataclasses that check their values, before any weight is read."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Literal, get_args, get_type_hints

from lm_eval_pruned.errors import ArgumentError, unknown_name
from lm_eval_pruned.registry import plugin_names, registered_names

# Methods that drop whole blocks, methods that remove channels or experts from each, and all methods that ship.
BlockMethod = Literal["shortgpt", "angular", "greedy", "reverse", "random-blocks"]
UnitMethod = Literal["width", "reap"]
Method = Literal["none", "magnitude", "wanda", "ria", "sparsegpt", "random", UnitMethod, BlockMethod]
Allocation = Literal["uniform", "owl", "layerif", "alphapruning", "dlp", "arithmetic", "search"]
Scope = Literal["all", "attn", "mlp"]
Compare = Literal["auto", "row", "matrix"]
Propagate = Literal["pruned", "dense"]
CalibTokens = Literal["all", "thinking"]
GreedyBy = Literal["perplexity", "kl"]
Direction = Literal["protect", "prune"]
LayerIFGroups = Literal["module", "block"]
Preset = Literal["none", "paper"]
# fmt: off
Thinking = Literal[
    "auto", "qwen3", "s1", "deepseek-r1", "think", "harmony", "mistral", "kimi-vl", "seed-oss", "gemma4", "command-a",
    "exaone-deep", "apertus", "apriel", "granite", "tiny", "none",
]
# fmt: on

# Entry point groups through which other packages add methods and allocations.
METHODS_GROUP = "lm_eval_pruned.methods"
ALLOCATIONS_GROUP = "lm_eval_pruned.allocations"

# The value of `calib` for the model's own chains of thought.
TRACES = "traces"

_PATTERN = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """Settings that decide which weights are removed; its fields are `model_args` of `pruned-hf`.

    `sparsity` is the fraction of the prunable weights removed, 0 <= sparsity < 1. `blocks` may be given as a list of
    numbers, and is then text. `calib` of `None` means `c4`, or the
    calibration windows that a bundled model brings.

    Raises:
        ArgumentError: a value is out of range or contradicts another one.
        UnknownNameError: a value is not one of the named choices.

    Example:
        >>> PruneConfig(method="wanda", sparsity=0.2).pattern
        'unstructured'
        >>> PruneConfig(method="wanda", sparsity=1.5)
        Traceback (most recent call last):
        lm_eval_pruned.errors.ArgumentError: sparsity=1.5 is not a fraction of weights: give 0 <= sparsity < 1
    """

    method: str = "none"
    alloc: str = "uniform"
    sparsity: float | None = None
    pattern: str = "unstructured"
    scope: Scope = "all"
    exclude: str | None = None
    num_blocks: int | None = None
    blocks: str | None = None
    compare: Compare = "auto"
    propagate: Propagate = "pruned"
    calib: str | None = None
    calib_samples: int = 128
    calib_seqlen: int = 2048
    calib_seed: int = 0
    calib_tokens: CalibTokens = "all"
    random_seed: int = 0
    greedy_by: GreedyBy = "perplexity"
    owl_m: float = 7.0
    owl_lambda: float = 0.08
    alphapruning_epsilon: float = 0.3
    dlp_alpha: float = 0.15
    arithmetic_slope: float = 0.01
    search_evaluations: int = 18
    search_seed: int = 0
    layerif_min: float = 0.05
    layerif_max: float = 0.40
    layerif_direction: Direction = "protect"
    layerif_groups: LayerIFGroups = "module"
    layerif_scores: str | None = None
    masks: str | None = None
    preset: Preset = "none"

    def __post_init__(self) -> None:
        if self.blocks is not None:
            object.__setattr__(self, "blocks", "+".join(map(str, read_blocks(self.blocks))))
        check_choices(self)
        _check_registered("method", self.method, get_args(Method), METHODS_GROUP)
        if not self.is_listed:
            _check_registered("alloc", self.alloc, get_args(Allocation), ALLOCATIONS_GROUP, "a path to a .json list")
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ArgumentError(f"sparsity={self.sparsity} is not a fraction of weights: give 0 <= sparsity < 1")
        self._check_exclude()
        self._check_pattern()
        self._check_dense()
        for name in ("calib_samples", "calib_seqlen", "search_evaluations"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}={getattr(self, name)} is too small: give at least 1")
        if self.calib_tokens == "thinking" and not is_traces(self.calib):
            given = f"calib={self.calib}" if self.calib else "the default calibration text"
            raise ArgumentError(
                f"calib_tokens=thinking counts what the model wrote after a prompt, and {given} has no prompts: give "
                f"calib={TRACES}, or calib_tokens=all"
            )
        if self.random_seed < 0:
            # Python's generator would draw for -1 what it draws for 1.
            raise ArgumentError(f"random_seed={self.random_seed} is negative: give a whole number from 0")
        if not 0 <= self.layerif_min < self.layerif_max <= 1:
            raise ArgumentError(
                f"layerif_min={self.layerif_min}, layerif_max={self.layerif_max}: give 0 <= min < max <= 1"
            )
        if self.layerif_scores and self.alloc != "layerif":
            raise ArgumentError(
                f"layerif_scores={self.layerif_scores} belongs to alloc=layerif: add that, or leave the scores out"
            )
        if not (0 < self.owl_m < math.inf and 0 <= self.owl_lambda <= 1):
            raise ArgumentError(f"owl_m={self.owl_m}, owl_lambda={self.owl_lambda}: give m > 0 and 0 <= lambda <= 1")
        for name in ("alphapruning_epsilon", "dlp_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"{name}={getattr(self, name)} is out of range: give 0 <= {name} <= 1")
        if not -1 <= self.arithmetic_slope <= 1:
            raise ArgumentError(f"arithmetic_slope={self.arithmetic_slope} is out of range: give -1 <= slope <= 1")

    def _check_exclude(self) -> None:
        try:
            re.compile(self.exclude or "")
        except re.error as error:
            raise ArgumentError(
                f"exclude={self.exclude} is not a regular expression ({error}): give one that is found in the names of "
                r"matrices, such as 'layers\.31\.mlp\.up_proj'"
            ) from None
        if self.exclude == "":
            raise ArgumentError(
                "exclude is empty, which every name matches: give a regular expression, or leave it out"
            )

    def _check_dense(self) -> None:
        if self.method == "none":
            amounts = {
                "pattern": self.n_m and self.pattern,
                "alloc": self.is_listed and self.alloc,
                "sparsity": self.sparsity,
                "num_blocks": self.num_blocks,
                "blocks": self.blocks,
            }
            if given := next((f"{name}={value}" for name, value in amounts.items() if value), ""):
                raise ArgumentError(f"{given} was given without a method: add method=wanda (or another), or drop it")

    def _check_pattern(self) -> None:
        if self.pattern == "unstructured":
            return
        match = _PATTERN.fullmatch(self.pattern)
        if match is None or not 0 < int(match[1]) < int(match[2]):
            raise ArgumentError(f"pattern={self.pattern!r} is neither unstructured nor N:M with 0 < N < M")
        if self.sparsity is not None and abs(self.sparsity - self.target) > 1e-9:
            raise ArgumentError(
                f"pattern={self.pattern} keeps {match[1]} of {match[2]} weights, which is sparsity={self.target}: "
                f"leave sparsity={self.sparsity} out"
            )
        if self.alloc != "uniform" or self.compare != "auto":
            given = f"alloc={self.alloc}" if self.alloc != "uniform" else f"compare={self.compare}"
            raise ArgumentError(f"pattern={self.pattern} fixes the sparsity of every group: leave {given} out")

    @property
    def is_stated(self) -> bool:
        """Whether the settings alone determine the fraction of weights removed."""
        return self.sparsity is not None or self.n_m is not None

    @property
    def named_blocks(self) -> tuple[int, ...]:
        """The blocks to drop that the user named, in order; () if a method is to find them."""
        return () if self.blocks is None else read_blocks(self.blocks)

    @property
    def is_listed(self) -> bool:
        """Whether `alloc` names a file with one sparsity for each block, which makes `sparsity` optional."""
        return self.alloc.endswith(".json")

    @property
    def n_m(self) -> tuple[int, int] | None:
        """N and M of an N:M pattern: of M neighbours in a row, N stay; None without a pattern."""
        match = _PATTERN.fullmatch(self.pattern)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def target(self) -> float:
        """The fraction of weights to remove; 0 for the dense baseline."""
        if self.n_m and self.method != "none":
            return 1 - self.n_m[0] / self.n_m[1]
        return self.sparsity or 0.0

    def as_dict(self) -> dict[str, object]:
        """Every effective setting under its public name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings of how the pruned model is run: thinking markers, templates, folders; none changes a weight."""

    thinking: Thinking = "auto"
    auto_chat_template: bool = True
    share_traces: bool = True
    artifacts: str | None = None
    responses: str = "off"

    def __post_init__(self) -> None:
        check_choices(self)


def is_traces(calib: str | None) -> bool:
    """Return whether `calib` names the model's own chains of thought, about default questions or those of a file.

    Example:
        >>> is_traces("traces"), is_traces("traces:questions.jsonl"), is_traces("c4"), is_traces(None)
        (True, True, False, False)
    """
    return calib is not None and (calib == TRACES or calib.startswith(f"{TRACES}:"))


def field_names(settings: type) -> set[str]:
    """Names of the fields of a dataclass."""
    return {field.name for field in fields(settings)}


@cache
def _hints(settings: type) -> dict[str, object]:
    return get_type_hints(settings)


def choices(settings: type, name: str) -> tuple[str, ...]:
    """Return the values of a field that ship with the package, or () if any value is allowed."""
    if name == "method":
        return get_args(Method)
    hint = _hints(settings)[name]
    return get_args(hint) if getattr(hint, "__origin__", None) is Literal else ()


def check_choices(settings: PruneConfig | RunConfig) -> None:
    """Raise UnknownNameError if a field with a closed list of values holds another one."""
    for field in fields(settings):
        allowed, value = choices(type(settings), field.name), getattr(settings, field.name)
        if field.name != "method" and allowed and value not in allowed:
            raise unknown_name(field.name, value, allowed)


def _check_registered(what: str, given: str, shipped: Collection[str], group: str, *others: str) -> None:
    """Raise UnknownNameError for a name that neither ships nor is added by another package; nothing is imported."""
    if given not in shipped and given not in (added := [*plugin_names(group), *registered_names(what)]):
        raise unknown_name(what, given, [*shipped, *added, *others])


def read_blocks(given: object) -> tuple[int, ...]:
    """Return the block numbers of `blocks`, in order.

    Args:
        given: text such as "16+17", "16-19", "3+16-19" (commas or blanks are read like +), a number, or a list.

    Raises:
        ArgumentError: it is none of these, or names a block twice.

    Example:
        >>> read_blocks("16-18+2"), read_blocks([17, 16])
        ((2, 16, 17, 18), (16, 17))
    """
    items = given if isinstance(given, list | tuple) else re.split(r"[+,\s]+", str(given).strip("[] "))
    found: list[int] = []
    for item in items:
        match = None if isinstance(item, bool) else re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(item))
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ArgumentError(
                f"blocks={given!r} does not name blocks: give numbers from 0 such as blocks=16+17, a range such as "
                "blocks=16-19, or a list"
            )
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if twice := sorted({index for index in found if found.count(index) > 1}):
        raise ArgumentError(f"blocks={given!r} names block {twice[0]} twice: name each block once")
    if not found:
        raise ArgumentError(f"blocks={given!r} names no block: give numbers from 0 such as blocks=16+17")
    return tuple(sorted(found))
