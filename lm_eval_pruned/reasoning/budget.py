"""Budget forcing: think until the close marker, the end of the text or the budget; then answer.

Nothing here knows what runs the model: a backend generates token ids, this module decides what to generate.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.reasoning.formats import ThinkingFormat
from lm_eval_pruned.reasoning.sampling import Sampling, noise_key
from lm_eval_pruned.reasoning.settings import BudgetSettings

logger = logging.getLogger(__name__)

Finish = Literal["stop", "length"]


class Generated(NamedTuple):
    """New token ids without what stopped them, why they ended, and the token ids that stopped them."""

    ids: list[int]
    finish: Finish
    ending: Sequence[int] = ()


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


def complete(backend: Backend, prepared: Sequence[Prepared], *, share: bool = True) -> list[list[Completion]]:
    """Think and answer for every request of every set; sets that differ only in their budget share their traces.

    With a trace for the largest budget, those for the smaller ones are its beginnings. What is generated for each is an
    answer, and one answer for all budgets that a trace did not reach. `share=False` does everything anew for every
    budget; the texts are the same.
    """
    families: dict[tuple[BudgetSettings, ThinkingFormat], list[int]] = defaultdict(list)
    for place, ready in enumerate(prepared):
        families[replace(ready.settings, budget=0), ready.markers].append(place)
    done: dict[int, list[Completion]] = {}
    for places in families.values():
        done.update(zip(places, _complete_family(backend, [prepared[place] for place in places], share), strict=True))
    return [done[place] for place in range(len(prepared))]


def _complete_family(backend: Backend, members: Sequence[Prepared], share: bool) -> list[list[Completion]]:
    """Complete sets of requests whose settings and markers are the same but for the budget, all sets at once."""
    settings, markers = members[0].settings, members[0].markers
    budgets = [ready.settings.budget for ready in members for _ in ready.prompts]
    openings = [opening for ready in members for opening in ready.openings]
    prompts = [prompt for ready in members for prompt in ready.prompts]
    keys = [key for ready in members for key in ready.keys]
    rows = [
        Row(prompt, budget, noise_key(key, "thinking"))
        for prompt, budget, key in zip(prompts, budgets, keys, strict=True)
    ]
    generate = partial(_generate_once, backend) if share else backend.generate
    thoughts = generate(rows, Stop(markers.closings), settings.sampling)
    thinking = [backend.decode(thought.ids) for thought in thoughts]
    closes = [
        markers.close(text, forced=thought.finish == "length") for text, thought in zip(thinking, thoughts, strict=True)
    ]
    answering = [index for index, close in enumerate(closes) if close is not None]
    rows = []
    for index in answering:
        ids = prompts[index] + thoughts[index].ids + backend.encode(closes[index] or "", special=False)
        room = min(settings.answer_room, backend.context - len(ids))
        # A budget that did not bind leaves the answer, too, as any other such budget does.
        cut = budgets[index] if thoughts[index].finish == "length" else None
        rows.append(Row(ids, room, noise_key(keys[index], "answer", cut)))
    _report_shortened(rows, settings)
    answers = dict(zip(answering, generate(rows, Stop(settings.until), settings.sampling), strict=True))
    completions = (
        _assemble(backend, markers, opening, text, thought, close, answers.get(index))
        for index, (opening, text, thought, close) in enumerate(zip(openings, thinking, thoughts, closes, strict=True))
    )
    return [list(islice(completions, len(ready.prompts))) for ready in members]


def _generate_once(backend: Backend, rows: Sequence[Row], stop: Stop, sampling: Sampling) -> list[Generated]:
    """Generate once for all rows of one key, which differ only in their room, and cut what was written for each."""
    longest: dict[int, Row] = {}
    for row in rows:
        known = longest.get(row.key)
        longest[row.key] = row if known is None or row.room > known.room else known
    traces = dict(zip(longest, backend.generate(list(longest.values()), stop, sampling), strict=True))
    return [at_budget(traces[row.key], row.room) for row in rows]


def at_budget(trace: Generated, budget: int) -> Generated:
    """Return what the same generation would have been with room for `budget` tokens and no more.

    What ended it must fit too: thinking of exactly the budget's length was not seen to end.

    Example:
        >>> at_budget(Generated([5, 6, 7], "stop", ending=(1,)), 3)
        Generated(ids=[5, 6, 7], finish='length', ending=())
        >>> at_budget(Generated([5, 6, 7], "stop", ending=(1,)), 4).finish
        'stop'
    """
    whole = [*trace.ids, *trace.ending]
    return trace if trace.finish == "stop" and len(whole) <= budget else Generated(whole[:budget], "length")


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
