"""pass@k and majority vote against slow reference implementations."""

from __future__ import annotations

from itertools import combinations

import pytest

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.grading.equal import equal
from lm_eval_pruned.models.metrics import (
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
