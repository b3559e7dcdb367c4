"""Kinds of answers (mathematics or the letter of a choice), stages of extraction and statuses of a verdict."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from lm_eval_pruned.errors import unknown_name

Kind = Literal["math", "choice"]
Status = Literal["ok", "timeout", "unparsed", "no_answer"]
Stage = Literal["explicit", "sentence"]


class Extraction(NamedTuple):
    """An answer found in a response, and how it is given; None where a mode knows no stages."""

    answer: str
    stage: Stage | None


def check_kind(kind: str) -> None:
    """Raise an error for a kind of answer that does not exist.

    Raises:
        UnknownNameError: `kind` is neither "math" nor "choice".
    """
    known = get_args(Kind)
    if kind not in known:
        raise unknown_name("kind", kind, known)
