"""pass@k, majority vote and loop detection against slow reference implementations."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.assets.tiny_reasoner.chains import sample_chain
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.grading.equal import equal
from lm_eval_pruned.models.metrics import (
    LOOP_CHARACTERS,
    LOOP_REPEATS,
    LOOP_TAIL,
    is_looping,
    majority,
    pass_at_k,
)


@pytest.mark.parametrize(
    ("n", "c", "k"), [(n, c, k) for n in range(1, 6) for c in range(n + 1) for k in range(1, n + 1)]
)
def test_pass_at_k_is_the_share_of_draws_with_a_correct_sample(n: int, c: int, k: int) -> None:
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)


def test_pass_at_k_of_many_samples() -> None:
    assert pass_at_k(10_000, 1, 5_000) == 0.5
    assert pass_at_k(8, 0, 3) == 0.0
    assert pass_at_k(8, 6, 3) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5), (0, 0, 1)])
def test_impossible_counts_raise(n: int, c: int, k: int) -> None:
    with pytest.raises(ArgumentError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def test_equal_answers_are_one_vote() -> None:
    assert majority(["3", "0.5", "1/2", None, "3.0", r"\frac12"], equal) == "0.5"
    assert majority(["7", "0.5", "0.5"], str.__eq__) == "0.5"


def test_the_earliest_answer_wins_a_tie_and_none_is_not_counted() -> None:
    assert majority(["b", "a", "a", "b", None, None, None], str.__eq__) == "b"
    assert majority([None, None], equal) is None
    assert majority([], equal) is None


def slow_is_looping(text: str) -> bool:
    """The definition in the docstring of `is_looping`, by trying every period."""
    tail = text[-LOOP_TAIL:]
    for period in range(1, len(tail)):
        length = period
        while length < len(tail) and tail[-length - 1] == tail[-length - 1 + period]:
            length += 1
        if length >= LOOP_REPEATS * period and length >= LOOP_CHARACTERS:
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(
    st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=30), st.integers(1, 40), st.text("ab", max_size=5)
)
def test_looping_matches_its_definition(before: str, block: str, repeats: int, after: str) -> None:
    text = before + block * repeats + after
    assert is_looping(text) == slow_is_looping(text)


@pytest.mark.parametrize(
    "text",
    [
        "Let me check. " * 8,
        "So far so good.\n" + "Wait, " * 20,
        "5=" * 40,
        "\n" * 100,
        "prefix " * 2000 + "x" * 80,
        ("A long paragraph that the model writes again and again. " * 8 + "Hmm.\n") * 4,
        "ok " + "the same sentence, " * 10 + "the same sen",
    ],
)
def test_degenerate_repetition_is_a_loop(text: str) -> None:
    assert is_looping(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "i=h*5=9*5=5;j=i+9=5+9=4;k=j*1=4*1=4;",
        "Let me check. " * 4,
        "The pattern is 0.142857142857142857142857142857",
        "\n".join(f"For n = {n} we get n + n = {2 * n}." for n in range(100)),
        "Wait, " * 50 + "the answer is 5.",
        "1000000000000000000000000000000",
        "| a | b |\n|-------------------|-------------------|\n",
    ],
)
def test_reasoning_is_not_a_loop(text: str) -> None:
    assert not is_looping(text)


def test_arithmetic_chains_are_not_loops() -> None:
    rng = random.Random(0)
    assert not any(is_looping(sample_chain(rng, steps).reasoning) for steps in range(1, 21) for _ in range(20))
