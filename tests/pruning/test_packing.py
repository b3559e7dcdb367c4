"""Packed masks: round trips, and weights that stay bit for bit when a mask is applied."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.pruning.masks.packing import count_zeros, pack, unpack, zero_in_place, zeroed_copy

INTEGERS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
SPECIAL = [-0.0, 0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1e-39, -1.5, 3.4e38]


def all_values(dtype: torch.dtype) -> torch.Tensor:
    """Every value of a 16-bit type, 64 to a row; of float32 the special ones and random bits."""
    if dtype == torch.float32:
        bits = torch.randint(-(2**31), 2**31, (4096 - len(SPECIAL),), generator=torch.Generator().manual_seed(0))
        return torch.cat([torch.tensor(SPECIAL), bits.to(torch.int32).view(dtype)]).reshape(-1, 64)
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).reshape(-1, 64)


def random_keep(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5


@given(shape=st.lists(st.integers(0, 9), max_size=3), seed=st.integers(0, 99))
def test_a_mask_comes_back(shape, seed):
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(keep)
    assert len(packed) == math.ceil(keep.numel() / 8)
    bits = "".join(f"{byte:08b}" for byte in packed.tolist())
    assert bits == "".join("01"[kept] for kept in keep.flatten().tolist()).ljust(len(bits), "0")
    assert torch.equal(unpack(packed, keep.shape), keep)


def test_a_transposed_mask_is_packed_in_its_own_order():
    keep = random_keep(5, 7).t()
    assert torch.equal(unpack(pack(keep), (7, 5)), keep)


@pytest.mark.parametrize("shape", [(8,), (17,), (0,), (3, 6)])
def test_a_mask_of_another_shape_is_refused(shape):
    packed = pack(random_keep(3, 5))
    with pytest.raises(DataError, match=f"2 bytes .* {math.prod(shape)} weights"):
        unpack(packed, shape)
    with pytest.raises(DataError):
        zero_in_place(torch.ones(shape), packed)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("inverse", [False, True])
def test_kept_weights_stay_bit_for_bit_and_removed_ones_are_plus_zero(dtype, inverse):
    weight = all_values(dtype)
    keep = random_keep(*weight.shape) ^ inverse
    before = weight.view(INTEGERS[dtype]).clone()
    copied = zeroed_copy(weight, pack(keep))
    assert torch.equal(weight.view(INTEGERS[dtype]), before)
    zero_in_place(weight, pack(keep))
    after = weight.view(INTEGERS[dtype])
    assert torch.equal(after[keep], before[keep])
    assert not after[~keep].any()
    assert copied.dtype == dtype
    assert torch.equal(copied.view(INTEGERS[dtype]), after)


def test_zeros_of_both_signs_are_counted_and_nothing_else():
    assert count_zeros(torch.tensor([0.0, -0.0, 1e-45, float("nan"), float("inf"), -1.0])) == 2
    assert count_zeros(torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16)) == 1


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "cut",
    [lambda whole: whole[:, 3:40:2], lambda whole: whole[5:9].t(), lambda whole: whole.reshape(-1, 4, 64)[:, 1]],
    ids=["columns", "transposed", "expert"],
)
def test_only_the_view_changes(dtype, cut):
    whole = all_values(dtype)
    expected = whole.clone()
    view = cut(whole)
    keep = random_keep(*view.shape)
    assert not view.is_contiguous()
    cut(expected)[~keep] = 0
    zero_in_place(view, pack(keep))
    assert torch.equal(whole.view(INTEGERS[dtype]), expected.view(INTEGERS[dtype]))


def test_a_parameter_keeps_its_gradient():
    weight = nn.Parameter(torch.ones(2, 4))
    zero_in_place(weight, pack(torch.tensor([[True, False] * 2] * 2)))
    assert weight.requires_grad
    assert weight.tolist() == [[1, 0, 1, 0]] * 2
