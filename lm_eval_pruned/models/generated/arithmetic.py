"""Chains of additions, subtractions and multiplications of one-digit numbers, in digits or in words."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import cycle

Question = dict[str, object]

MAX_STEPS = 16
# Values stay within three digits, so that a longer chain is more steps and not larger numbers.
LARGEST = 999
SEED = 2026
# Chains of each length, and one round more of solved examples.
ROUNDS = 12

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_VERBS: Mapping[str, str] = {"+": "add", "-": "subtract", "*": "multiply by"}


def arithmetic_questions() -> list[Question]:
    """Return chains of 1 to 16 steps in turn, every second round in words: 13 of each length, all different.

    Reference: the arithmetic tasks of Brown et al. 2020, arXiv 2005.14165; arXiv 2602.01997 finds that layer pruning
    costs arithmetic first.
    """
    rng = random.Random(SEED)
    chosen: dict[str, Question] = {}
    for _, form in zip(range(ROUNDS + 1), cycle(("digits", "words")), strict=False):
        for steps in range(1, MAX_STEPS + 1):
            while (question := arithmetic_question(rng, steps, form=form))["question"] in chosen:
                pass
            chosen[str(question["question"])] = question
    return list(chosen.values())


def arithmetic_question(rng: random.Random, steps: int, *, form: str) -> Question:
    """Draw one chain of `steps` operations, each on the result of the one before.

    Example:
        >>> rng = random.Random(1)
        >>> arithmetic_question(rng, 2, form="digits")["question"]
        'What is (4 * 3) - 3?'
        >>> arithmetic_question(rng, 1, form="words")["question"]
        'Start with nine and subtract nine. What is the result?'
    """
    value = rng.randint(2, 9)
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
        symbol, operand = rng.choice("+-*"), rng.randint(2, 9)
        if abs(_apply(symbol, value, operand)) <= LARGEST and (symbol != "*" or value):
            return symbol, operand


def _apply(symbol: str, value: int, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[symbol]
