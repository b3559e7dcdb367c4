"""What every score method must keep to; a new method inherits all of it by entering the registry."""

from __future__ import annotations

import pytest
import torch

from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.mask import keep_mask
from lm_eval_pruned.pruning.methods import METHODS, ScoreMethod
from lm_eval_pruned.pruning.stats import InputNorm, InputStatistics


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(6, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def statistics() -> InputStatistics:
    return InputStatistics(norm=torch.rand(20, generator=torch.Generator().manual_seed(1)) + 0.1)


SCORES = [name for name, method in METHODS.items() if isinstance(method, ScoreMethod)]


@pytest.mark.parametrize("name", SCORES)
class TestEveryScoreMethod:
    def test_inputs_are_left_as_they_are(self, name, weight, statistics):
        before, norm = weight.clone(), statistics.norm.clone()
        METHODS[name].score(weight, statistics)
        assert torch.equal(weight, before)
        assert torch.equal(statistics.norm, norm)

    def test_scores_have_the_shape_of_the_weight_in_float32(self, name, weight, statistics):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            score = METHODS[name].score(weight.to(dtype), statistics)
            assert score.shape == weight.shape
            assert score.dtype == torch.float32

    def test_scores_are_deterministic_and_not_negative(self, name, weight, statistics):
        score = METHODS[name].score(weight, statistics)
        assert torch.equal(score, METHODS[name].score(weight, statistics))
        assert (score >= 0).all()

    @pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.95])
    def test_exact_count(self, name, weight, statistics, sparsity):
        score = METHODS[name].score(weight, statistics)
        assert (~keep_mask(score, sparsity, "row")).sum(dim=1).tolist() == [int(20 * sparsity)] * 6
        assert (~keep_mask(score, sparsity, "matrix")).sum() == int(120 * sparsity)

    def test_masks_do_not_change_with_the_scale_of_weights_or_inputs(self, name, weight, statistics):
        keep = keep_mask(METHODS[name].score(weight, statistics), 0.5, "matrix")
        scaled = METHODS[name].score(weight * 8, InputStatistics(norm=statistics.norm * 4))
        assert torch.equal(keep_mask(scaled, 0.5, "matrix"), keep)

    def test_permuting_the_inputs_permutes_the_mask(self, name, weight, statistics):
        order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
        keep = keep_mask(METHODS[name].score(weight, statistics), 0.5, "row")
        permuted = METHODS[name].score(weight[:, order], InputStatistics(norm=statistics.norm[order]))
        assert torch.equal(keep_mask(permuted, 0.5, "row"), keep[:, order])

    def test_it_says_in_one_line_what_it_is(self, name):
        assert METHODS[name].summary.endswith(".")


@pytest.mark.parametrize("name", ALLOCATIONS)
class TestEveryAllocation:
    @pytest.mark.parametrize("target", [0.05, 0.1, 0.2, 0.5, 0.7, 0.9])
    def test_the_weighted_mean_is_the_target_and_all_stay_in_range(self, name, target):
        generator = torch.Generator().manual_seed(3)
        signal = torch.rand(12, generator=generator, dtype=torch.float64)
        sizes = torch.randint(1, 50, (12,), generator=generator).double()
        sparsities = ALLOCATIONS[name].allocate(signal, target, sizes)
        assert float((sparsities * sizes).sum() / sizes.sum()) == pytest.approx(target, abs=1e-6)
        assert ((sparsities >= 0) & (sparsities <= 0.99)).all()

    def test_a_constant_signal_gives_uniform(self, name):
        sparsities = ALLOCATIONS[name].allocate(torch.full((7,), 0.3).double(), 0.2, torch.ones(7).double())
        assert sparsities.tolist() == pytest.approx([0.2] * 7)

    def test_it_says_in_one_line_what_it_is(self, name):
        assert ALLOCATIONS[name].summary.endswith(".")


def test_wanda_ignores_a_weight_behind_a_silent_input(weight):
    norm = torch.ones(20)
    norm[[3, 7]] = 0
    keep = keep_mask(METHODS["wanda"].score(weight, InputStatistics(norm=norm)), 0.1, "row")
    assert (~keep).nonzero()[:, 1].tolist() == [3, 7] * 6


def test_statistics_streamed_equal_those_of_the_whole_batch():
    inputs = torch.randn(7, 11, 5, generator=torch.Generator().manual_seed(4))
    streamed, whole = InputNorm(), InputNorm()
    for window in inputs:
        streamed.update(window)
    whole.update(inputs)
    torch.testing.assert_close(streamed.result().norm, whole.result().norm)
    torch.testing.assert_close(whole.result().norm, inputs.flatten(0, 1).norm(dim=0))


def test_half_precision_inputs_do_not_overflow():
    statistics = InputNorm()
    statistics.update(torch.full((1000, 2), 300.0, dtype=torch.float16))
    assert statistics.result().norm.tolist() == pytest.approx([300 * 1000**0.5] * 2)


def test_statistics_without_windows_are_refused():
    with pytest.raises(RuntimeError, match="no calibration window"):
        InputNorm().result()
