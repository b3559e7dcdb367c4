"""Threshold selection for large matrices gives the masks of a full sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.masks import large as select
from lm_eval_pruned.pruning.masks import rule as mask
from lm_eval_pruned.pruning.masks.large import keep_highest_of_many
from lm_eval_pruned.pruning.masks.rule import MaskRule, keep_highest

# Many are equal, and zeros come with both signs.
numbers = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-20, -1.0, -1.0 - 2**-20, float("inf"), float("-inf")]),
)


def lowest(values: list[float], zeros: int) -> list[int]:
    """Return the places of the lowest values, of equal ones the first."""
    return sorted(sorted(range(len(values)), key=lambda index: (values[index], index))[:zeros])


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(select, "SLICE_SCORES", 3)
    monkeypatch.setattr(select, "SAMPLE", 4)


@pytest.mark.usefixtures("small_pieces")
@given(values=st.lists(numbers, min_size=1, max_size=24), data=st.data())
def test_the_lowest_go_and_of_equal_ones_the_first(values, data):
    columns = data.draw(st.sampled_from([count for count in range(1, 25) if len(values) % count == 0]))
    zeros = data.draw(st.integers(1, len(values)))
    score = torch.tensor(values, dtype=torch.float32).reshape(-1, columns)
    keep = keep_highest_of_many(lambda some: score[some], *score.shape, zeros)
    assert (~keep).flatten().nonzero()[:, 0].tolist() == lowest(score.flatten().tolist(), zeros)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("zeros", [1, 20_000, 99_999, 100_000])
def test_a_large_matrix_is_masked_as_a_small_one(dtype, zeros):
    score = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(0)).to(dtype).float().abs()
    assert (~keep_highest(score, zeros)).nonzero()[:, 1].tolist() == lowest(score[0].tolist(), zeros)


def test_a_sample_that_misleads_costs_time_and_no_weight():
    score = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(0))
    # Just the rows of which the sample is made are unlike all others.
    score[::16] += 10
    keep = keep_highest_of_many(lambda some: score[some], *score.shape, 300_000)
    assert torch.equal(keep.flatten(), score.flatten() > score.flatten().kthvalue(300_000).values)


@pytest.mark.parametrize(("compare", "pattern"), [("row", None), ("matrix", None), ("row", (2, 4))])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
def test_some_rows_at_a_time_make_the_mask_of_the_whole_matrix(monkeypatch, compare, pattern, sparsity):
    monkeypatch.setattr(select, "SLICE_SCORES", 1 << 16)
    weight = torch.randn(700, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    rule = MaskRule(sparsity=sparsity, compare=compare, pattern=pattern)
    asked = []

    def score(some):
        asked.append(len(weight[some]))
        return weight[some].float().abs()

    assert torch.equal(rule.keep_by_rows(score, weight), rule.keep(weight.float().abs()))
    if sparsity > 0:
        assert max(asked) < len(weight) / 2


@pytest.mark.parametrize("compare", ["row", "matrix"])
def test_a_score_that_is_no_number_is_found_in_any_row(compare):
    weight = torch.ones(mask.MANY // 64, 64)
    weight[-1, -1] = torch.nan
    with pytest.raises(PruningError, match="NaN"):
        MaskRule(sparsity=0.5, compare=compare).keep_by_rows(lambda some: weight[some], weight)
