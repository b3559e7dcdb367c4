"""Registry of grading modes: ours, and the graders with which published numbers were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lm_eval_pruned.grading.answer_kinds import Extraction, Kind, check_kind
from lm_eval_pruned.grading.equal import TOO_LONG, Equality
from lm_eval_pruned.grading.extract.extract import find_answer
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS
from lm_eval_pruned.grading.modes import hendrycks, minerva, prm800k, s1
from lm_eval_pruned.grading.verdict import Verdict, no_answer, timed, verify
from lm_eval_pruned.registry import Registry

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """The rules of one grader, as two functions that evaluate nothing that a model wrote."""

    summary: str
    # The answer in a response, or None; the last argument says whether the model finished it, if that is known.
    find: Callable[[str, Kind, bool | None], Extraction | None]
    # The verdict on a gold and an extracted answer.
    verify: Callable[[str, str, Kind], Verdict]


MODES: Registry[Mode] = Registry("mode")
MODES.add(DEFAULT, Mode(summary="Ours: the most explicit answer, compared exactly.", find=find_answer, verify=verify))


def _string_mode(summary: str, extract: Callable[[str], str | None], equal: Callable[[str, str], Equality]) -> Mode:
    """Make the mode of a grader that compares strings and knows no kinds: a letter is a string like any other."""

    def find(response: str, kind: Kind, finished: bool | None) -> Extraction | None:
        del kind, finished
        answer = extract(response)
        return None if answer is None else Extraction(answer, None)

    def verify_string(gold: str, answer: str, kind: Kind) -> Verdict:
        if not answer.strip():
            return verify(gold, answer, kind)
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
def grade_in(mode: str, gold: str, response: str, kind: Kind = "math", finished: bool | None = None) -> Verdict:
    """Do what `verdict.grade` does, by the rules of a mode; only our own looks at the kind and at `finished`.

    Raises:
        UnknownNameError: there is no such mode or kind.

    Example:
        >>> grade_in("default", "C", "So it is (C).", "choice").correct
        True
        >>> grade_in("hendrycks", "C", "So it is (C).", "choice").status
        'no_answer'
    """
    check_kind(kind)
    chosen = MODES[mode]
    found = chosen.find(response, kind, finished)
    return replace(chosen.verify(gold, found.answer, kind), stage=found.stage) if found else no_answer()


@timed
def verify_in(mode: str, gold: str, answer: str | None, kind: Kind = "math") -> Verdict:
    r"""Do what `verdict.verify` does, by the rules of a mode; an answer that is None was not given.

    Raises:
        UnknownNameError: there is no such mode or kind.

    Example:
        >>> verify_in("default", "27", "27.0").correct, verify_in("s1", "27", "27.0").correct
        (True, False)
    """
    check_kind(kind)
    chosen = MODES[mode]
    return no_answer() if answer is None else chosen.verify(gold, answer, kind)
