"""Kinds of answers (mathematics, a letter, missing brackets), stages of extraction and statuses of a verdict."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from lm_eval_pruned.errors import unknown_name

Kind = Literal["math", "choice", "brackets"]
Status = Literal["ok", "timeout", "unparsed", "no_answer"]
Stage = Literal["explicit", "sentence"]

_MISSING = re.compile(r"[)\]}\s]*[)\]}][)\]}\s]*")


class Extraction(NamedTuple):
    """An answer found in a response, and how it is given; None where a mode knows no stages."""

    answer: str
    stage: Stage | None


def kind_of(gold: str) -> Kind:
    """Return the kind of a gold answer from its text.

    Example:
        >>> kind_of("C"), kind_of("} ]"), kind_of("[1]")
        ('choice', 'brackets', 'math')
    """
    if gold in tuple("ABCDEFGHIJ"):
        return "choice"
    return "brackets" if _MISSING.fullmatch(gold) else "math"


def check_kind(kind: str) -> None:
    """Raise UnknownNameError for a kind of answer that does not exist."""
    if kind not in get_args(Kind):
        raise unknown_name("kind", kind, get_args(Kind))
