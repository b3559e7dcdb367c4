"""Verdicts: whether an answer is right, whether that could be decided at all, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from time import perf_counter
from typing import ParamSpec

from lm_eval_pruned.grading.answer_kinds import Kind, Stage, Status, check_kind
from lm_eval_pruned.grading.equal import Equality, equal_forms, normal_form
from lm_eval_pruned.grading.extract.brackets import same_brackets
from lm_eval_pruned.grading.extract.choices import read_letter
from lm_eval_pruned.grading.extract.extract import find_answer
from lm_eval_pruned.grading.limits import MAX_CACHED_CHARACTERS, MAX_CACHED_VERDICTS
from lm_eval_pruned.grading.symbolic.worker import start as start_worker

_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of grading one answer.

    Only `status="ok"` is a decision. The other statuses keep apart from wrong answers what was not decided: "no_answer"
    (there is no answer), "unparsed" (it cannot be read or compared) and "timeout". The two forms are the normal forms,
    or for a choice the letters, that were compared; None if nothing was, and in modes other than ours. The stage says
    how a response gives its answer: "explicit" (a box, a tag, "the answer is") or "sentence" (its last sentence
    concludes it); None if nothing was extracted. The time does not count when two verdicts are compared.
    """

    correct: bool
    status: Status
    reason: str
    extracted: str | None
    gold_form: str | None = None
    answer_form: str | None = None
    stage: Stage | None = None
    milliseconds: float = field(default=0.0, compare=False, repr=False)


def timed(judge: Callable[_Arguments, Verdict]) -> Callable[_Arguments, Verdict]:
    """Decorate a function so that its verdict says how long it took."""

    @wraps(judge)
    def timed_judge(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Verdict:
        start = perf_counter()
        verdict = judge(*args, **kwargs)
        return replace(verdict, milliseconds=1000 * (perf_counter() - start))

    return timed_judge


@timed
def verify(gold: str, answer: str, kind: Kind = "math") -> Verdict:
    r"""Judge an answer that has already been extracted.

    Raises:
        UnknownNameError: there is no such kind.

    Example:
        >>> verify(r"\frac{1}{2}", "0.5").correct, verify("025", "25.0").reason
        (True, 'same number')
        >>> verify("C", "(c)", kind="choice").correct
        True
    """
    check_kind(kind)
    if not answer.strip():
        return Verdict(correct=False, status="no_answer", reason="the answer is empty", extracted=None)
    return {"choice": _verify_letter, "brackets": _verify_brackets, "math": _verify_mathematics}[kind](gold, answer)


@timed
def grade(gold: str, response: str, kind: Kind = "math", finished: bool | None = None) -> Verdict:
    r"""Extract the answer from a response and judge it; no text raises.

    The last box is the answer, together with the boxes that "and", "or" or a comma joins to it.

    Args:
        gold: the right answer.
        response: all that the model wrote.
        kind: what the answer is, "math", "choice" or "brackets".
        finished: whether the model ended its answer itself. In a response that was cut (False), only explicit answers
            count; without that knowledge (None), a response that stops in mid-sentence counts as cut.

    Raises:
        UnknownNameError: there is no such kind.

    Example:
        >>> verdict = grade("25", r"So the sum is \boxed{025.0}")
        >>> verdict.correct, verdict.reason, verdict.extracted, verdict.stage
        (True, 'same number', '025.0', 'explicit')
        >>> grade("25", "I do not know.").status
        'no_answer'
    """
    found = find_answer(response, kind, finished)
    if found is None:
        return no_answer()
    verdict = verify(gold, found.answer, kind)
    return replace(verdict, stage=found.stage)


def no_answer() -> Verdict:
    """Return the verdict on a response that gives no answer."""
    return Verdict(correct=False, status="no_answer", reason="no answer in the response", extracted=None)


def _verify_letter(gold: str, answer: str) -> Verdict:
    wanted, given = read_letter(gold), read_letter(answer)
    if wanted is None or given is None:
        equality = Equality(
            False, f"the {'gold' if wanted is None else 'answer'} is not a letter from A to D", "unparsed"
        )
    else:
        equality = Equality(wanted == given, "same letter" if wanted == given else "different letters")
    return Verdict(**equality._asdict(), extracted=answer, gold_form=wanted, answer_form=given)


def _verify_brackets(gold: str, answer: str) -> Verdict:
    same = same_brackets(gold, answer)
    reason = "same brackets" if same else "different brackets"
    return Verdict(correct=same, status="ok", reason=reason, extracted=answer, gold_form=gold, answer_form=answer)


def _verify_mathematics(gold: str, answer: str) -> Verdict:
    start_worker()
    if len(gold) + len(answer) > MAX_CACHED_CHARACTERS:
        return _judge.__wrapped__(gold, answer)
    verdict = _judge(gold, answer)
    if verdict.status == "timeout":
        # Another attempt may be faster.
        _judge.cache_clear()
    return verdict


def clear_cached_verdicts() -> None:
    """Empty the cache of verdicts, for benchmarks and tests."""
    _judge.cache_clear()


@lru_cache(maxsize=MAX_CACHED_VERDICTS)
def _judge(gold: str, answer: str) -> Verdict:
    gold_form, answer_form = normal_form(gold), normal_form(answer)
    equality = equal_forms(gold_form, answer_form)
    return Verdict(**equality._asdict(), extracted=answer, gold_form=gold_form, answer_form=answer_form)
