"""What every score method must keep to; a new method inherits all of it by entering the registry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.calibration.statistics import InputGram, InputNorm, InputStatistics
from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods import METHODS, ScoreMethod, SolveMethod
from lm_eval_pruned.pruning.methods.sparsegpt import sparsegpt


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

    def test_rows_are_scored_as_in_the_whole_matrix_where_the_method_says_so(self, name, weight, statistics):
        whole = METHODS[name].score(weight, statistics)
        alone = torch.cat([METHODS[name].score(weight[row : row + 1], statistics) for row in range(len(weight))])
        assert torch.equal(alone, whole) or not METHODS[name].by_rows

    def test_scores_are_deterministic_and_not_negative(self, name, weight, statistics):
        score = METHODS[name].score(weight, statistics)
        assert torch.equal(score, METHODS[name].score(weight, statistics))
        assert (score >= 0).all()

    @pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.95])
    def test_exact_count(self, name, weight, statistics, sparsity):
        score = METHODS[name].score(weight, statistics)
        assert (~MaskRule(sparsity=sparsity, compare="row").keep(score)).sum(dim=1).tolist() == [int(20 * sparsity)] * 6
        assert (~MaskRule(sparsity=sparsity, compare="matrix").keep(score)).sum() == int(120 * sparsity)

    def test_masks_do_not_change_with_the_scale_of_weights_or_inputs(self, name, weight, statistics):
        keep = MaskRule(sparsity=0.5, compare="matrix").keep(METHODS[name].score(weight, statistics))
        scaled = METHODS[name].score(weight * 8, InputStatistics(norm=statistics.norm * 4))
        assert torch.equal(MaskRule(sparsity=0.5, compare="matrix").keep(scaled), keep)

    def test_permuting_the_inputs_permutes_the_mask(self, name, weight, statistics):
        if METHODS[name].seeded:
            pytest.skip("what is drawn follows no input")
        order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
        keep = MaskRule(sparsity=0.5, compare="row").keep(METHODS[name].score(weight, statistics))
        permuted = METHODS[name].score(weight[:, order], InputStatistics(norm=statistics.norm[order]))
        assert torch.equal(MaskRule(sparsity=0.5, compare="row").keep(permuted), keep[:, order])

    def test_it_says_in_one_line_what_it_is(self, name):
        assert METHODS[name].summary.endswith(".")


def test_ria_equals_the_formula(weight, statistics):
    score = METHODS["ria"].score(weight, statistics)
    for row, values in enumerate(weight.tolist()):
        for column, value in enumerate(values):
            share = abs(value) / sum(map(abs, values)) + abs(value) / sum(map(abs, weight[:, column].tolist()))
            assert float(score[row, column]) == pytest.approx(share * float(statistics.norm[column]) ** 0.5, rel=1e-5)


def test_ria_scores_rows_and_columns_of_zeros_0(weight, statistics):
    weight[2], weight[:, 5] = 0, 0
    score = METHODS["ria"].score(weight, statistics)
    assert score.isfinite().all()
    assert (score[2] == 0).all()
    assert (score[:, 5] == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_ria_does_not_hide_a_damaged_weight(weight, statistics, value):
    weight[2, 3] = value
    with pytest.raises(PruningError, match="not a number"):
        MaskRule(sparsity=0.5, compare="matrix").keep(METHODS["ria"].score(weight, statistics))


def test_random_draws_anew_for_each_matrix_and_seed(weight):
    drawn = {
        (seed, matrix): METHODS["random"].with_seed(seed, matrix).score(weight, None)
        for seed in (0, 1)
        for matrix in ("a", "b")
    }
    assert len({tuple(score.flatten().tolist()) for score in drawn.values()}) == 4
    assert torch.equal(METHODS["random"].with_seed(1, "a").score(weight, None), drawn[1, "a"])


SOLVES = [name for name, method in METHODS.items() if isinstance(method, SolveMethod)]


@pytest.mark.parametrize("name", SOLVES)
class TestEverySolveMethod:
    @pytest.fixture
    def gram(self) -> torch.Tensor:
        inputs = torch.randn(200, 20, generator=torch.Generator().manual_seed(5))
        inputs *= torch.linspace(0.1, 3, 20)
        return inputs.T @ inputs

    def test_inputs_are_left_as_they_are(self, name, weight, gram):
        before, known = weight.clone(), gram.clone()
        METHODS[name].solve(weight, gram, MaskRule(sparsity=0.5, compare="matrix"))
        assert torch.equal(weight, before)
        assert torch.equal(gram, known)

    @pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.95])
    def test_exact_count(self, name, sparsity):
        # More columns than are solved together.
        weight = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
        inputs = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
        gram = inputs.T @ inputs
        by_row = METHODS[name].solve(weight, gram, MaskRule(sparsity=sparsity, compare="row"))
        by_matrix = METHODS[name].solve(weight, gram, MaskRule(sparsity=sparsity, compare="matrix"))
        assert (by_row == 0).sum(dim=1).tolist() == [int(300 * sparsity)] * 6
        assert int((by_matrix == 0).sum()) == int(1800 * sparsity)

    def test_sparsity_zero_is_the_identity(self, name, weight, gram):
        assert torch.equal(METHODS[name].solve(weight, gram, MaskRule(sparsity=0.0, compare="row")), weight)

    def test_a_pattern_holds_in_every_group(self, name, gram):
        weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
        for kept, size in ((2, 4), (3, 5), (1, 2)):
            solved = METHODS[name].solve(weight, gram, MaskRule(sparsity=0.0, compare="row", pattern=(kept, size)))
            assert set((solved.reshape(-1, size) != 0).sum(dim=1).tolist()) == {kept}

    def test_half_precision_weights_are_solved_in_float32(self, name, weight, gram):
        solved = METHODS[name].solve(weight.bfloat16(), gram, MaskRule(sparsity=0.5, compare="row"))
        assert solved.dtype == torch.float32

    def test_silent_inputs_go_first_and_break_nothing(self, name, weight, gram):
        gram[[3, 7]] = 0
        gram[:, [3, 7]] = 0
        solved = METHODS[name].solve(weight, gram, MaskRule(sparsity=0.1, compare="row"))
        assert (solved == 0).nonzero()[:, 1].tolist() == [3, 7] * 6

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

    @given(
        blocks=st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 1000)), min_size=1, max_size=12),
        target=st.floats(0, 0.98),
    )
    def test_whatever_the_signal_the_mean_holds(self, name, blocks, target):
        signal = torch.tensor([value for value, _ in blocks], dtype=torch.float64)
        sizes = torch.tensor([size for _, size in blocks], dtype=torch.float64)
        sparsities = ALLOCATIONS[name].allocate(signal, target, sizes)
        assert float((sparsities * sizes).sum() / sizes.sum()) == pytest.approx(target, abs=1e-6)
        assert ((sparsities >= 0) & (sparsities <= 0.99)).all()

    def test_a_constant_signal_gives_uniform(self, name):
        if name == "arithmetic":
            pytest.skip("it depends on the depth alone")
        sparsities = ALLOCATIONS[name].allocate(torch.full((7,), 0.3).double(), 0.2, torch.ones(7).double())
        assert sparsities.tolist() == pytest.approx([0.2] * 7)

    def test_it_says_in_one_line_what_it_is(self, name):
        assert ALLOCATIONS[name].summary.endswith(".")


def test_wanda_ignores_a_weight_behind_a_silent_input(weight):
    norm = torch.ones(20)
    norm[[3, 7]] = 0
    keep = MaskRule(sparsity=0.1, compare="row").keep(METHODS["wanda"].score(weight, InputStatistics(norm=norm)))
    assert (~keep).nonzero()[:, 1].tolist() == [3, 7] * 6


def test_statistics_streamed_equal_those_of_the_whole_batch():
    inputs = torch.randn(7, 11, 5, generator=torch.Generator().manual_seed(4))
    streamed, whole = InputNorm(), InputNorm()
    gram = InputGram()
    for window in inputs:
        streamed.update(window)
        gram.update(window)
    whole.update(inputs)
    torch.testing.assert_close(streamed.result().norm, whole.result().norm)
    torch.testing.assert_close(whole.result().norm, inputs.flatten(0, 1).norm(dim=0))
    torch.testing.assert_close(gram.result(), inputs.flatten(0, 1).T @ inputs.flatten(0, 1))


def test_half_precision_inputs_do_not_overflow():
    statistics = InputNorm()
    statistics.update(torch.full((1000, 2), 300.0, dtype=torch.float16))
    assert statistics.result().norm.tolist() == pytest.approx([300 * 1000**0.5] * 2)


def test_statistics_without_windows_are_refused():
    with pytest.raises(RuntimeError, match="no calibration window"):
        InputNorm().result()


@pytest.mark.parametrize("column", [3, 255])
def test_sparsegpt_does_not_hide_an_infinite_weight(column):
    weight = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    weight[1, column] = float("inf")
    with pytest.raises(PruningError, match="infinite or not a number"):
        sparsegpt(weight, torch.eye(256), MaskRule(sparsity=0.5, compare="matrix"))


def test_sparsegpt_does_not_depend_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1024, 576, generator=generator) @ torch.randn(576, 576, generator=generator)
    weight, solved = torch.randn(8, 576, generator=generator), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        solved.append(sparsegpt(weight, inputs.T @ inputs, MaskRule(sparsity=0.5, compare="matrix")))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert torch.equal(*solved)
