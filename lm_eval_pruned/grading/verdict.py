"""A verdict says whether an answer is right, whether that could be decided at all, and why."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_pruned.grading.equal import equal, is_list
from lm_eval_pruned.grading.extract import extract, extract_list
from lm_eval_pruned.grading.kinds import Kind, Status, check_kind
from lm_eval_pruned.grading.letters import read_letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of grading one answer.

    Only `status="ok"` is a decision; "no_answer" (nothing was given), "unparsed" (what was given cannot be read) and
    "timeout" are kept apart from wrong answers.
    """

    correct: bool
    status: Status
    reason: str
    extracted: str | None


def verify(gold: str, answer: str, kind: Kind = "math") -> Verdict:
    r"""Judge an answer that has already been extracted.

    Raises:
        UnknownNameError: `kind` is neither "math" nor "choice".

    Example:
        >>> verify(r"\frac{1}{2}", "0.5").correct, verify("025", "25.0").reason
        (True, 'same number')
        >>> verify("C", "(c)", kind="choice").correct
        True
    """
    check_kind(kind)
    if not answer.strip():
        return Verdict(correct=False, status="no_answer", reason="the answer is empty", extracted=None)
    return _verify_letter(gold, answer) if kind == "choice" else _verify_mathematics(gold, answer)


def grade(gold: str, response: str, kind: Kind = "math") -> Verdict:
    r"""Extract the answer from a response and judge it, whatever the response is.

    Only where the gold is a list are the boxes of one line its members; elsewhere the last one is the answer.

    Raises:
        UnknownNameError: `kind` is neither "math" nor "choice".

    Example:
        >>> grade("25", r"So the sum is \boxed{025}.")
        Verdict(correct=True, status='ok', reason='same number', extracted='025')
        >>> grade("25", "I do not know.").status
        'no_answer'
    """
    extracted = extract(response, kind)
    if extracted is None:
        return Verdict(correct=False, status="no_answer", reason="no answer in the response", extracted=None)
    verdict = verify(gold, extracted, kind)
    if not verdict.correct and kind == "math" and is_list(gold) and (members := extract_list(response)):
        return verify(gold, members, kind)
    return verdict


def _verify_letter(gold: str, answer: str) -> Verdict:
    wanted, given = read_letter(gold), read_letter(answer)
    if wanted is None or given is None:
        culprit = "gold" if wanted is None else "answer"
        return Verdict(correct=False, status="unparsed", reason=f"the {culprit} is no letter A to D", extracted=answer)
    reason = "same letter" if wanted == given else "different letters"
    return Verdict(correct=wanted == given, status="ok", reason=reason, extracted=answer)


def _verify_mathematics(gold: str, answer: str) -> Verdict:
    equality = equal(gold, answer)
    return Verdict(correct=equality.correct, status=equality.status, reason=equality.reason, extracted=answer)
