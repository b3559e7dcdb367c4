"""Registry of grading modes: ours, and the graders with which published numbers were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lm_eval_pruned.errors import unknown_name
from lm_eval_pruned.grading.answer_kinds import Kind, check_kind
from lm_eval_pruned.grading.equal import TOO_LONG, Equality
from lm_eval_pruned.grading.extract.extract import extract
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS
from lm_eval_pruned.grading.modes import hendrycks, minerva, prm800k, s1
from lm_eval_pruned.grading.verdict import Verdict, grade, no_answer, timed, verify
from lm_eval_pruned.registry import Registry

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """The rules of one grader, as three functions that evaluate nothing that a model wrote."""

    summary: str
    # The answer in a response, or None.
    extract: Callable[[str, Kind], str | None]
    # The verdict on a gold and an extracted answer.
    verify: Callable[[str, str, Kind], Verdict]
    # The verdict on a gold and a whole response, of which may be known whether the model finished it.
    grade: Callable[[str, str, Kind, bool | None], Verdict]


MODES: Registry[Mode] = Registry("mode")


def _string_mode(
    summary: str, extract_string: Callable[[str], str | None], equal: Callable[[str, str], Equality]
) -> Mode:
    """Make the mode of a grader that compares strings and knows no kinds: a letter is a string like any other."""

    def verify_string(gold: str, answer: str, kind: Kind) -> Verdict:
        if not answer.strip():
            return verify(gold, answer, kind)
        if max(len(gold), len(answer)) > MAX_ANSWER_CHARACTERS:
            same = gold == answer
            return Verdict(correct=same, status="ok" if same else "unparsed", reason=TOO_LONG, extracted=answer)
        equality = equal(gold, answer)
        return Verdict(correct=equality.correct, status="ok", reason=equality.reason, extracted=answer)

    def grade_string(gold: str, response: str, kind: Kind, finished: bool | None) -> Verdict:
        answer = extract_string(response)
        return no_answer() if answer is None else verify_string(gold, answer, kind)

    return Mode(
        summary=summary,
        extract=lambda response, kind: extract_string(response),
        verify=verify_string,
        grade=grade_string,
    )


MODES.add(
    DEFAULT,
    Mode(summary="Ours: the most explicit answer, compared exactly.", extract=extract, verify=verify, grade=grade),
)
for _name, _summary, _rules in (
    ("hendrycks", "MATH (2021): the last box, the same string after its normalisation.", hendrycks),
    ("minerva", "Minerva (2022): 'The final answer is', the same string without units; no sympy.", minerva),
    ("prm800k", "PRM800K (2023): '# Answer' or the last box, strings and numbers; no sympy.", prm800k),
    ("s1", "s1 (2025): the last box or 'Answer:', the same string or whole number; no judge.", s1),
):
    MODES.add(_name, _string_mode(_summary, _rules.extract, _rules.equal))


def check_mode(mode: str) -> None:
    """Raise an error for the name of a grading mode that does not exist.

    Raises:
        UnknownNameError: there is no such mode.
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)


def extract_in(mode: str, response: str, kind: Kind = "math") -> str | None:
    r"""Return the answer that a response gives under a mode, or None if it gives none.

    Raises:
        UnknownNameError: there is no such mode or kind.

    Example:
        >>> extract_in("default", "So it is (C).", "choice"), extract_in("hendrycks", "So it is (C).", "choice")
        ('C', None)
    """
    check_kind(kind)
    return MODES[mode].extract(response, kind)


@timed
def grade_in(mode: str, gold: str, response: str, kind: Kind = "math", finished: bool | None = None) -> Verdict:
    """Extract the answer from a response and judge it, both under a mode.

    Args:
        mode: name of the mode.
        gold: the right answer.
        response: all that the model wrote.
        kind: what the answer is; only our own mode looks at it.
        finished: whether the model ended its answer itself, None if that is not known; only our own mode looks at it.

    Raises:
        UnknownNameError: there is no such mode or kind.
    """
    check_kind(kind)
    return MODES[mode].grade(gold, response, kind, finished)


@timed
def verify_in(mode: str, gold: str, answer: str | None, kind: Kind = "math") -> Verdict:
    r"""Judge an extracted answer under a mode.

    Args:
        mode: name of the mode.
        gold: the right answer.
        answer: the extracted answer, None if the response gave none.
        kind: what the answer is; only our own mode looks at it.

    Raises:
        UnknownNameError: there is no such mode or kind.

    Example:
        >>> verify_in("default", "27", "27.0").correct, verify_in("s1", "27", "27.0").correct
        (True, False)
    """
    check_kind(kind)
    chosen = MODES[mode]
    return no_answer() if answer is None else chosen.verify(gold, answer, kind)
