"""Statistics compared with textbook figures, slow reference loops and simulations."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.statistics import paired as stats_paired
from lm_eval_pruned.results.statistics.bootstrap import bootstrap_interval
from lm_eval_pruned.results.statistics.multiple import holm
from lm_eval_pruned.results.statistics.paired import mcnemar, paired_test, sign_flips
from lm_eval_pruned.results.statistics.power import detectable_drop


def all_signs(differences, alternative):
    """The sign-flip test by its definition: enumerate all sign assignments."""
    observed = sum(differences)
    hits = 0
    for signs in product((-1, 1), repeat=len(differences)):
        total = sum(sign * value for sign, value in zip(signs, differences, strict=True))
        hits += total <= observed + 1e-9 if alternative == "less" else abs(total) >= abs(observed) - 1e-9
    return hits / 2 ** len(differences)


class TestMcNemar:
    def test_darwins_corn(self):
        # The sign test of Darwin's 15 pairs of plants, 13 one way: two-sided 242 / 2^15.
        assert mcnemar(2, 13, "two-sided") == pytest.approx(242 / 2**15)

    def test_is_a_binomial_sum(self):
        for losses, gains in product(range(9), repeat=2):
            total = losses + gains
            tail = sum(comb(total, k) for k in range(gains + 1)) / 2**total
            assert mcnemar(losses, gains, "less") == pytest.approx(tail, rel=1e-12)
            assert mcnemar(losses, gains, "two-sided") == pytest.approx(
                stats.binomtest(losses, total).pvalue if total else 1.0, rel=1e-9
            )

    def test_equals_sign_flips(self):
        differences = np.array([-1.0] * 9 + [1.0] * 3 + [0.0] * 5)
        for alternative in ("less", "two-sided"):
            assert paired_test(differences, alternative).name == "McNemar"
            assert mcnemar(9, 3, alternative) == pytest.approx(sign_flips(differences, alternative).p, rel=1e-12)


class TestSignFlips:
    def test_darwins_corn(self):
        # Fisher, The Design of Experiments, section 21: 1726 of 2^15 sign assignments, two-sided.
        corn = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
        assert sign_flips(corn, "two-sided") == (pytest.approx(1726 / 2**15), "sign flips, counted")

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(-6, 6), min_size=1, max_size=9), st.sampled_from([1, 3, 4, 24]))
    def test_counting_is_trying_all(self, whole, parts):
        differences = [value / parts for value in whole]
        for alternative in ("less", "two-sided"):
            expected = all_signs([value for value in differences if value], alternative)
            assert paired_test(np.array(differences), alternative).p == pytest.approx(expected, abs=1e-12)

    def test_real_numbers_are_all_tried(self):
        differences = np.random.default_rng(0).normal(-0.2, 1, size=9)
        for alternative in ("less", "two-sided"):
            found = paired_test(differences, alternative)
            assert found == (pytest.approx(all_signs(differences, alternative)), "sign flips, all")

    def test_drawing_is_near_counting(self, monkeypatch):
        differences = np.random.default_rng(1).integers(-4, 4, size=60) / 4
        exact = {alternative: sign_flips(differences, alternative).p for alternative in ("less", "two-sided")}
        monkeypatch.setattr(stats_paired, "MAX_SUM", 0)
        for alternative, p in exact.items():
            drawn = sign_flips(differences, alternative)
            assert drawn.name == "sign flips, 19999 draws"
            assert drawn.p == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / stats_paired.DRAWS))
            assert sign_flips(differences, alternative) == drawn

    def test_a_drawn_p_is_never_zero(self):
        assert sign_flips(np.linspace(-1.1, -0.1, 50) * np.pi, "less").p == 1 / 20_000

    def test_tails_far_out_are_exact(self):
        assert sign_flips(np.full(300, -0.5), "less").p == pytest.approx(2.0**-300, rel=1e-9)

    def test_rounding_is_no_difference(self):
        assert paired_test(np.array([0.1 + 0.2 - 0.3, 1e-17, 0.0]), "two-sided") == (1.0, "McNemar")

    @pytest.mark.parametrize("differences", [[], [0.5, float("nan")]])
    def test_refuses_what_is_no_difference(self, differences):
        with pytest.raises(ArgumentError, match="at least one question"):
            paired_test(np.array(differences), "less")


class TestBootstrap:
    def test_is_resampling_questions(self):
        values = np.random.default_rng(2).integers(0, 5, size=40) / 4
        generator = np.random.default_rng(3)
        means = [np.mean([values[generator.integers(40)] for _ in range(40)]) for _ in range(4000)]
        low, high = bootstrap_interval(values)
        assert low == pytest.approx(np.quantile(means, 0.025), abs=0.015)
        assert high == pytest.approx(np.quantile(means, 0.975), abs=0.015)

    def test_law_school(self):
        # Efron and Tibshirani, table 3.1: the mean LSAT of 15 schools, 600.27 with a standard error of 10.4 (plug-in).
        scores = [576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594]
        low, high = bootstrap_interval(np.array(scores, dtype=float), resamples=20_000)
        assert (low, high) == (
            pytest.approx(600.27 - 1.96 * 10.43, abs=1.5),
            pytest.approx(600.27 + 1.96 * 10.43, abs=1.5),
        )

    def test_covers_the_truth(self):
        generator = np.random.default_rng(4)
        hits = 0
        for _ in range(400):
            low, high = bootstrap_interval(generator.binomial(4, 0.7, size=60) / 4, resamples=400)
            hits += low <= 0.7 <= high
        assert 0.91 <= hits / 400 <= 0.98

    def test_copies_of_a_question_do_not_narrow_it(self):
        """Clustering: eight budgets of one question do not count as eight questions."""
        values = np.random.default_rng(5).random(50)
        curve = np.repeat(values[:, None], 8, axis=1)
        intervals = bootstrap_interval(curve)
        assert intervals.shape == (8, 2)
        assert np.allclose(intervals, bootstrap_interval(values), atol=0.01)
        assert np.ptp(bootstrap_interval(curve.ravel())) < 0.5 * np.ptp(intervals[0])

    def test_blocks_change_nothing_in_kind(self, monkeypatch):
        values = np.random.default_rng(6).random(30)
        whole = bootstrap_interval(values)
        monkeypatch.setattr("lm_eval_pruned.results.statistics.bootstrap._BLOCK", 30 * 7)
        assert np.allclose(bootstrap_interval(values), whole, atol=1e-12)

    def test_no_questions(self):
        with pytest.raises(ArgumentError, match="at least one question"):
            bootstrap_interval(np.zeros(0))


class TestHolm:
    def test_worked_by_hand(self):
        # Sorted 0.005, 0.01, 0.03, 0.04, 0.9, times 5, 4, 3, 2, 1, never falling.
        assert holm([0.01, 0.04, 0.03, 0.005, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])

    @given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.2))
    def test_rejects_what_stepping_down_rejects(self, p_values, alpha):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[place] * (len(p_values) - rank) > alpha:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(holm(p_values)) if p <= alpha} == rejected


class TestPower:
    def test_connors_sample_size(self):
        # Shares psi changed, x more lost than gained: n = (z_a sqrt(psi) + z_b sqrt(psi - x^2))^2 / x^2 pairs.
        differences = np.repeat([-1.0, 1.0, 0.0], [40, 40, 320])
        drop = detectable_drop(differences, alpha=0.05, is_two_sided=True)
        assert drop is not None
        psi = 0.2 + drop
        n = (1.959964 * np.sqrt(psi) + 0.841621 * np.sqrt(psi - drop**2)) ** 2 / drop**2
        assert n == pytest.approx(400, rel=1e-5)

    @pytest.mark.parametrize(
        ("questions", "noise", "samples", "margin"),
        [(200, 0.0, 1, 0.0), (200, 0.1, 1, 0.0), (100, 0.2, 1, 0.02), (400, 0.1, 1, 0.05), (120, 0.3, 4, 0.0)],
    )
    def test_the_drop_is_found_four_times_in_five(self, questions, noise, samples, margin):
        """With this noise, how often is the drop named by the formula significant?"""
        generator = np.random.default_rng(questions + samples)

        def noisy(drop):
            size = 1 / samples
            change = generator.choice([-size, size, 0.0], p=[noise / 2, noise / 2, 1 - noise], size=questions)
            return np.where(generator.random(questions) < drop / size, change - size, change)

        reference = np.repeat(
            [-1 / samples, 1 / samples, 0.0],
            np.rint(np.array([noise / 2, noise / 2, 1 - noise]) * questions).astype(int),
        )
        drop = detectable_drop(reference, alpha=0.05, margin=margin)
        assert drop is not None
        found = np.mean([paired_test(noisy(drop) + margin, "less").p <= 0.05 for _ in range(300)])
        assert 0.68 <= found <= 0.93

    def test_few_questions_find_nothing(self):
        assert detectable_drop(np.zeros(4), alpha=0.05) is None
        assert detectable_drop(np.zeros(5), alpha=0.05) is not None
        assert mcnemar(4, 0, "less") > 0.05 >= mcnemar(5, 0, "less")

    def test_noise_and_correction_cost(self):
        quiet, loud = np.zeros(200), np.tile([1.0, -1.0, 0.0, 0.0], 50)
        small, large = (detectable_drop(values, alpha=0.05) for values in (quiet, loud))
        assert small < large < detectable_drop(loud, alpha=0.001)


class TestFalseAlarms:
    @pytest.mark.parametrize(("samples", "margin"), [(1, 0.0), (4, 0.0), (1, 0.05)])
    def test_no_more_than_alpha(self, samples, margin):
        """For two runs of one model, or one worse by exactly the margin, p <= 0.05 at most one time in twenty."""
        generator = np.random.default_rng(samples)
        alarms = 0
        for _ in range(600):
            chances = margin + (1 - margin) * generator.beta(0.6, 0.3, size=100)
            old, new = (generator.binomial(samples, given) / samples for given in (chances, chances - margin))
            alarms += paired_test(new - old + margin, "less").p <= 0.05
        assert alarms / 600 <= 0.07
