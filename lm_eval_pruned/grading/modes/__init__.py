"""Registry of grading modes: ours, and the graders with which published numbers were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lm_eval_pruned.grading.answer_kinds import Extraction, Kind, check_kind
from lm_eval_pruned.grading.equal import TOO_LONG, Equality
from lm_eval_pruned.grading.extract.extract import find_answer
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS
from lm_eval_pruned.grading.modes import hendrycks, minerva, prm800k, s1
from lm_eval_pruned.grading.verdict import Verdict, timed, verify_kind
from lm_eval_pruned.registry import Registry

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """The rules of one grader, as two functions that evaluate nothing that a model wrote."""

    summary: str
    # The answer in a response, or None; the last argument says whether the model finished it, if that is known.
    find: Callable[[str, Kind, bool | None], Extraction | None]
    # The verdict on a gold and an extracted answer that is not blank.
    verify: Callable[[str, str, Kind], Verdict]


MODES: Registry[Mode] = Registry("mode")
MODES.add(
    DEFAULT, Mode(summary="Ours: the most explicit answer, compared exactly.", find=find_answer, verify=verify_kind)
)


def _string_mode(summary: str, extract: Callable[[str], str | None], equal: Callable[[str, str], Equality]) -> Mode:
    """Make the mode of a grader that compares strings and knows no kinds: a letter is a string like any other."""

    def find(response: str, kind: Kind, finished: bool | None) -> Extraction | None:
        del kind, finished
        answer = extract(response)
        return None if answer is None else Extraction(answer, None)

    def verify_string(gold: str, answer: str, kind: Kind) -> Verdict:
        del kind
        if max(len(gold), len(answer)) > MAX_ANSWER_CHARACTERS:
            equality = Equality(gold == answer, TOO_LONG, "ok" if gold == answer else "unparsed")
        else:
            equality = equal(gold, answer)
        return Verdict(**equality._asdict(), extracted=answer)

    return Mode(summary=summary, find=find, verify=verify_string)


for _name, _summary, _rules in (
    ("hendrycks", "MATH (2021): the last box, the same string after its normalisation.", hendrycks),
    ("minerva", "Minerva (2022): 'The final answer is', the same string without units; no sympy.", minerva),
    ("prm800k", "PRM800K (2023): '# Answer' or the last box, strings and numbers; no sympy.", prm800k),
    ("s1", "s1 (2025): the last box or 'Answer:', the same string or whole number; no judge.", s1),
):
    MODES.add(_name, _string_mode(_summary, _rules.extract, _rules.equal))


@timed
def grade(
    gold: str, response: str, kind: Kind = "math", finished: bool | None = None, *, mode: str = DEFAULT
) -> Verdict:
    r"""Extract the answer from a response and judge it; no text raises.

    The last box is the answer, together with the boxes that "and", "or" or a comma joins to it.

    Args:
        gold: the right answer.
        response: all that the model wrote.
        kind: what the answer is, "math", "choice" or "brackets"; only our own mode looks at it, and at `finished`.
        finished: whether the model ended its answer itself. In a response that was cut (False), only explicit answers
            count; without that knowledge (None), a response that stops in mid-sentence counts as cut.
        mode: whose rules are used, a name in `MODES`.

    Raises:
        UnknownNameError: there is no such kind or mode.

    Example:
        >>> verdict = grade("25", r"So the sum is \boxed{025.0}")
        >>> verdict.correct, verdict.reason, verdict.extracted, verdict.stage
        (True, 'same number', '025.0', 'explicit')
        >>> grade("25", "I do not know.").status, grade("C", "So it is (C).", "choice", mode="hendrycks").status
        ('no_answer', 'no_answer')
    """
    check_kind(kind)
    found = MODES[mode].find(response, kind, finished)
    verdict = verify(gold, found.answer if found else None, kind, mode=mode)
    return replace(verdict, stage=found.stage) if found else verdict


@timed
def verify(gold: str, answer: str | None, kind: Kind = "math", *, mode: str = DEFAULT) -> Verdict:
    r"""Judge an answer that has already been extracted; None if there is none.

    Raises:
        UnknownNameError: there is no such kind or mode.

    Example:
        >>> verify(r"\frac{1}{2}", "0.5").correct, verify("025", "25.0").reason
        (True, 'same number')
        >>> verify("C", "(c)", kind="choice").correct, verify("27", "27.0", mode="s1").correct
        (True, False)
    """
    check_kind(kind)
    chosen = MODES[mode]
    if answer is None or not answer.strip():
        reason = "no answer in the response" if answer is None else "the answer is empty"
        return Verdict(correct=False, status="no_answer", reason=reason, extracted=None)
    return chosen.verify(gold, answer, kind)
