"""Modes of grading: ours, and those under which others have published their numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lm_eval_pruned.errors import unknown_name
from lm_eval_pruned.grading.answer_kinds import Kind, check_kind
from lm_eval_pruned.grading.equal import TOO_LONG, Equality, equal
from lm_eval_pruned.grading.extract.extract import extract
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS
from lm_eval_pruned.grading.modes import hendrycks, minerva, prm800k, s1
from lm_eval_pruned.grading.verdict import Verdict, grade, timed, verify
from lm_eval_pruned.registry import Registry

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How an answer is found in a response and compared with the gold, both in linear time and without evaluating."""

    summary: str
    extract: Callable[[str], str | None]
    equal: Callable[[str, str], Equality]


MODES: Registry[Mode] = Registry("mode")

MODES.add(
    DEFAULT,
    Mode(summary="Ours: the most explicit answer, compared exactly.", extract=extract, equal=equal),
)
MODES.add(
    "hendrycks",
    Mode(
        summary="MATH (2021): the last box, the same string after its normalisation.",
        extract=hendrycks.last_box,
        equal=hendrycks.equal,
    ),
)
MODES.add(
    "minerva",
    Mode(
        summary="Minerva (2022): 'The final answer is', the same string without units; no sympy.",
        extract=minerva.extract,
        equal=minerva.equal,
    ),
)
MODES.add(
    "prm800k",
    Mode(
        summary="PRM800K (2023): '# Answer' or the last box, strings and numbers; no sympy.",
        extract=prm800k.extract,
        equal=prm800k.equal,
    ),
)
MODES.add(
    "s1",
    Mode(
        summary="s1 (2025): the last box or 'Answer:', the same string or whole number; no judge.",
        extract=s1.extract,
        equal=s1.equal,
    ),
)


def check_mode(mode: str) -> None:
    """Refuse a mode that does not exist.

    Raises:
        UnknownNameError: there is no such mode.
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)


def extract_in(mode: str, response: str, kind: Kind = "math") -> str | None:
    r"""Return the answer a response gives under a mode, or None where it gives none.

    Raises:
        UnknownNameError: there is no such mode or kind.

    Example:
        >>> extract_in("default", "So it is (C).", "choice"), extract_in("hendrycks", "So it is (C).", "choice")
        ('C', None)
    """
    check_kind(kind)
    return extract(response, kind) if mode == DEFAULT else MODES[mode].extract(response)


@timed
def grade_in(mode: str, gold: str, response: str, kind: Kind = "math") -> Verdict:
    """Extract the answer from a response and judge it, both under a mode.

    Raises:
        UnknownNameError: there is no such mode or kind.
    """
    if mode == DEFAULT:
        return grade(gold, response, kind)
    return verify_in(mode, gold, extract_in(mode, response, kind), kind)


@timed
def verify_in(mode: str, gold: str, answer: str | None, kind: Kind = "math") -> Verdict:
    r"""Judge an answer under a mode; None is a response that gave none.

    Only our own mode knows letters: to the others the letter of a choice is a string like any.

    Raises:
        UnknownNameError: there is no such mode or kind.

    Example:
        >>> verify_in("default", "27", "27.0").correct, verify_in("s1", "27", "27.0").correct
        (True, False)
    """
    check_kind(kind)
    chosen = MODES[mode]
    if answer is None:
        return Verdict(correct=False, status="no_answer", reason="no answer in the response", extracted=None)
    if mode == DEFAULT or not answer.strip():
        return verify(gold, answer, kind)
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARACTERS:
        same = gold == answer
        return Verdict(correct=same, status="ok" if same else "unparsed", reason=TOO_LONG, extracted=answer)
    equality = chosen.equal(gold, answer)
    return Verdict(correct=equality.correct, status="ok", reason=equality.reason, extracted=answer)
