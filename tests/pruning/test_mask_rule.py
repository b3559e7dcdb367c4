"""Mask rules: exact counts, ties by position, rankings, patterns, and scores that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.masks.rule import MaskRule, keep_highest

# Few distinct values, so that ties are common.
matrices = st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


@given(rows=matrices, share=st.floats(0, 0.999))
def test_the_count_is_exact_and_ties_go_by_position(rows, share):
    score = torch.tensor(rows)
    zeros = int(score.shape[1] * share)
    keep = keep_highest(score, zeros)
    for values, kept in zip(rows, keep.tolist(), strict=True):
        gone = [index for index, stays in enumerate(kept) if not stays]
        assert gone == sorted(sorted(range(len(values)), key=lambda index: (values[index], index))[:zeros])


@given(rows=matrices, share=st.floats(0, 0.999))
def test_ranking_by_matrix_counts_over_all_rows(rows, share):
    score = torch.tensor(rows)
    assert int((~MaskRule(sparsity=share, compare="matrix").keep(score)).sum()) == math.floor(score.numel() * share)


def test_sparsity_zero_keeps_everything():
    assert MaskRule(sparsity=0.0, compare="row").keep(torch.zeros(3, 4)).all()


def test_nan_has_no_rank():
    with pytest.raises(PruningError, match="NaN"):
        MaskRule(sparsity=0.5, compare="row").keep(torch.tensor([[1.0, float("nan")]]))


def test_infinite_scores_stay():
    keep = MaskRule(sparsity=0.5, compare="row").keep(torch.tensor([[float("inf"), 1.0, 2.0, float("inf")]]))
    assert keep.tolist() == [[True, False, False, True]]


@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 5),
    sparsity=st.floats(0, 0.99),
    compare=st.sampled_from(["row", "matrix"]),
    pattern=st.sampled_from([None, (2, 4), (1, 4)]),
    every_tie=st.booleans(),
)
def test_zeros_are_those_that_the_mask_removes(rows, groups, sparsity, compare, pattern, every_tie):
    columns = 4 * groups
    # Only magnitude over a whole matrix removes ties, and never together with a pattern.
    every_tie = every_tie and compare == "matrix" and pattern is None
    rule = MaskRule(sparsity=sparsity, compare=compare, pattern=pattern, every_tie=every_tie)
    score = torch.randperm(rows * columns).float().reshape(rows, columns)
    assert rule.zeros(rows, columns) == int((~rule.keep(score)).sum())


def test_columns_that_do_not_divide_are_refused_as_the_mask_does():
    rule = MaskRule(sparsity=0.5, compare="row", pattern=(2, 4))
    messages = set()
    for refuse in (lambda: rule.zeros(2, 6), lambda: rule.keep(torch.ones(2, 6))):
        with pytest.raises(PruningError) as caught:
            refuse()
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize("zeros", [1, 50, 99])
def test_wide_rows_with_ties_lose_what_a_stable_sort_puts_first(zeros):
    score = torch.randint(0, 7, (20, 100), generator=torch.Generator().manual_seed(0)).float()
    expected = torch.ones(20, 100, dtype=torch.bool).scatter(
        1, score.sort(dim=1, stable=True).indices[:, :zeros], False
    )
    assert torch.equal(keep_highest(score, zeros), expected)
    assert torch.equal(keep_highest(score.double(), zeros), expected)
