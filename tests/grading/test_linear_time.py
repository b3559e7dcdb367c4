"""Linear time: no text makes a pattern of the package or a verdict take longer than in proportion to its length."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from time import process_time

import pytest

from lm_eval_pruned import grading
from lm_eval_pruned.grading import grade, verify

# Pieces that patterns repeat; each is repeated to the longest answer, between a start and an end that may not match.
UNITS = (
    *" \t0a,(-\\{$.*^_/=:;!|&<\n'\"[",
    *(
        "1,",
        " ,",
        ", ",
        "1 ",
        "0.",
        "ab",
        "x ",
        "(1",
        "a=",
        "-1",
        "1/",
        "1.",
        "{1",
        "^{",
        "{2}",
        "\\ ",
        "\\*",
        "\\\\",
        "<a",
    ),
    *("\\text{", "\\text{m}", "\\frac{1}{2}", "\\sqrt", "\\over", "\\pi", "\\boxed{", "\\begin{", "[1,", "]1,", "&lt;"),
    *("and ", " or ", "A or ", "answer ", "answer is ", "not 1 ", "1e", "1m", "x^-", "x_1", "1!", "\u00a0", "\u00b2"),
)
FRAMES = (("", ""), ("7", "8"), ("x=", "!"), ("\\text{", "}"))
SHORT, LONG = 5_000, 10_000
# Linear time doubles with the length. More than four times as much is quadratic; the rest is a busy machine.
MOST_TIMES, SLACK = 4, 0.05


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    for module in pkgutil.walk_packages(grading.__path__, f"{grading.__name__}."):
        for name, value in vars(import_module(module.name)).items():
            found = value if isinstance(value, (list, tuple)) else [value]
            for part in (part for item in found for part in (item if isinstance(item, tuple) else (item,))):
                if isinstance(part, re.Pattern):
                    yield f"{module.name.removeprefix(grading.__name__)}.{name}", part


PATTERNS = dict(patterns())


def text(unit: str, length: int, frame: tuple[str, str] = ("", "")) -> str:
    return frame[0] + (unit * length)[:length] + frame[1]


def seconds(judge: Callable[[str], object], given: str) -> float:
    times = []
    for _ in range(2):
        start = process_time()
        judge(given)
        times.append(process_time() - start)
    return min(times)


def is_linear(judge: Callable[[str], object], unit: str, frame: tuple[str, str]) -> bool:
    """Compare the times of two lengths; if the longer one is fast, the shorter one is not timed."""
    longer = seconds(judge, text(unit, LONG, frame))
    return longer <= SLACK or longer <= SLACK + MOST_TIMES * seconds(judge, text(unit, SHORT, frame))


def test_the_search_finds_the_patterns() -> None:
    assert len(PATTERNS) > 60


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_take_linear_time(name: str) -> None:
    pattern = PATTERNS[name]

    def match(given: str) -> None:
        pattern.match(given)
        pattern.fullmatch(given)

    assert [(unit, frame) for unit in UNITS for frame in FRAMES if not is_linear(match, unit, frame)] == []


@pytest.mark.parametrize("unit", UNITS)
def test_verdicts_take_linear_time(unit: str) -> None:
    for frame in FRAMES:
        assert is_linear(lambda given: verify("7", given), unit, frame), frame
        assert is_linear(lambda given: grade("7", f"\\boxed{{{given}}}"), unit, frame), frame
        assert is_linear(lambda given: grade("7", given), unit, frame), frame
        assert is_linear(lambda given: grade("A", given, "choice"), unit, frame), frame


def test_long_numbers_take_linear_time() -> None:
    assert is_linear(lambda given: verify(given + "7", given + "8"), "9", ("", ""))
    assert is_linear(lambda given: verify(given, given + ",001"), ",000", ("1", ""))
