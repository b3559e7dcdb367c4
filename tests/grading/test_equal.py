"""Equality of two answers: rows of cases, golds of the benchmarks, random fractions, adversarial and overlong text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.grading import grade
from lm_eval_pruned.grading.equal import TOO_LONG, equal
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS, MAX_DECIMAL_EXPONENT, MAX_NUMBER_CHARACTERS
from lm_eval_pruned.grading.normalize.normalize import normalize
from lm_eval_pruned.grading.read.parser import read
from tests.grading.test_normalize import answers

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "equal.jsonl").read_text().splitlines()]

integers = st.integers(-(10**6), 10**6)


def golds(folder: Path) -> Iterator[str]:
    for name in ("math500", "aime24", "amc23"):
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            yield json.loads(line)["answer"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['gold']} | {row['answer']} | {row['why']}")
def test_cases(row: dict[str, Any]) -> None:
    assert equal(row["gold"], row["answer"]).correct is row["correct"]
    assert equal(row["answer"], row["gold"]) == equal(row["gold"], row["answer"])


@settings(max_examples=200, deadline=None)
@given(answers, answers)
def test_the_order_of_two_answers_never_matters(gold: str, answer: str) -> None:
    assert equal(gold, answer) == equal(answer, gold)


@settings(max_examples=100, deadline=None)
@given(integers, integers.filter(bool), integers, integers.filter(bool))
def test_fractions_compare_as_fractions_do(a: int, b: int, c: int, d: int) -> None:
    assert equal(f"\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{c}}}{{{d}}}").correct == (Fraction(a, b) == Fraction(c, d))


@settings(max_examples=100, deadline=None)
@given(integers, st.integers(1, 10**4), st.integers(0, 9))
def test_a_decimal_with_enough_digits_equals_the_fraction_it_rounds(above: int, below: int, places: int) -> None:
    value = Fraction(above, below)
    shifted = abs(value) * 10**places
    digits = f"{int(shifted + Fraction(1, 2)):0{places + 1}d}"
    decimal = ("-" if value < 0 else "") + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)
    exact = Fraction(decimal) == value
    enough = places > 0 and len(digits.lstrip("0")) >= 4 and value.denominator > 1
    assert equal(f"\\frac{{{above}}}{{{below}}}", decimal).correct == (exact or enough)


def test_every_gold_equals_itself_and_its_box(data_folder: Path) -> None:
    for gold in golds(data_folder):
        assert equal(gold, gold).correct
        verdict = grade(gold, f"Therefore the answer is $\\boxed{{{gold}}}$.")
        assert (verdict.correct, verdict.status, verdict.extracted) == (True, "ok", gold)


def test_every_gold_equals_itself_in_other_typesetting(data_folder: Path) -> None:
    for gold in golds(data_folder):
        for variant in (
            gold.replace("+", " + ").replace("=", " = ").replace("}{", "} {"),
            gold.replace("(", "\\left(").replace(")", "\\right)"),
            gold.replace("\\frac", "\\dfrac"),
            f"\\displaystyle {gold}.",
            f"$${gold}$$",
        ):
            assert equal(gold, variant).correct, (gold, variant)
            assert equal(variant, gold).correct, (gold, variant)
            assert normalize(normalize(variant)) == normalize(variant)


def test_golds_are_found_without_a_box(data_folder: Path) -> None:
    for gold in golds(data_folder):
        for response in (
            f"The answer is ${gold}$.",
            f"**Final Answer:** \\({gold}\\)",
            f"<answer>{gold}</answer>",
            gold,
        ):
            assert grade(gold, response).correct, response


def test_different_golds_are_equal_only_as_values(data_folder: Path) -> None:
    plain = [gold for gold in sorted(set(golds(data_folder))) if gold.removeprefix("-").isdigit()]
    for one, other in combinations(plain, 2):
        assert equal(one, other).correct == (int(one) == int(other))


@pytest.mark.parametrize(
    "answer",
    [
        "9" * 5000,
        "P()\\frac{1}{2}",
        "f()",
        "\\sin " * 480,
        "sin" * 600 + "x",
        "\\log_{2}" * 240 + "x",
        "0." + "3" * 5000,
        "1e" + "9" * 500,
        f"10^{{{MAX_DECIMAL_EXPONENT + 1}}}",
        "\\frac{1}{" + "9" * 5000 + "}",
        "9" * MAX_NUMBER_CHARACTERS + "/7",
        "5^{5^{5^{5^{5}}}}",
        "((((" * 2000 + "1" + "))))" * 1900,
        "__import__('os').system('echo')",
        "\ud800" * 100,
        "\ufdfa" * 2000,
        "\u00bd" * 2000,
        "\\frac" * 1900,
        "square" * 1500,
        "1 " * 4000,
        "1,234" * 1900,
    ],
    ids=lambda answer: ascii(answer[:20]),
)
def test_hostile_answers_are_judged_in_two_seconds(answer: str) -> None:
    start = process_time()
    assert not equal("7", answer).correct
    assert not equal(answer, answer + "1").correct
    assert process_time() - start < 2


def test_an_overlong_answer_equals_only_its_copy() -> None:
    long = "1" * (MAX_ANSWER_CHARACTERS + 1)
    assert equal(long, long) == (True, TOO_LONG, "ok")
    assert equal(long, f"{long}.") == (False, TOO_LONG, "unparsed")


def test_truth_of_an_equality() -> None:
    assert equal("1", "1.0")
    assert not equal("1", "2")


def test_numbers_beyond_the_limits_are_not_read() -> None:
    assert read("9" * MAX_NUMBER_CHARACTERS) is not None
    assert read("9" * (MAX_NUMBER_CHARACTERS + 1)) is None
    assert equal(f"10^{{{MAX_DECIMAL_EXPONENT}}}", f"1e{MAX_DECIMAL_EXPONENT}").reason == "same number"
    assert not equal("0", f"1e-{MAX_DECIMAL_EXPONENT + 1}")
