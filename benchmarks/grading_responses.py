"""Tables of `grading.py` on responses: accuracy of extraction and verdict together, on whole ones and on halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lm_eval_pruned.commands.math_verify import MathVerify
from lm_eval_pruned.grading import grade
from lm_eval_pruned.grading.answer_kinds import Kind


class Response(NamedTuple):
    """A response, its gold answer, whether it gives that answer or any, and whether the model ended it, if known."""

    source: str
    gold: str
    text: str
    kind: str
    expected: bool
    is_decided: bool
    finished: bool | None = None


class Judged(NamedTuple):
    """Whether a grader credits a response, and whether it decided at all."""

    correct: bool
    is_decided: bool


Grader = Callable[[Response], Judged]


def ours(response: Response) -> Judged:
    kind: Kind = "choice" if response.kind == "choice" else "math"
    verdict = grade(response.gold, response.text, kind, response.finished)
    return Judged(verdict.correct, verdict.status == "ok")


def of_peer(peer: MathVerify) -> Grader:
    def judge(response: Response) -> Judged:
        verdict = peer.judge([response.gold], response.text, response.kind, is_response=True)
        return Judged(verdict.correct, verdict.status == "ok")

    return judge


def tables(responses: Sequence[Response], graders: dict[str, Grader]) -> Iterator[str]:
    """Yield the table of whole responses by source, and that of halves by kind."""
    names = " | ".join(f"{name}: right | wrong accepted / right refused" for name in graders)
    yield f"| responses of | number | {names} |"
    yield "|---" * (2 + 2 * len(graders)) + "|"
    judged = {name: [judge(response) for response in responses] for name, judge in graders.items()}
    for source in (*dict.fromkeys(response.source for response in responses), None):
        places = [place for place, response in enumerate(responses) if source in (None, response.source)]
        cells = (_counts([(responses[place], given[place]) for place in places]) for given in judged.values())
        yield f"| {source or '**all**'} | {len(places)} | " + " | ".join(cells) + " |"
    nothing = [place for place, response in enumerate(responses) if not response.is_decided]
    if nothing:
        decided = ", ".join(f"{name} {sum(given[at].is_decided for at in nothing)}" for name, given in judged.items())
        yield f"\nOf {len(nothing)} responses in which there is nothing to decide, decided all the same: {decided}."
    yield ""
    yield "| cut in half | number | " + " | ".join(f"{name}: credited | decided" for name in graders) + " |"
    yield "|---" * (2 + 2 * len(graders)) + "|"
    for kind in dict.fromkeys(response.kind for response in responses):
        halves = [half(response) for response in responses if response.kind == kind]
        rates = (_half_rates(halves, judge) for judge in graders.values())
        yield f"| {kind} | {len(halves)} | " + " | ".join(rates) + " |"


def half(response: Response) -> Response:
    """Return the first half of a response, without the knowledge that it was cut."""
    return response._replace(text=response.text[: len(response.text) // 2], finished=None)


def _counts(judged: list[tuple[Response, Judged]]) -> str:
    accepted = sum(given.correct and not response.expected for response, given in judged)
    refused = sum(response.expected and not given.correct for response, given in judged)
    right = len(judged) - accepted - refused
    return f"{right} ({right / len(judged):.1%}) | {accepted} / {refused}"


def _half_rates(halves: list[Response], judge: Grader) -> str:
    judged = [judge(response) for response in halves]
    credited, decided = (sum(getattr(given, name) for given in judged) for name in ("correct", "is_decided"))
    return f"{credited / len(halves):.1%} | {decided / len(halves):.1%}"
