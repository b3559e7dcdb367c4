"""Verdicts on pairs of answers: rows of cases by category, and properties that hold for random answers."""

from __future__ import annotations

import json
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.grading import verify

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "pairs.jsonl").read_text().splitlines()]

ROWS_OF: dict[str, list[dict[str, str]]] = defaultdict(list)
for row in ROWS:
    ROWS_OF[row["category"]].append(row)

LETTERS = "abcdkmnpqrtxyz"
# Atoms of which no two are equal, so that exchanging one gives a different answer.
ATOMS = ["7", "-3", r"\frac{2}{9}", r"\sqrt{5}", r"2\pi", "0.35", "x+1", r"-\frac{1}{4}", r"1+\sqrt{2}"]

few = settings(max_examples=60, deadline=None)
fractions = st.fractions(-500, 500, max_denominator=999)
atoms = st.lists(st.sampled_from(ATOMS), min_size=2, max_size=5, unique=True)


def correct(one: str, other: str) -> bool:
    """Judge in both orders, which must agree."""
    forwards, backwards = verify(one, other), verify(other, one)
    assert forwards.correct == backwards.correct, (one, other)
    return forwards.correct


@pytest.mark.parametrize("category", ROWS_OF)
def test_pairs(category: str) -> None:
    failed = []
    for row in ROWS_OF[category]:
        orders = ((row["gold"], row["answer"]), (row["answer"], row["gold"]))
        verdicts = [verify(gold, answer) for gold, answer in orders]
        if any(verdict.correct is not row["correct"] for verdict in verdicts):
            verdict_texts = " / ".join(f"{verdict.correct} ({verdict.reason})" for verdict in verdicts)
            failed.append(
                f"{row['gold']}  |  {row['answer']}  should be {row['correct']} ({row['why']}), is {verdict_texts}"
            )
    assert not failed, f"{len(failed)} of {len(ROWS_OF[category])}:\n" + "\n".join(failed)


def test_rows_are_distinct_explained_and_balanced() -> None:
    assert len({frozenset((row["gold"], row["answer"])) for row in ROWS}) == len(ROWS)
    assert all(row["why"] and row["gold"] != row["answer"] for row in ROWS)
    assert 0.4 < sum(row["correct"] for row in ROWS) / len(ROWS) < 0.6


def latex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


@few
@given(fractions, st.integers(1, 40))
def test_a_fraction_is_its_quotient_in_every_spelling(value: Fraction, factor: int) -> None:
    above, below = value.numerator * factor, value.denominator * factor
    for spelling in (f"\\frac{{{above}}}{{{below}}}", f"{above}/{below}", f"\\dfrac{{{-above}}}{{{-below}}}"):
        assert correct(latex(value), spelling), spelling
    assert not correct(latex(value), latex(value + Fraction(1, 10_000)))


@few
@given(st.integers(-10_000, 10_000), st.integers(0, 6))
def test_a_terminating_decimal_is_its_fraction(digits: int, places: int) -> None:
    value = Fraction(digits, 10**places)
    shown = f"{abs(digits):0{places + 1}d}"
    decimal = ("-" if digits < 0 else "") + (f"{shown[:-places]}.{shown[-places:]}" if places else shown)
    assert correct(latex(value), decimal)
    assert correct(latex(-value), decimal) == (digits == 0)


@few
@given(atoms, st.randoms(use_true_random=False))
def test_sets_and_lists_have_no_order(members: list[str], random: Random) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)
    inside, other = ", ".join(members), ", ".join(shuffled)
    assert correct(inside, other)
    assert correct(f"\\{{{inside}\\}}", f"\\left\\{{{other}\\right\\}}")
    assert correct(f"({inside})", f"({other})") == (members == shuffled)
    assert not correct(inside, ", ".join(shuffled[1:]))


@few
@given(st.sampled_from(ATOMS), st.sampled_from(ATOMS))
def test_different_atoms_are_different_in_any_frame(one: str, other: str) -> None:
    for frame in ("{}", "({},8)", "\\{{{},8\\}}", "[{},\\infty)", "v={}", "\\begin{{pmatrix}}{}\\\\8\\end{{pmatrix}}"):
        assert correct(frame.format(one), frame.format(other)) == (one == other)


@few
@given(st.sampled_from(ROWS), st.sampled_from(["{{{}}}", "${}$", "\\({}\\)", "\\boxed{{{}}}", " {} ", "\\!{}\\,"]))
def test_wrapping_one_side_changes_no_verdict(row: dict[str, str], frame: str) -> None:
    if "$" not in row["answer"].replace("\\$", ""):
        plain = verify(row["gold"], row["answer"]).correct
        assert verify(row["gold"], frame.format(row["answer"])).correct == plain


@few
@given(st.sampled_from(ROWS))
def test_sizes_of_brackets_change_no_verdict(row: dict[str, str]) -> None:
    answer = row["answer"]
    if answer.count("(") == answer.count(")") and "\\left" not in answer and not set("[]\\") & set(answer):
        sized = answer.replace("(", "\\left(").replace(")", "\\right)")
        assert verify(row["gold"], sized).correct == verify(row["gold"], answer).correct


@few
@given(st.lists(st.integers(-9, 9).filter(bool), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_terms_of_a_sum_have_no_order(coefficients: list[int], random: Random) -> None:
    terms = [f"{value:+d}{letter}" for value, letter in zip(coefficients, LETTERS, strict=False)]
    shuffled = list(terms)
    random.shuffle(shuffled)
    assert correct("".join(terms), "".join(shuffled))
    assert not correct("".join(terms), "".join(terms[1:]))
