"""Verdicts: whether an answer is right, whether that could be decided at all, and why."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from time import perf_counter
from typing import ParamSpec

from lm_eval_pruned.grading.answer_kinds import Kind, Stage, Status
from lm_eval_pruned.grading.equal import Equality, equal_forms, normal_form
from lm_eval_pruned.grading.extract.brackets import same_brackets
from lm_eval_pruned.grading.extract.choices import read_letter
from lm_eval_pruned.grading.extract.sentences import find_conclusion
from lm_eval_pruned.grading.extract.statements import PROSE_WORDS
from lm_eval_pruned.grading.limits import MAX_CACHED_CHARACTERS, MAX_CACHED_VERDICTS
from lm_eval_pruned.grading.symbolic.worker import start as start_worker
from lm_eval_pruned.grading.vocabulary import TYPED_COMMANDS

_Arguments = ParamSpec("_Arguments")

_PROSE = re.compile(r"(?<!\S)[A-Za-z]{2,}(?=[\s,.;:]|\Z)")
# A number with words behind it is no sentence, and a sentence with one of these does not say which value it is.
_WITHHELD = re.compile(
    r"\A[\s$-]*[0-9]|\A\W*(?:yes|no|true|false)\b|\b(?:not|cannot|never|than|either|or|except|if|maybe|unless)\b|n['\u2019]t\b|[<>]|\\[lg]e",
    re.IGNORECASE,
)


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
    """Decorate a function so that its verdict has the milliseconds it took."""

    @wraps(judge)
    def timed_judge(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Verdict:
        start = perf_counter()
        verdict = judge(*args, **kwargs)
        return replace(verdict, milliseconds=1000 * (perf_counter() - start))

    return timed_judge


def verify_kind(gold: str, answer: str, kind: Kind) -> Verdict:
    r"""Judge an answer by our own rules for its kind.

    Example:
        >>> verify_kind(r"\frac{1}{2}", "0.5", "math").reason, verify_kind("C", "(c)", "choice").reason
        ('same number', 'same letter')
    """
    return {"choice": _verify_letter, "brackets": _verify_brackets, "math": _verify_mathematics}[kind](gold, answer)


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


def _is_sentence(text: str) -> bool:
    return len([word for word in _PROSE.findall(text) if word not in TYPED_COMMANDS]) >= PROSE_WORDS


def _concluded_form(sentence: str) -> str:
    """Return the normal form of what a sentence concludes, such as 5 of "The sum is 5.", empty if it does not say."""
    return "" if _WITHHELD.search(sentence) else normal_form(find_conclusion(sentence) or "")


@lru_cache(maxsize=MAX_CACHED_VERDICTS)
def _judge(gold: str, answer: str) -> Verdict:
    gold_form, answer_form = normal_form(gold), normal_form(answer)
    equality = equal_forms(gold_form, answer_form)
    sentences = [] if equality else [_is_sentence(text) for text in (gold, answer)]
    if any(sentences) and not all(sentences):
        sentence, other = (gold, answer_form) if sentences[0] else (answer, gold_form)
        concluded = _concluded_form(sentence)
        equality = (equal_forms(concluded, other) or equality) if concluded else equality
    return Verdict(**equality._asdict(), extracted=answer, gold_form=gold_form, answer_form=answer_form)
