"""Budget forcing: think until the close marker, the end of the text or the budget; then answer.

Nothing here knows what runs the model: a backend generates token ids, this module decides what to generate.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lm_eval_pruned.errors import ArgumentError, BudgetError, NotBuiltError
from lm_eval_pruned.reasoning.formats import ThinkingFormat, with_markers
from lm_eval_pruned.reasoning.sampling import Sampling, noise_key

logger = logging.getLogger(__name__)

DEFAULT_ANSWER_ROOM = 4096

_ALIASES = {"max_tokens_thinking": "thinking_token_budget"}
_KNOWN = [
    "thinking_token_budget",
    "thinking_start",
    "thinking_end",
    "until_thinking",
    "max_gen_toks",
    "until",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
]
_NOT_BUILT = [
    "thinking_n_ignore",
    "thinking_n_ignore_str",
    "min_tokens_thinking",
    "temperature_thinking",
    "rejection_sample",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """The generation kwargs of one budgeted request. Budget and answer room are in tokens."""

    budget: int
    answer_room: int = DEFAULT_ANSWER_ROOM
    until: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    thinking_start: str | None = None
    thinking_end: str | None = None
    until_thinking: str | None = None

    def markers(self, chosen: ThinkingFormat) -> ThinkingFormat:
        """Return the thinking format with the markers given by hand in place of its own."""
        return with_markers(chosen, opening=self.thinking_start, ending=self.thinking_end, closing=self.until_thinking)


def is_budgeted(gen_kwargs: Mapping[str, object]) -> bool:
    """Tell whether a request asks for budgeted thinking, by s1's rule: some kwarg has "thinking" in its name."""
    return any("thinking" in name for name in gen_kwargs)


def parse_gen_kwargs(gen_kwargs: Mapping[str, object]) -> BudgetSettings:
    """Read the generation kwargs of a task or of `--gen_kwargs`.

    A temperature above 0 samples unless `do_sample` says no; `do_sample` without a temperature means temperature 1.

    Raises:
        ArgumentError: a kwarg is unknown or its value out of range.
        NotBuiltError: a documented kwarg that this version does not offer yet.

    Example:
        >>> settings = parse_gen_kwargs({"max_tokens_thinking": 512, "temperature": 1.0, "seed": 7})
        >>> settings.budget, settings.sampling.temperature
        (512, 1.0)
    """
    # An alias can only come from the user, the canonical name also from the task: the user wins.
    given = {name: value for name, value in gen_kwargs.items() if name not in _ALIASES and value is not None}
    given |= {_ALIASES[name]: value for name, value in gen_kwargs.items() if name in _ALIASES}
    for name in given:
        if name in _NOT_BUILT and given[name]:
            raise NotBuiltError(f"generation kwarg {name}={given[name]} is not built in this version: leave it out")
        if name not in _KNOWN and name not in _NOT_BUILT:
            nearest = get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ArgumentError(f"unknown generation kwarg {name!r}: {hint}Known: {', '.join(sorted(_KNOWN))}")
    if "thinking_token_budget" not in given:
        raise ArgumentError("thinking kwargs were given without a thinking_token_budget: add one, in tokens")
    until = given.get("until") or ()
    return BudgetSettings(
        budget=_whole(given, "thinking_token_budget", 0),
        answer_room=_whole(given, "max_gen_toks", 1, DEFAULT_ANSWER_ROOM),
        until=(until,) if isinstance(until, str) else tuple(map(str, until)),  # type: ignore[call-overload]
        sampling=_sampling(given),
        thinking_start=_text(given, "thinking_start"),
        thinking_end=_text(given, "thinking_end"),
        until_thinking=_text(given, "until_thinking"),
    )


def _sampling(given: Mapping[str, object]) -> Sampling:
    wants_sample = given.get("do_sample")
    temperature = _number(given, "temperature", 1.0 if wants_sample else 0.0)
    return Sampling(
        temperature=0.0 if wants_sample is False else temperature,
        top_p=_number(given, "top_p", 1.0),
        top_k=_whole(given, "top_k", -1, 0),
        min_p=_number(given, "min_p", 0.0),
        seed=_whole(given, "seed", 0, 0),
    )


def _text(given: Mapping[str, object], name: str) -> str | None:
    return str(given[name]) if name in given else None


def _number(given: Mapping[str, object], name: str, default: float) -> float:
    try:
        return float(str(given.get(name, default)))
    except ValueError:
        raise ArgumentError(f"generation kwarg {name}={given[name]!r} is not a number") from None


def _whole(given: Mapping[str, object], name: str, least: int, default: int = 0) -> int:
    number = _number(given, name, float(default))
    if not number.is_integer() or number < least:
        raise ArgumentError(f"generation kwarg {name}={given[name]!r}: give a whole number of at least {least}")
    return int(number)


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
