from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.pruning import select
from lm_eval_pruned.pruning.mask import keep_highest
from lm_eval_pruned.pruning.select import keep_highest_of_many

# Many share the upper half of a float32, many are equal, and zeros come with both signs.
numbers = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-20, -1.0, -1.0 - 2**-20, float("inf"), float("-inf")]),
)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(select, "PIECE", 3)


@pytest.mark.usefixtures("small_pieces")
@given(values=st.lists(numbers, min_size=1, max_size=20), data=st.data())
def test_the_lowest_go_and_of_equal_ones_the_first(values, data):
    zeros = data.draw(st.integers(1, len(values)))
    score = torch.tensor(values, dtype=torch.float32)
    gone = sorted(sorted(range(len(values)), key=lambda index: (score[index].item(), index))[:zeros])
    assert (~keep_highest_of_many(score, zeros)).nonzero()[:, 0].tolist() == gone


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("zeros", [1, 20_000, 99_999])
def test_a_large_group_is_masked_as_a_small_one(dtype, zeros):
    score = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(0)).to(dtype).float().abs()
    keep = keep_highest(score, zeros)
    order = sorted(range(100_000), key=lambda index: (score[0, index].item(), index))
    assert (~keep).nonzero()[:, 1].tolist() == sorted(order[:zeros])
