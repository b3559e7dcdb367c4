"""Budget forcing: think until the close marker, the end of the text or the budget; then answer.

Nothing here knows what runs the model: a backend generates token ids, this module decides what to generate.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.reasoning.completion import AnswerFinish, Completion, ThinkingFinish
from lm_eval_pruned.reasoning.formats import ThinkingFormat
from lm_eval_pruned.reasoning.requests import Backend, Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import noise_key
from lm_eval_pruned.reasoning.settings import BudgetSettings

logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """One response wanted: the prompt as the model sees it, and which of the samples for this prompt it is."""

    prompt: str
    sample: int


@runtime_checkable
class Responses(Protocol):
    """Where finished responses are kept, by everything about a request that decides its text."""

    def get(self, request: Mapping[str, object]) -> Completion | None:
        """Return the response to this very request, if it is there."""

    def put(self, request: Mapping[str, object], completion: Completion) -> None:
        """Keep a response."""


class Prepared(NamedTuple):
    """Requests under the same settings, tokenized and checked; a budget, opening, prompt, sample, noise key each.

    An opening is what was written behind the prompt, or None where the prompt has closed its thinking already.
    """

    budgets: list[int]
    settings: BudgetSettings
    markers: ThinkingFormat
    openings: list[str | None]
    prompts: list[list[int]]
    samples: list[int]
    keys: list[int]

    def identity(self, index: int) -> dict[str, object]:
        """Return what, besides the model, decides the text of one response, as what JSON can hold."""
        return {
            "prompt": self.prompts[index],
            "sample": self.samples[index],
            "budget": self.budgets[index],
            "settings": asdict(self.settings),
            "markers": {name: value for name, value in asdict(self.markers).items() if name not in ("name", "summary")},
        }


def prepare(
    backend: Backend, requests: Sequence[Request], settings: BudgetSettings, chosen: ThinkingFormat
) -> Prepared:
    """Tokenize requests and check that they fit; prepare everything before completing anything.

    Raises:
        BudgetError: prompt, budget and forced close leave no room for an answer in the context.
    """
    markers = settings.markers(chosen)
    openings = [_opening(request.prompt, markers) for request in requests]
    prompts = [
        backend.encode(request.prompt + (opening or ""), special=True)
        for request, opening in zip(requests, openings, strict=True)
    ]
    keys = [
        noise_key(settings.sampling.seed, prompt, request.sample)
        for prompt, request in zip(prompts, requests, strict=True)
    ]
    budgets = _fitting_budgets(backend, prompts, settings, markers)
    samples = [request.sample for request in requests]
    return Prepared(budgets, replace(settings, budget=None), markers, openings, prompts, samples, keys)


def complete(
    backend: Backend, prepared: Sequence[Prepared], *, share: bool = True, responses: Responses | None = None
) -> list[list[Completion]]:
    """Think and answer for every request of every set; sets that differ only in their budget share their traces.

    With a trace for the largest budget, those for the smaller ones are its beginnings. What is generated for each is an
    answer, and one answer for all budgets that a trace did not reach. `share=False` does everything anew for every
    budget; the texts are the same. What `responses` holds is not generated; what it lacks is put there once it is done.
    """
    done: dict[tuple[int, int], Completion] = {}
    traces: dict[object, _Trace] = {}

    def finish(place: int, index: int, completion: Completion) -> None:
        done[place, index] = completion
        if responses is not None:
            responses.put(prepared[place].identity(index), completion)

    for place, ready in enumerate(prepared):
        for index in range(len(ready.prompts)):
            if responses is not None and (known := responses.get(ready.identity(index))) is not None:
                done[place, index] = known
                continue
            family = (ready.settings, ready.markers, ready.openings[index], ready.keys[index])
            budget = ready.budgets[index]
            trace = traces.setdefault((family, None if share else budget), _Trace.of(backend, ready, index))
            trace.wanted[budget].append(partial(finish, place, index))
    if done:
        logger.info("%d of %d responses are already there", len(done), sum(len(ready.prompts) for ready in prepared))
    backend.run([row for trace in traces.values() for row in trace.rows()])
    return [[done[place, index] for index in range(len(ready.prompts))] for place, ready in enumerate(prepared)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trace:
    """The thinking about one prompt; `wanted` are the budgets under which it is answered, and who waits for that."""

    backend: Backend
    settings: BudgetSettings
    markers: ThinkingFormat
    opening: str | None
    prompt: list[int]
    key: int
    wanted: dict[int, list[Callable[[Completion], None]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, backend: Backend, ready: Prepared, index: int) -> _Trace:
        return cls(
            backend=backend,
            settings=ready.settings,
            markers=ready.markers,
            opening=ready.openings[index],
            prompt=ready.prompts[index],
            key=ready.keys[index],
        )

    def rows(self) -> list[Row]:
        """Return what is to be generated first."""
        budgets = sorted(self.wanted)
        if self.opening is None:
            closed = Generated([], "stop", ending=self.backend.encode(self.markers.closings[0], special=False))
            return self._answer(closed, budgets, close="")
        return self._think([], budgets, ignored=0)

    def _think(self, written: list[int], budgets: Sequence[int], ignored: int) -> list[Row]:
        """Think on behind `written`, under these rising budgets; one that is used up already is answered."""
        used_up = [budget for budget in budgets if budget <= len(written)]
        rows = [row for budget in used_up for row in self._answer(Generated(written[:budget], "length"), [budget])]
        running = budgets[len(used_up) :]
        if running:
            settings = self.settings
            rooms = [budget - len(written) for budget in running]
            longest = len(self.prompt) + running[-1] + _close_tokens(self.backend, self.markers) + settings.answer_room
            thinking = Row(
                ids=[*self.prompt, *written],
                room=rooms[-1],
                key=noise_key(self.key, "thinking"),
                stop=Stop(self.markers.closings),
                sampling=settings.thinking_sampling or settings.sampling,
                then=partial(self._thought, written, running, ignored),
                longest=min(longest, self.backend.context),
                marks=tuple(rooms[:-1]),
                # As in s1, an extension begins with something else than its end.
                least=max(settings.least_thinking - len(written), 1 if settings.n_ignore else 0),
            )
            rows.append(thinking)
        return rows

    def _thought(self, written: list[int], budgets: Sequence[int], ignored: int, part: Generated) -> list[Row]:
        """Answer where a budget was reached or the thinking came to an end; or let it go on at its end."""
        ids = [*written, *part.ids]
        if part.finish == "length":
            return self._answer(part._replace(ids=ids), [len(ids)])
        not_reached = [budget for budget in budgets if budget >= len(ids) + len(part.ending)]
        if ignored < self.settings.n_ignore:
            extension = self.backend.encode(self.settings.ignore_text, special=False)
            return self._think([*ids, *extension], not_reached, ignored + 1)
        return self._answer(part._replace(ids=ids), not_reached)

    def _answer(self, thought: Generated, budgets: Sequence[int], *, close: str | None = None) -> list[Row]:
        """Close the thinking, if not yet done, and answer: for one budget that cut it, or for all that did not."""
        text = self.backend.decode(thought.ids)
        forced = thought.finish == "length"
        close = self.markers.close(text, forced=forced) if close is None else close
        answered = partial(self._answered, thought, text, close, budgets)
        if close is None:
            return answered(None)
        ids = [*self.prompt, *thought.ids, *self.backend.encode(close, special=False)]
        room = min(self.settings.answer_room, self.backend.context - len(ids))
        return [
            Row(
                ids=ids,
                room=room,
                key=noise_key(self.key, "answer", budgets[0] if forced else None),
                stop=Stop(self.settings.until),
                sampling=self.settings.sampling,
                then=answered,
                longest=len(ids) + room,
            )
        ]

    def _answered(
        self, thought: Generated, thinking: str, close: str | None, budgets: Sequence[int], answer: Generated | None
    ) -> list[Row]:
        """Join the parts and hand them to everyone who waits; where nothing was answered the thinking is the answer."""
        written = "" if answer is None else self.backend.decode(answer.ids)
        forced_answer = self.markers.forced_answer if thought.finish == "length" else ""
        finish: AnswerFinish = "none" if answer is None else answer.finish
        completion = Completion.build(
            (self.opening or "") + thinking + (close or "") + written,
            thinking=thinking,
            answer=thinking if answer is None else forced_answer + written,
            thinking_tokens=len(thought.ids),
            answer_tokens=len(answer.ids) if answer else 0,
            thinking_finish=self._finish(thought),
            answer_finish=finish,
        )
        for budget in budgets:
            for deliver in self.wanted[budget]:
                deliver(completion)
        return []

    def _finish(self, thought: Generated) -> ThinkingFinish:
        if thought.finish == "length":
            return "budget"
        ending = self.backend.decode(thought.ending)
        return "closed" if any(marker in ending for marker in self.markers.closings) else "eos"


def _opening(prompt: str, markers: ThinkingFormat) -> str | None:
    """Return what opens the thinking: nothing where the template has done so, None where it has closed it, too.

    Templates that open end with the marker, with or without its line break; those asked not to think close at once.
    """
    end = prompt.rstrip()
    if any(end.endswith(marker.strip()) for marker in markers.closings if marker.strip()):
        return None
    return "" if end.endswith(markers.opening.strip()) else markers.opening


def _close_tokens(backend: Backend, markers: ThinkingFormat) -> int:
    """Count the tokens of the longest text that may stand between thinking and answer."""
    closes = [markers.close("", forced=forced) or "" for forced in (True, False)]
    return max(len(backend.encode(close, special=False)) for close in closes)


def _fitting_budgets(
    backend: Backend, prompts: Sequence[list[int]], settings: BudgetSettings, markers: ThinkingFormat
) -> list[int]:
    """Return the budget of each prompt, checked to fit; where none is given, all that leaves the answer its room."""
    longest = max(map(len, prompts))
    room = backend.context - _close_tokens(backend, markers) - settings.answer_room
    budgets = [room - len(prompt) if settings.budget is None else settings.budget for prompt in prompts]
    # What fits behind the longest prompt, with one token of an answer.
    largest = room + settings.answer_room - longest - 1
    behind_longest = room - longest if settings.budget is None else settings.budget
    if not 0 <= behind_longest <= largest:
        given = f"thinking_token_budget={'auto' if settings.budget is None else settings.budget}"
        raise BudgetError(
            f"{given} does not fit: the longest prompt has {longest} tokens and the context {backend.context}: use a "
            f"budget of at most {max(largest, 0)}, or a larger max_length"
        )
    if behind_longest + settings.answer_room > largest + 1:
        logger.warning(
            "max_gen_toks=%d does not fit behind the longest prompt and thinking_token_budget=%d: answers get the rest "
            "of the context, at least %d tokens",
            settings.answer_room,
            behind_longest,
            largest + 1 - behind_longest,
        )
    return budgets
