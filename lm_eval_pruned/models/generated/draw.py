"""A random choice that is the same with every version of Python."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


def draw(rng: random.Random, options: Sequence[Option]) -> Option:
    """Return one of the options, each as likely as the others.

    Python promises that `random()` gives the same numbers in every version, and promises it of no other method.

    Example:
        >>> draw(random.Random(1), "+-*"), draw(random.Random(2), range(2, 10))
        ('+', 9)
    """
    return options[int(rng.random() * len(options))]
