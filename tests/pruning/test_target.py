"""Shifting and scaling of sparsities to a target mean."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.pruning.allocations import owl
from lm_eval_pruned.pruning.allocations.target import HIGHEST, shift_to_target

blocks = st.lists(st.tuples(st.floats(-2, 2), st.integers(1, 1000)), min_size=1, max_size=12)


@given(blocks=blocks, target=st.floats(0, 0.98))
def test_the_mean_holds_and_what_is_inside_is_only_shifted(blocks, target):
    start = torch.tensor([value for value, _ in blocks], dtype=torch.float64)
    sizes = torch.tensor([size for _, size in blocks], dtype=torch.float64)
    moved = shift_to_target(start, target, sizes)
    assert abs(float((moved * sizes).sum() / sizes.sum()) - target) < 1e-9
    assert ((moved >= 0) & (moved <= HIGHEST)).all()
    shifts = (moved - start)[(moved > 0) & (moved < HIGHEST)]
    assert (shifts - shifts[:1]).abs().max() < 1e-9 if len(shifts) else True


def test_a_skewed_signal_would_go_below_zero():
    signal = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0])
    sparsities = owl(signal, 0.1, torch.ones(8))
    assert float(sparsities[-1]) == 0.0
    assert sparsities[:7].tolist() == [float(sparsities[0])] * 7
    assert abs(float(sparsities.mean()) - 0.1) < 1e-9
