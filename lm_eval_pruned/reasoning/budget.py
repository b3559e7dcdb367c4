"""Budget forcing: think until the close marker, the end of the text or the budget; then answer.

Nothing here knows what runs the model: a backend generates token ids, this module decides what to generate.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.reasoning.formats import ThinkingFormat
from lm_eval_pruned.reasoning.sampling import Sampling, noise_key
from lm_eval_pruned.reasoning.settings import BudgetSettings

logger = logging.getLogger(__name__)

Finish = Literal["stop", "length"]


class Generated(NamedTuple):
    """New token ids, without what stopped them, and why they ended."""

    ids: list[int]
    finish: Finish


class Stop(NamedTuple):
    """What ends a generation: an end-of-sequence token always, and these texts; a text may span several tokens."""

    texts: tuple[str, ...]


class Row(NamedTuple):
    """One sequence to continue: its token ids, how many new ones it may get, and the key of its noise."""

    ids: list[int]
    room: int
    key: int


@runtime_checkable
class Backend(Protocol):
    """What runs a model; text becomes ids and ids become more ids."""

    @property
    def context(self) -> int:
        """The longest sequence, in tokens."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize; `special` adds what the tokenizer puts at the start of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""

    def generate(self, rows: Sequence[Row], stop: Stop, sampling: Sampling) -> list[Generated]:
        """Continue every row until `stop` or until its room is used up."""


class Request(NamedTuple):
    """One response wanted: the prompt as the model sees it, and which of the samples for this prompt it is."""

    prompt: str
    sample: int


class Completion(str):
    """A response with its accounting; as a string it is the whole text behind the prompt, so the harness stores it.

    `thinking` and `answer` are its parts; counts are in tokens. `budget_hit` says that thinking was cut at the budget,
    `answer_cut` that the answer used up its room.
    """

    __slots__ = ("answer", "answer_cut", "answer_tokens", "budget_hit", "thinking", "thinking_tokens")

    thinking: str
    answer: str
    thinking_tokens: int
    answer_tokens: int
    budget_hit: bool
    answer_cut: bool

    @classmethod
    def build(
        cls,
        text: str,
        *,
        thinking: str,
        answer: str,
        thinking_tokens: int,
        answer_tokens: int,
        budget_hit: bool,
        answer_cut: bool,
    ) -> Completion:
        """Attach the accounting to a text."""
        completion = cls(text)
        completion.thinking, completion.answer = thinking, answer
        completion.thinking_tokens, completion.answer_tokens = thinking_tokens, answer_tokens
        completion.budget_hit, completion.answer_cut = budget_hit, answer_cut
        return completion


class Prepared(NamedTuple):
    """Requests under the same settings, tokenized and checked; one opening, prompt and noise key a request."""

    settings: BudgetSettings
    markers: ThinkingFormat
    openings: list[str]
    prompts: list[list[int]]
    keys: list[int]


def prepare(
    backend: Backend, requests: Sequence[Request], settings: BudgetSettings, chosen: ThinkingFormat
) -> Prepared:
    """Tokenize requests and check that they fit; prepare everything before completing anything.

    Raises:
        BudgetError: prompt, budget and forced close leave no room for an answer in the context.
    """
    markers = settings.markers(chosen)
    openings = ["" if _is_open(request.prompt, markers) else markers.opening for request in requests]
    prompts = [
        backend.encode(request.prompt + opening, special=True)
        for request, opening in zip(requests, openings, strict=True)
    ]
    _check_context(backend, prompts, settings, markers)
    keys = [
        noise_key(settings.sampling.seed, prompt, request.sample)
        for prompt, request in zip(prompts, requests, strict=True)
    ]
    return Prepared(settings, markers, openings, prompts, keys)


def complete(backend: Backend, prepared: Prepared) -> list[Completion]:
    """Think and answer for every request."""
    settings, markers, openings, prompts, keys = prepared
    thoughts = backend.generate(
        [Row(prompt, settings.budget, noise_key(key, "thinking")) for prompt, key in zip(prompts, keys, strict=True)],
        Stop(markers.closings),
        settings.sampling,
    )
    thinking = [backend.decode(thought.ids) for thought in thoughts]
    closes = [
        markers.close(text, forced=thought.finish == "length") for text, thought in zip(thinking, thoughts, strict=True)
    ]
    answering = [index for index, close in enumerate(closes) if close is not None]
    rows = []
    for index in answering:
        ids = prompts[index] + thoughts[index].ids + backend.encode(closes[index] or "", special=False)
        room = min(settings.answer_room, backend.context - len(ids))
        rows.append(Row(ids, room, noise_key(keys[index], "answer", settings.budget)))
    _report_shortened(rows, settings)
    answers = dict(zip(answering, backend.generate(rows, Stop(settings.until), settings.sampling), strict=True))
    return [
        _assemble(backend, markers, opening, text, thought, close, answers.get(index))
        for index, (opening, text, thought, close) in enumerate(zip(openings, thinking, thoughts, closes, strict=True))
    ]


def _is_open(prompt: str, markers: ThinkingFormat) -> bool:
    """Some chat templates end with the opening marker, with or without its line break."""
    return prompt.rstrip().endswith(markers.opening.strip()) if markers.opening else True


def _check_context(
    backend: Backend, prompts: Sequence[list[int]], settings: BudgetSettings, markers: ThinkingFormat
) -> None:
    longest = max(map(len, prompts))
    forced = len(backend.encode(markers.close("", forced=True) or "", special=False))
    largest = backend.context - longest - forced - 1
    if settings.budget > largest:
        raise BudgetError(
            f"thinking_token_budget={settings.budget} does not fit: the longest prompt has {longest} tokens and the "
            f"context {backend.context}: use a budget of at most {max(largest, 0)}, or a larger max_length"
        )


def _report_shortened(rows: Sequence[Row], settings: BudgetSettings) -> None:
    shortest = min((row.room for row in rows), default=settings.answer_room)
    if shortest < settings.answer_room:
        logger.warning(
            "max_gen_toks=%d does not fit behind every prompt and its thinking: answers get the rest of the context, "
            "at least %d tokens",
            settings.answer_room,
            shortest,
        )


def _assemble(
    backend: Backend,
    markers: ThinkingFormat,
    opening: str,
    thinking: str,
    thought: Generated,
    close: str | None,
    answer: Generated | None,
) -> Completion:
    """Join the parts; where no answer was generated the thinking is the answer."""
    forced = thought.finish == "length"
    written = "" if answer is None else backend.decode(answer.ids)
    return Completion.build(
        opening + thinking + (close or "") + written,
        thinking=thinking,
        answer=thinking if answer is None else (markers.forced_answer if forced else "") + written,
        thinking_tokens=len(thought.ids),
        answer_tokens=len(answer.ids) if answer else 0,
        budget_hit=forced,
        answer_cut=answer is not None and answer.finish == "length",
    )
