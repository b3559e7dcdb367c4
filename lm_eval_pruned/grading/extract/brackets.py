"""Missing brackets: what a response adds to a sequence of brackets to close it, compared without blanks and commas."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.answer_kinds import Extraction
from lm_eval_pruned.grading.limits import MAX_RESPONSE_CHARACTERS

_PAIRS = {")": "(", "]": "[", "}": "{"}
_BOX = re.compile(r"\\(?:boxed|fbox|text[a-z]{0,2}|math[a-z]{0,4}) ?\{")
# Escapes and mark-up, and words in parentheses, whose brackets are not an answer.
_NOT_BRACKETS = re.compile(r"[\\$*`\"']|\([^()\[\]{}]{0,80}[^\W_][^()\[\]{}]{0,80}\)")
_RUN = re.compile(r"[()\[\]{}](?:[\s,]*[()\[\]{}])*")
_SEPARATORS = str.maketrans("", "", " \t\r\n\f\v,")


def find_brackets(text: str, finished: bool | None = None) -> Extraction | None:
    r"""Return the last brackets in a response without its thinking, or None if there are none.

    Of a balanced sequence that is written out whole, these are the brackets after the last opening one. A response that
    was cut counts only with a box.

    Example:
        >>> find_brackets("Close them (in order): `] )`"), find_brackets(r"So \boxed{])\}}.").answer
        (Extraction(answer='])', stage='sentence'), '])}')
        >>> find_brackets("The whole is ( [ { } ( [ ] ) ] ).").answer, find_brackets("( ] )").answer
        ('])])', '(])')
    """
    text = text[-MAX_RESPONSE_CHARACTERS:]
    has_words = any(character.isalnum() for character in text)
    for line in reversed(text.split("\n") if has_words else [text]):
        plain, boxes = _BOX.subn("", line)
        # The last brace closes the box.
        plain = plain[::-1].replace("}", "", boxes)[::-1]
        runs = _RUN.findall(_NOT_BRACKETS.sub("", plain))
        if runs and (boxes or finished is not False):
            answer = runs[-1].translate(_SEPARATORS)
            missing = re.split(r"[(\[{]", answer)[-1] if _is_balanced(answer) else answer
            return Extraction(missing, "explicit" if boxes else "sentence")
    return None


def same_brackets(gold: str, answer: str) -> bool:
    """Return whether two answers are the same brackets in the same order, blanks and commas aside.

    Example:
        >>> same_brackets("} ]", "}]"), same_brackets("} ]", "]}")
        (True, False)
    """
    return gold.translate(_SEPARATORS) == answer.translate(_SEPARATORS)


def _is_balanced(brackets: str) -> bool:
    opened: list[str] = []
    for bracket in brackets:
        if bracket not in _PAIRS:
            opened.append(bracket)
        elif not opened or opened.pop() != _PAIRS[bracket]:
            return False
    return not opened
