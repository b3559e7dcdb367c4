"""Budget forcing: think until the closing marker, an end-of-sequence token or the budget, then answer.

This module decides which token sequences to generate; a backend generates them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

from lm_eval_pruned.reasoning.completion import Answer, Completion, Thinking, ThinkingFinish
from lm_eval_pruned.reasoning.joining import encode_inside
from lm_eval_pruned.reasoning.preparing import PreparedRequest, count_close_tokens
from lm_eval_pruned.reasoning.requests import Backend, Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import derive_seed

logger = logging.getLogger(__name__)


@runtime_checkable
class Responses(Protocol):
    """A store of finished responses, found by everything in a request that decides its text."""

    def get(self, request: Mapping[str, object]) -> Completion | None:
        """Return the stored response to a request, or None."""

    def put(self, request: Mapping[str, object], completion: Completion) -> None:
        """Store a response."""


def complete(
    backend: Backend,
    prepared: Sequence[Sequence[PreparedRequest]],
    *,
    share: bool = True,
    responses: Responses | None = None,
) -> list[list[Completion]]:
    """Generate the thinking and the answer of every request of every set.

    Requests that differ only in their budget share one thinking trace, that of the largest budget: its beginnings are
    the traces of the smaller ones. Answers are generated for each budget that cuts the trace, and once for all others.

    Args:
        backend: generates.
        prepared: sets of requests.
        share: False generates a trace for every budget; the texts are the same.
        responses: what it holds is not generated; what it lacks is stored there as soon as it is finished.
    """
    requests = {(outer, inner): one for outer, ones in enumerate(prepared) for inner, one in enumerate(ones)}
    completions: dict[tuple[int, int], Completion] = {}
    traces: dict[object, _Trace] = {}

    def finish(position: tuple[int, int], completion: Completion) -> None:
        completions[position] = completion
        if responses is not None:
            responses.put(requests[position].identity(), completion)

    for position, request in requests.items():
        if responses is not None and (stored := responses.get(request.identity())) is not None:
            completions[position] = stored
            continue
        key = (request.settings, request.markers, request.opening, request.seed, None if share else request.budget)
        trace = traces.setdefault(key, _Trace(backend=backend, request=request))
        trace.waiting[request.budget].append(partial(finish, position))
    if completions:
        logger.info("%d of %d responses are already there", len(completions), len(requests))
    backend.run([row for trace in traces.values() for row in trace.start()])
    return [[completions[outer, inner] for inner in range(len(ones))] for outer, ones in enumerate(prepared)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trace:
    """The thinking trace of one prompt, with the callbacks that wait for an answer under each budget."""

    backend: Backend
    request: PreparedRequest
    waiting: dict[int, list[Callable[[Completion], None]]] = field(default_factory=lambda: defaultdict(list))

    def start(self) -> list[Row]:
        """Return the rows to generate first."""
        budgets = sorted(self.waiting)
        if self.request.opening is None:
            closing = self.backend.encode(self.request.markers.closings[0], special=False)
            return self._answer(Generated([], "stop", stop_ids=closing), budgets, close="")
        return self._think([], budgets, ignored=0)

    def _think(self, thinking: list[int], budgets: Sequence[int], ignored: int) -> list[Row]:
        """Continue the thinking under rising budgets; answer under those that `thinking` has exhausted."""
        exhausted = [budget for budget in budgets if budget <= len(thinking)]
        rows = [row for budget in exhausted for row in self._answer(Generated(thinking[:budget], "length"), [budget])]
        running = budgets[len(exhausted) :]
        if running:
            request, settings = self.request, self.request.settings
            lengths = [budget - len(thinking) for budget in running]
            close_tokens = count_close_tokens(self.backend, request.markers)
            max_length = len(request.ids) + running[-1] + close_tokens + settings.answer_room
            row = Row(
                ids=[*request.ids, *thinking],
                max_new_tokens=lengths[-1],
                seed=derive_seed(request.seed, "thinking"),
                stop=Stop(request.markers.closings),
                sampling=settings.thinking_sampling or settings.sampling,
                on_finish=partial(self._on_thinking, thinking, running, ignored),
                max_length=min(max_length, self.backend.context),
                checkpoints=tuple(lengths[:-1]),
                # As in s1, an extension cannot end before its first token.
                min_new_tokens=max(settings.least_thinking - len(thinking), 1 if settings.n_ignore else 0),
            )
            rows.append(row)
        return rows

    def _on_thinking(self, thinking: list[int], budgets: Sequence[int], ignored: int, new: Generated) -> list[Row]:
        """Answer after thinking that a budget has cut or that has ended, or extend it if its end is to be ignored."""
        ids = [*thinking, *new.ids]
        if new.finish == "length":
            return self._answer(new._replace(ids=ids), [len(ids)])
        not_reached = [budget for budget in budgets if budget >= len(ids) + len(new.stop_ids)]
        if ignored < self.request.settings.n_ignore:
            extension = encode_inside(self.backend, self.request.settings.ignore_text)
            return self._think([*ids, *extension], not_reached, ignored + 1)
        return self._answer(new._replace(ids=ids), not_reached)

    def _answer(self, thinking: Generated, budgets: Sequence[int], *, close: str | None = None) -> list[Row]:
        """Write the closing text and answer: for the one budget that cut the thinking, or for all that did not."""
        request = self.request
        text = self.backend.decode(thinking.ids)
        forced = thinking.finish == "length"
        close = request.markers.close(text, forced=forced) if close is None else close
        on_finish = partial(self._on_answer, thinking, text, close, budgets)
        if close is None:
            return on_finish(None)
        ids = [*request.ids, *thinking.ids, *encode_inside(self.backend, close)]
        max_new_tokens = min(request.settings.answer_room, self.backend.context - len(ids))
        return [
            Row(
                ids=ids,
                max_new_tokens=max_new_tokens,
                seed=derive_seed(request.seed, "answer", budgets[0] if forced else None),
                stop=Stop(request.settings.until),
                sampling=request.settings.sampling,
                on_finish=on_finish,
                max_length=len(ids) + max_new_tokens,
            )
        ]

    def _on_answer(
        self, thinking: Generated, text: str, close: str | None, budgets: Sequence[int], answer: Generated | None
    ) -> list[Row]:
        """Build the completion and pass it to all callbacks of these budgets.

        `text` is the text of the thinking and `close` what was written after it; without an `answer` of its own, the
        thinking is the answer.
        """
        if answer is None:
            written, second = "", Answer(text, 0, "none")
        else:
            written = self.backend.decode(answer.ids)
            forced_answer = self.request.markers.forced_answer if thinking.finish == "length" else ""
            second = Answer(forced_answer + written, len(answer.ids), answer.finish)
        completion = Completion.build(
            (self.request.opening or "") + text + (close or "") + written,
            thinking=Thinking(text, len(thinking.ids), self._thinking_finish(thinking)),
            answer=second,
        )
        for budget in budgets:
            for deliver in self.waiting[budget]:
                deliver(completion)
        return []

    def _thinking_finish(self, thinking: Generated) -> ThinkingFinish:
        if thinking.finish == "length":
            return "budget"
        ending = self.backend.decode(thinking.stop_ids)
        return "closed" if any(marker in ending for marker in self.request.markers.closings) else "eos"
