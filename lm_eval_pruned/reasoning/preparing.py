"""Preparation of requests: prompts are tokenized with the opening of the thinking, and budgets must fit the context."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.reasoning.formats import ThinkingFormat
from lm_eval_pruned.reasoning.joining import encode_inside
from lm_eval_pruned.reasoning.requests import Backend
from lm_eval_pruned.reasoning.sampling import derive_seed
from lm_eval_pruned.reasoning.settings import BudgetSettings

logger = logging.getLogger(__name__)

# Raised when the same settings come to give other texts, so that stored responses of before are not reused.
RULES = 2


class Request(NamedTuple):
    """One response to generate: the prompt as the model sees it, and the index of the sample for this prompt."""

    prompt: str
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRequest:
    """A request, tokenized and checked to fit the context.

    Attributes:
        ids: token ids of prompt and opening.
        sample: index of the sample for this prompt.
        seed: seed of the sampling noise.
        budget: most thinking tokens.
        settings: the generation kwargs without their budget.
        markers: the thinking format.
        opening: what was written after the prompt, or None if the prompt has already closed its thinking.
    """

    ids: list[int]
    sample: int
    seed: int
    budget: int
    settings: BudgetSettings
    markers: ThinkingFormat
    opening: str | None

    def identity(self) -> dict[str, object]:
        """Return what, besides the model, decides the text of the response, as JSON values: it is hashed and stored."""
        return {
            "rules": RULES,
            "prompt": self.ids,
            "sample": self.sample,
            "budget": self.budget,
            "settings": asdict(self.settings),
            "markers": {name: value for name, value in asdict(self.markers).items() if name not in ("name", "summary")},
        }


def prepare(
    backend: Backend, requests: Sequence[Request], settings: BudgetSettings, chosen: ThinkingFormat
) -> list[PreparedRequest]:
    """Tokenize requests and check that they fit; prepare all requests before completing any.

    Args:
        backend: tokenizes, and knows the length of the context.
        requests: prompts with their sample indices.
        settings: generation kwargs of all of them.
        chosen: thinking format whose markers the settings may replace.

    Raises:
        BudgetError: prompt, budget and forced close leave no room for an answer in the context.
    """
    markers = settings.markers(chosen)
    openings = [choose_opening(request.prompt, markers) for request in requests]
    prompts = [
        backend.encode(request.prompt + (opening or ""), special=True)
        for request, opening in zip(requests, openings, strict=True)
    ]
    budgets = _choose_budgets(backend, list(map(len, prompts)), settings, markers)
    without_budget = replace(settings, budget=None)
    return [
        PreparedRequest(
            ids=ids,
            sample=request.sample,
            seed=derive_seed(settings.sampling.seed, ids, request.sample),
            budget=budget,
            settings=without_budget,
            markers=markers,
            opening=opening,
        )
        for request, ids, budget, opening in zip(requests, prompts, budgets, openings, strict=True)
    ]


def choose_opening(prompt: str, markers: ThinkingFormat) -> str | None:
    """Return what to write after the prompt: "" if it already opens the thinking, None if it already closes it.

    Chat templates that open the thinking end with the marker, with or without a line break; with thinking turned off
    they close it as well.
    """
    end = prompt.rstrip()
    if any(end.endswith(marker.strip()) for marker in markers.closings if marker.strip()):
        return None
    return "" if end.endswith(markers.opening.strip()) else markers.opening


def count_close_tokens(backend: Backend, markers: ThinkingFormat) -> int:
    """Count the tokens of the longest closing text between thinking and answer."""
    closes = [markers.close("", forced=forced) or "" for forced in (True, False)]
    return max(len(encode_inside(backend, close)) for close in closes)


def _choose_budgets(
    backend: Backend, prompt_lengths: Sequence[int], settings: BudgetSettings, markers: ThinkingFormat
) -> list[int]:
    """Return the budget of each prompt, checked to fit; if none is given, all that `answer_room` leaves."""
    longest = max(prompt_lengths)
    available = backend.context - count_close_tokens(backend, markers) - settings.answer_room
    budgets = [available - length if settings.budget is None else settings.budget for length in prompt_lengths]
    # The largest budget that fits after the longest prompt, with an answer of one token.
    largest = available + settings.answer_room - longest - 1
    budget = available - longest if settings.budget is None else settings.budget
    if not 0 <= budget <= largest:
        given = f"thinking_token_budget={'auto' if settings.budget is None else settings.budget}"
        raise BudgetError(
            f"{given} does not fit: the longest prompt has {longest} tokens and the context {backend.context}: use a "
            f"budget of at most {max(largest, 0)}, or a larger max_length"
        )
    if budget + settings.answer_room > largest + 1:
        logger.warning(
            "max_gen_toks=%d does not fit after the longest prompt and thinking_token_budget=%d: answers get the rest "
            "of the context, at least %d tokens",
            settings.answer_room,
            budget,
            largest + 1 - budget,
        )
    return budgets
