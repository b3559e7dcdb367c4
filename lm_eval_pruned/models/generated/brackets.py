"""Sequences of round, square and curly brackets to complete: the ones still open, closed from the inside out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import cycle, islice

from lm_eval_pruned.models.generated.draw import draw
from lm_eval_pruned.models.generated.question import MAX_EXAMPLES, Question

# Brackets that are open at the end of a sequence, which is also how deep it is nested.
NESTING = range(2, 13)
SEED = 2027
# Sequences of each nesting, besides the solved examples.
ROUNDS = 18

_PAIRS: Mapping[str, str] = {"(": ")", "[": "]", "{": "}"}
_OPENING = "([{"
_INSTRUCTION = "Close every open bracket, with as few brackets as possible, and answer with the missing ones only:"


def bracket_questions() -> list[Question]:
    """Return sequences with 2 to 12 open brackets in turn, 18 of each after 16 to show solved, all different.

    Reference: the Dyck languages of BIG-bench, Srivastava et al. 2022, arXiv 2206.04615.
    """
    rng = random.Random(SEED)
    chosen: dict[str, Question] = {}
    for nesting in (*islice(cycle(NESTING), MAX_EXAMPLES), *(list(NESTING) * ROUNDS)):
        while (question := bracket_question(rng, nesting))["question"] in chosen:
            pass
        chosen[str(question["question"])] = question
    return list(chosen.values())


def bracket_question(rng: random.Random, nesting: int) -> Question:
    """Draw a sequence that leaves `nesting` brackets open and is nowhere nested deeper.

    It ends with an opening bracket, and the shortest completion is the only one without an opening bracket.

    Example:
        >>> question = bracket_question(random.Random(4), 3)
        >>> question["question"].rpartition(": ")[2], question["answer"]
        ('( ( ) [ { } [ ] (', ') ] )')
    """
    shown: list[str] = []
    opened: list[str] = []
    for level in range(nesting):
        for _ in range(draw(rng, range(3))):
            shown += _group(rng, draw(rng, range(1, min(2, nesting - level) + 1)))
        opened.append(draw(rng, _OPENING))
        shown.append(opened[-1])
    missing = [_PAIRS[bracket] for bracket in reversed(opened)]
    question = f"{_INSTRUCTION} {' '.join(shown)}"
    return {"question": question, "answer": " ".join(missing), "nesting": nesting, "brackets": len(shown)}


def _group(rng: random.Random, depth: int) -> list[str]:
    """Draw `depth` pairs, one inside the other."""
    opened = [draw(rng, _OPENING) for _ in range(depth)]
    return [*opened, *(_PAIRS[bracket] for bracket in reversed(opened))]
