r"""Grading as for s1, without its judge: the last box of the answer or the text after "Answer:", compared as strings.

Reference: Muennighoff et al., s1: Simple test-time scaling, arXiv 2501.19393, and its evaluation code.
"""

from __future__ import annotations

import re

from lm_eval_pruned.grading.equal import Equality
from lm_eval_pruned.grading.modes.hendrycks import extract as last_box

MARKER = "<|im_start|>"
ANSWER_MARKER = "<|im_start|>answer\n"

_ANNOUNCED = re.compile(r"answer\s*:\s*", re.IGNORECASE)


def extract(response: str) -> str:
    r"""Return the last box of the text after the thinking, else the text after its first "Answer:", else all of it.

    Blanks and a full stop at the end stay, as in the original, and so does any other text after "Answer:".

    Differs: the content of an `\fbox` counts; the original fails on it.

    Example:
        >>> extract("<|im_start|>think\n\\boxed{1}<|im_start|>answer\nFinal Answer: It is \\boxed{025}.")
        '025'
        >>> extract("Final Answer: 25.\nOr Answer: 26")
        '25.\nOr Answer: 26'
    """
    text = _answer_part(response)
    box = last_box(text)
    if box is not None:
        return box
    announced = _ANNOUNCED.search(text)
    return text[announced.end() :] if announced else text


def equal(gold: str, answer: str) -> Equality:
    """Compare whole numbers by value and everything else as strings.

    Differs: the original has a language model judge what is not a whole number; here it is compared as a string.

    Example:
        >>> equal("025", "25").reason, equal("27", "27.0").correct
        ('same whole number', False)
    """
    if _is_whole(gold) and _is_whole(answer):
        same = gold.lstrip("0") == answer.lstrip("0")
        return Equality(same, "same whole number" if same else "different whole numbers")
    return Equality(gold == answer, "same string" if gold == answer else "different strings")


def _answer_part(response: str) -> str:
    _, found, rest = response.rpartition(ANSWER_MARKER)
    if found:
        return rest
    _, found, rest = response.rpartition(MARKER)
    # The first line after a marker is a role.
    return rest.partition("\n")[2] if found and "\n" in rest else rest


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()
