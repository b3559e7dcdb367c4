"""Chains of additions, subtractions and multiplications of one-digit numbers, in digits, in words or as assignments."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import cycle

from lm_eval_pruned.assets.tiny_reasoner.chains import sample_chain
from lm_eval_pruned.errors import unknown_name
from lm_eval_pruned.models.generated.draw import draw
from lm_eval_pruned.models.generated.question import Question

# The last is that of tiny-reasoner, modulo ten.
FORMS = ("digits", "words", "assignments")
MAX_STEPS = 16
# Values stay within three digits, so that a longer chain is more steps and not larger numbers.
LARGEST = 999
SEED = 2026
# Chains of each length, and one round more of solved examples.
ROUNDS = 12

_OPERANDS = range(2, 10)
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_VERBS: Mapping[str, str] = {"+": "add", "-": "subtract", "*": "multiply by"}


def arithmetic_questions(form: str | None = None) -> list[Question]:
    """Return chains of 1 to 16 steps in turn, 13 of each length, all different: in one form, or in digits and in words.

    Raises:
        UnknownNameError: there is no such form.

    Reference: the arithmetic tasks of Brown et al. 2020, arXiv 2005.14165; arXiv 2602.01997 finds that layer pruning
    costs arithmetic first.
    """
    if form not in (None, *FORMS):
        raise unknown_name("form", form, FORMS)
    rng = random.Random(SEED)
    chosen: dict[str, Question] = {}
    for _, shown in zip(range(ROUNDS + 1), cycle((form,) if form else ("digits", "words")), strict=False):
        for steps in range(1, MAX_STEPS + 1):
            while (question := arithmetic_question(rng, steps, form=shown))["question"] in chosen:
                pass
            chosen[str(question["question"])] = question
    return list(chosen.values())


def arithmetic_question(rng: random.Random, steps: int, *, form: str) -> Question:
    """Draw one chain of `steps` operations, each on the result of the one before, in one of `FORMS`.

    Example:
        >>> rng = random.Random(1)
        >>> arithmetic_question(rng, 2, form="digits")["question"]
        'What is (3 * 8) + 5?'
        >>> arithmetic_question(rng, 1, form="words")["question"]
        'Start with five and subtract eight. What is the result?'
    """
    if form == "assignments":
        chain = sample_chain(rng, steps)
        return {"question": chain.problem, "answer": chain.answer, "steps": steps, "form": form}
    value = draw(rng, _OPERANDS)
    digits, words = str(value), [f"Start with {_WORDS[value]}"]
    for step in range(steps):
        symbol, operand = _draw(rng, value)
        digits = f"{f'({digits})' if step else digits} {symbol} {operand}"
        words.append(f"{_VERBS[symbol]} {_WORDS[operand]}")
        value = _apply(symbol, value, operand)
    spoken = f"{', '.join(words[:-1])} and {words[-1]}. What is the result?"
    question = f"What is {digits}?" if form == "digits" else spoken
    return {"question": question, "answer": str(value), "steps": steps, "form": form}


def _draw(rng: random.Random, value: int) -> tuple[str, int]:
    """Draw an operation whose result stays within three digits; 0 is not multiplied."""
    while True:
        symbol, operand = draw(rng, "+-*"), draw(rng, _OPERANDS)
        if abs(_apply(symbol, value, operand)) <= LARGEST and (symbol != "*" or value):
            return symbol, operand


def _apply(symbol: str, value: int, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[symbol]
