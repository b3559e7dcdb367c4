"""The problems that tiny-reasoner solves: chains of one-digit assignments modulo ten.

A problem of `n` steps binds n + 1 consecutive letters, each to the previous one and a digit; its reasoning
repeats every assignment with the value filled in. Each step is easy and costs twelve tokens, so only the length of
the chain makes a problem hard, and a thinking budget of B tokens suffices for (B - 1) // 12 steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_lowercase

STEP_TOKENS = 12
MAX_STEPS = 20

# Factors of 0, 2, 4, 5, ... would let the result be guessed; with these all ten values stay possible at each step.
_OPERANDS = {"+": "0123456789", "-": "0123456789", "*": "1379"}

_OPERATIONS = {
    "+": lambda left, right: (left + right) % 10,
    "-": lambda left, right: (left - right) % 10,
    "*": lambda left, right: (left * right) % 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One problem with its reasoning and answer, all as plain text."""

    problem: str
    reasoning: str
    answer: str
    steps: int


def sample_chain(rng: random.Random, steps: int) -> Chain:
    """Draw one chain of `steps` assignments.

    Example:
        >>> chain = sample_chain(random.Random(3), 2)
        >>> chain.problem
        'h=9;i=h*3;j=i-9;j mod 10?'
        >>> chain.reasoning
        'i=h*3=9*3=7;j=i-9=7-9=8;'
    """
    letters = ascii_lowercase[rng.randrange(len(ascii_lowercase) - steps) :]
    value = rng.randrange(10)
    problem, reasoning = [f"{letters[0]}={value}"], []
    for previous, letter in pairwise(letters[: steps + 1]):
        symbol = rng.choice("+-*")
        digit = int(rng.choice(_OPERANDS[symbol]))
        result = _OPERATIONS[symbol](value, digit)
        problem.append(f"{letter}={previous}{symbol}{digit}")
        reasoning.append(f"{letter}={previous}{symbol}{digit}={value}{symbol}{digit}={result};")
        value = result
    return Chain(
        problem=";".join(problem) + f";{letters[steps]} mod 10?",
        reasoning="".join(reasoning),
        answer=str(value),
        steps=steps,
    )


def benchmark_chains(seed: int = 2024, per_group: int = 40) -> list[Chain]:
    """Draw the benchmark: `per_group` distinct chains for each of the budgets 16, 32, 64, 128 and 256.

    A group holds the chains whose reasoning fits its budget and not the one below, so that every budget unlocks a
    fifth of the questions.
    """
    rng = random.Random(seed)
    groups = [(1, 1), (2, 2), (3, 5), (6, 10), (11, MAX_STEPS)]
    chosen: dict[str, Chain] = {}
    for index, (fewest, most) in enumerate(groups, start=1):
        while len(chosen) < index * per_group:
            chain = sample_chain(rng, rng.randint(fewest, most))
            chosen.setdefault(chain.problem, chain)
    return list(chosen.values())
