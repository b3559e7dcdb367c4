"""Check a run before any weight is loaded: its generation kwargs, samples and seeds against the tasks and the context.

Each check needs only what is certain without the prompts; `reasoning.preparing` checks the rest with them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from transformers import GenerationConfig, GenerationMixin, PretrainedConfig

from lm_eval_pruned.errors import ArgumentError, BudgetError
from lm_eval_pruned.grading.answer_kinds import check_kind
from lm_eval_pruned.pruning.checkpoint.resolve import model_class
from lm_eval_pruned.reasoning.backends.kv_batch import cache_name, no_cache
from lm_eval_pruned.reasoning.kwarg_names import ALIASES, check_ordinary_names
from lm_eval_pruned.reasoning.settings import (
    BudgetSettings,
    check_ordinary_values,
    is_budgeted,
    parse_gen_kwargs,
)

logger = logging.getLogger(__name__)

USE_CACHE = (
    "--use_cache finds an answer by its request and not by the model that gave it: leave it out, and add "
    "responses=DIR to --model_args, which knows the model, the pruning and the sample"
)
CACHE_REQUESTS = (
    "--cache_requests finds the requests of a task by its name and not by its budget, generation kwargs or number of "
    "samples: leave it out, as building requests takes seconds, or give --cache_requests refresh"
)

# Metadata of generated questions, and how alike a name must be to one of ours to be a slip of the hand.
GENERATED_OPTIONS = ("examples", "form")
_MISSPELT = 0.8
# Fields of a config that hold the longest context, in the harness's order.
_CONTEXT = ("n_positions", "max_position_embeddings", "n_ctx")


class Generation(NamedTuple):
    """How one task generates: its name, its effective generation kwargs, and its samples for each question."""

    task: str
    kwargs: Mapping[str, object]
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model allows; `context` and `names`, the kwargs its library knows, are None where unknown.

    `without_cache` is the name of its class if that takes no KV cache.
    """

    context: int | None = None
    names: Collection[str] | None = None
    without_cache: str | None = None


def check_generation(generation: Generation, limits: Limits) -> BudgetSettings | None:
    """Check how a task generates, and return its settings if it has a budget.

    Raises:
        ArgumentError: a kwarg is unknown or out of range, or several samples would all be the same text.
        BudgetError: the budget does not fit the context, whatever the prompt, or the model takes no KV cache.
    """
    task, kwargs, samples = generation
    try:
        if not is_budgeted(kwargs):
            check_ordinary_names(kwargs, limits.names)
            check_ordinary_values(kwargs)
            return None
        settings = parse_gen_kwargs(kwargs)
        check_samples(settings, samples)
        if limits.without_cache is not None:
            raise BudgetError(no_cache(limits.without_cache))
        if limits.context is not None:
            _check_context(settings, limits.context)
    except (ArgumentError, BudgetError) as error:
        raise type(error)(f"{task}: {error}") from None
    return settings


def check_samples(settings: BudgetSettings, samples: int) -> None:
    """Refuse several samples of greedy decoding, which are one text.

    Raises:
        ArgumentError: there is more than one sample, and nothing is drawn.
    """
    if samples > 1 and not settings.is_sampled:
        raise ArgumentError(
            f"num_samples={samples} would give the same text {samples} times, as decoding is greedy: sample with "
            "--gen_kwargs temperature=1.0 (without do_sample=False and top_k=1), or leave num_samples out"
        )


def check_metadata(given: Mapping[str, object]) -> None:
    """Refuse a misspelt name in the metadata of a task, which hold `--metadata` and the model's arguments as well.

    Raises:
        ArgumentError: a name is nearly one of those that our tasks read.
        UnknownNameError: there is no such kind of answers.
    """
    known = ("num_samples", "local_data", "answer_kind", *GENERATED_OPTIONS)
    for name in given.keys() - {*known}:
        if nearest := get_close_matches(str(name), known, n=1, cutoff=_MISSPELT):
            raise ArgumentError(f"{name}={given[name]!r} in --metadata: did you mean {nearest[0]!r}?")
    check_kind(str(given.get("answer_kind", "math")))


def count_samples(given: object) -> int:
    """Return `num_samples` of `--metadata`.

    Raises:
        ArgumentError: it is not a whole number of at least 1.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ArgumentError(f"num_samples={given!r} in --metadata: give a whole number of at least 1")
    return given


def names_of_transformers() -> Collection[str]:
    """Return the generation kwargs that transformers knows."""
    config = vars(GenerationConfig())  # type: ignore[no-untyped-call]
    return {*config, *inspect.signature(GenerationMixin.generate).parameters} - {"self", "kwargs"}


def check_aliases(gen_kwargs: Mapping[str, object]) -> None:
    """Refuse one setting under both of its names with two values.

    Raises:
        ArgumentError: they contradict.
    """
    for alias, name in ALIASES.items():
        if {alias, name} <= gen_kwargs.keys() and gen_kwargs[alias] != gen_kwargs[name]:
            raise ArgumentError(
                f"{alias}={gen_kwargs[alias]!r} and {name}={gen_kwargs[name]!r} are one setting: give one of them"
            )


def warn_of_seeds(settings: Iterable[BudgetSettings], *, is_given: bool) -> None:
    """Warn that the harness's `--seed` decides no sampled text; `is_given` says whether it differs from its default."""
    seeds = sorted({one.sampling.seed for one in settings if one.is_sampled})
    if seeds and is_given:
        logger.warning(
            "--seed decides no text here: samples are drawn with seed=%s of the generation kwargs; for other texts "
            "give --gen_kwargs seed=N",
            ", ".join(map(str, seeds)),
        )


def context_of(
    config: PretrainedConfig | None, arguments: Mapping[str, object], *, is_vllm: bool = False
) -> int | None:
    """Return the context of a model from its arguments or its config, None where neither says it for certain.

    vLLM lengthens the context that a config states by the factor of its rotary embedding.

    Example:
        >>> context_of(None, {"max_length": "512"}), context_of(None, {})
        (512, None)
    """
    for name in ("max_length", "max_model_len"):
        if str(arguments.get(name)).isdigit():
            return int(str(arguments[name]))
    if config is None:
        return None
    text = config.get_text_config()
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if is_vllm and "factor" in str(scaling):
        return None
    values = [getattr(one, name, None) for one in (text, config) for name in _CONTEXT]
    return max((int(value) for value in values if value), default=None)


def class_without_cache(config: PretrainedConfig | None) -> str | None:
    """Return the name of the class of a model if it takes no KV cache; None if it does, or nothing is known of it.

    Example:
        >>> from transformers import OpenAIGPTConfig, Qwen3Config
        >>> class_without_cache(OpenAIGPTConfig()), class_without_cache(Qwen3Config())
        ('OpenAIGPTLMHeadModel', None)
    """
    found = None if config is None else model_class(config)
    if found is None or cache_name(inspect.signature(found.forward).parameters):
        return None
    return found.__name__


def _check_context(settings: BudgetSettings, context: int) -> None:
    # A prompt and an answer need one token each.
    largest = context - 2
    if settings.budget is None:
        if settings.answer_room > largest:
            raise BudgetError(
                f"thinking_token_budget=auto with max_gen_toks={settings.answer_room} leaves no room for thinking in a "
                f"context of {context} tokens: give a smaller max_gen_toks, or a larger max_length"
            )
    elif settings.budget > largest:
        raise BudgetError(
            f"thinking_token_budget={settings.budget} does not fit: the context of {context} tokens is also that of "
            f"prompt and answer: use a budget below {largest}, or a larger max_length"
        )
