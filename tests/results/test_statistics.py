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
from lm_eval_pruned.results.statistics.bootstrap import bootstrap_t_interval
from lm_eval_pruned.results.statistics.intervals import (
    difference_interval,
    effective_questions,
    mean_interval,
    proportion_interval,
    reported_interval,
)
from lm_eval_pruned.results.statistics.multiple import holm
from lm_eval_pruned.results.statistics.paired import mcnemar, paired_test, sign_flips
from lm_eval_pruned.results.statistics.power import detectable_drop, observed_churn


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


def trinomial(questions, lost, gained):
    """All numbers of losses and gains, and their probabilities."""
    losses, gains = (one.ravel() for one in np.meshgrid(*2 * [np.arange(questions + 1)], indexing="ij"))
    possible = losses + gains <= questions
    losses, gains = losses[possible], gains[possible]
    counts = np.stack([losses, gains, questions - losses - gains], axis=1)
    return losses, gains, stats.multinomial.pmf(counts, questions, [lost, gained, 1 - lost - gained])


class TestProportion:
    @pytest.mark.parametrize("questions", [30, 31, 37, 50, 64, 100, 164, 250, 500])
    def test_covers_at_any_rate(self, questions):
        """The coverage is a sum over the binomial distribution, so it is known exactly; 93 % is the promise."""
        rates = np.linspace(0.02, 0.98, 961)
        right = np.arange(questions + 1)
        edges = np.array([proportion_interval(count / questions, questions) for count in right])
        covers = (edges[:, :1] <= rates) & (rates <= edges[:, 1:])
        coverage = (stats.binom.pmf(right[:, None], questions, rates) * covers).sum(axis=0)
        assert coverage.min() >= 0.94
        assert coverage.mean() <= 0.97

    def test_all_right_is_not_certain(self):
        assert mean_interval(np.ones(30)) == (pytest.approx(0.8550, abs=1e-4), 1.0)
        assert mean_interval(np.zeros(500)) == (0.0, pytest.approx(0.0092, abs=1e-4))

    def test_whole_outcomes_count_once(self):
        assert mean_interval(np.repeat([0.0, 1.0], [8, 32])) == proportion_interval(0.8, 40)

    def test_levels_nest(self):
        outer, inner = (proportion_interval(0.9, 60, level=level) for level in (0.99, 0.8))
        assert outer.low < inner.low < 0.9 < inner.high < outer.high

    @pytest.mark.parametrize("samples", [2, 8, 64])
    @pytest.mark.parametrize("solvable", [0.9, 0.98])
    def test_covers_where_few_questions_are_hopeless(self, samples, solvable):
        """Most questions are right in nearly every sample, a few in none: these decide the mean, and may be unseen."""
        generator = np.random.default_rng(samples)
        rates = np.where(generator.random((400, 30)) < solvable, 0.98, 0.0)
        values = generator.binomial(samples, rates) / samples
        hits = [low <= 0.98 * solvable <= high for low, high in map(mean_interval, values)]
        assert np.mean(hits) >= 0.93

    def test_copies_of_a_question_are_one(self):
        values = np.random.default_rng(5).integers(0, 2, size=(50, 1)).repeat(8, axis=1).mean(axis=1)
        assert effective_questions(values) == pytest.approx(50)

    def test_samples_of_equal_questions_count_in_full(self):
        values = np.random.default_rng(6).binomial(8, 0.5, size=4_000) / 8
        assert effective_questions(values) / 4_000 == pytest.approx(8, rel=0.1)


class TestReported:
    def test_an_error_stands_for_its_questions(self):
        # The harness's error of a mean of 0.8 over 101 questions.
        error = np.sqrt(0.8 * 0.2 / 100)
        assert reported_interval(0.8, error, questions=None, is_share=True) == pytest.approx(
            proportion_interval(0.8, 101)
        )

    @pytest.mark.parametrize("mean", [0.0, 1.0, 0.4])
    def test_an_error_of_zero_is_not_certainty(self, mean):
        assert reported_interval(mean, 0.0, questions=25, is_share=True) == proportion_interval(mean, 25)
        assert reported_interval(mean, 0.0, questions=None, is_share=True) is None
        assert reported_interval(mean, 0.0, questions=25, is_share=False) is None

    def test_a_metric_without_bounds_leaves_0_to_1(self):
        assert reported_interval(12.0, 2.0, questions=30, is_share=False) == pytest.approx((8.08, 15.92), abs=0.01)


class TestDifference:
    @pytest.mark.parametrize("gained", [0.0, 0.01, 0.05, 0.2])
    def test_covers_pairs(self, gained):
        """Exact, by enumeration of the trinomial distribution."""
        losses, gains, _ = trinomial(30, 0.5, 0.25)
        edges = np.array(
            [
                difference_interval(np.repeat([-1.0, 1.0, 0.0], [loss, gain, 30 - loss - gain]), bounded=True)
                for loss, gain in zip(losses, gains, strict=True)
            ]
        )
        for lost in (0.0, 0.02, 0.04, 0.07, 0.1, 0.13, 0.2, 0.3, 0.5, 0.7):
            probabilities = trinomial(30, lost, gained)[2]
            covers = (edges[:, 0] - 1e-12 <= gained - lost) & (gained - lost <= edges[:, 1] + 1e-12)
            assert probabilities[covers].sum() >= 0.93

    @pytest.mark.parametrize("questions", [30, 120])
    def test_excludes_zero_where_the_test_is_significant(self, questions):
        for losses, gains in product(range(13), repeat=2):
            if mcnemar(losses, gains, "two-sided") <= 0.05:
                differences = np.repeat([-1.0, 1.0, 0.0], [losses, gains, questions - losses - gains])
                low, high = difference_interval(differences, bounded=True)
                assert low > 0 or high < 0

    @pytest.mark.parametrize("samples", [3, 16])
    def test_covers_where_few_questions_collapse(self, samples):
        generator = np.random.default_rng(samples)
        old = generator.binomial(samples, 0.95, size=(400, 30))
        new = np.where(generator.random((400, 30)) < 0.03, 0, generator.binomial(samples, 0.95, size=(400, 30)))
        edges = [difference_interval(one, bounded=True) for one in (new - old) / samples]
        assert np.mean([low <= -0.03 * 0.95 <= high for low, high in edges]) >= 0.93

    def test_turns_with_the_sign(self):
        differences = np.random.default_rng(7).integers(-3, 3, size=40) / 3
        low, high = difference_interval(differences, bounded=True)
        assert difference_interval(-differences, bounded=True) == pytest.approx((-high, -low))

    def test_knows_nothing_of_what_has_no_bounds_and_did_not_change(self):
        assert difference_interval(np.zeros(30), bounded=False) is None


class TestBootstrap:
    def test_law_school(self):
        # Efron and Tibshirani, table 3.1: the mean LSAT of 15 schools; the t interval is (577.1, 623.4).
        scores = [576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594]
        low, high = bootstrap_t_interval(np.array(scores, dtype=float))
        assert (low, high) == (pytest.approx(577, abs=3), pytest.approx(624, abs=4))

    def test_covers_skewed_values(self):
        """The mean of 30 exponential values, for which the percentile interval covers 90 %."""
        values = np.random.default_rng(4).exponential(size=(300, 30))
        hits = [low <= 1 <= high for low, high in map(bootstrap_t_interval, values)]
        assert 0.92 <= np.mean(hits) <= 0.98

    def test_follows_units(self):
        values = np.random.default_rng(8).lognormal(size=40)
        low, high = bootstrap_t_interval(values)
        assert bootstrap_t_interval(1000 * values - 3) == pytest.approx((1000 * low - 3, 1000 * high - 3))
        assert mean_interval(values) == (low, high)

    def test_blocks_change_nothing(self, monkeypatch):
        values = np.random.default_rng(6).random(30)
        whole = bootstrap_t_interval(values)
        monkeypatch.setattr("lm_eval_pruned.results.statistics.bootstrap._BLOCK", 30 * 7)
        assert np.allclose(bootstrap_t_interval(values), whole, atol=1e-12)

    @pytest.mark.parametrize("interval", [bootstrap_t_interval, mean_interval])
    def test_no_questions(self, interval):
        with pytest.raises(ArgumentError, match="at least one question"):
            interval(np.zeros(0))


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


def churned(questions, churn, size=1.0):
    """Differences of two equally good runs."""
    half = round(churn * questions / 2)
    return np.repeat([-size, size, 0.0], [half, half, questions - 2 * half])


class TestPower:
    @pytest.mark.parametrize(("questions", "churn"), [*product([30, 100, 300], [0.0, 0.1, 0.4])])
    @pytest.mark.parametrize(("is_two_sided", "comparisons"), [(False, 1), (True, 1), (True, 20)])
    def test_is_80_percent_by_enumeration(self, questions, churn, is_two_sided, comparisons):
        """The sum over all losses and gains of the probability of those that the test itself calls significant."""
        alpha = 0.05 / comparisons
        differences = churned(questions, churn)
        drop = detectable_drop(differences, alpha=alpha, is_two_sided=is_two_sided)
        noise = float(np.abs(differences).mean())
        # Where the churn leaves too few questions to lose, some of the gains make room.
        gained = min(noise / 2, (1 - drop) / 2)
        losses, gains, probabilities = trinomial(questions, gained + drop, gained)
        tail = stats.binom.cdf(gains, losses + gains, 0.5)
        assert probabilities[tail * (1 + is_two_sided) <= alpha].sum() == pytest.approx(0.8, abs=1e-3)

    def test_worked_by_hand(self):
        # Without noise, 5 losses are significant (1 / 32), 4 are not: P(Binomial(30, x) >= 5) = 0.8 at 21.4 points.
        assert detectable_drop(np.zeros(30), alpha=0.05) == pytest.approx(0.2139, abs=1e-4)
        assert stats.binom.sf(4, 30, 0.2139) == pytest.approx(0.8, abs=1e-3)

    @pytest.mark.parametrize(
        ("questions", "churn", "samples", "margin"),
        [(30, 0.4, 4, 0.0), (120, 0.3, 4, 0.0), (100, 0.2, 1, 0.02), (400, 0.1, 1, 0.05), (100, 0.4, 4, 0.02)],
    )
    def test_of_sign_flips_by_simulation(self, questions, churn, samples, margin):
        generator, size = np.random.default_rng(questions + samples), 1 / samples
        drop = detectable_drop(churned(questions, churn, size), alpha=0.05, margin=margin)

        def is_found():
            if samples == 1:
                lost = churn / 2 + drop
                change = generator.choice([-1.0, 1.0, 0.0], p=[lost, churn / 2, 1 - churn / 2 - lost], size=questions)
            else:
                noise = generator.choice([-size, size, 0.0], p=[churn / 2, churn / 2, 1 - churn], size=questions)
                change = noise - size * (generator.random(questions) < drop / size)
            return paired_test(change + margin, "less").p <= 0.05

        # 400 runs have a standard error of 2 points.
        assert np.mean([is_found() for _ in range(400)]) == pytest.approx(0.8, abs=0.06)

    def test_follows_the_unit_of_a_metric_without_bounds(self):
        differences = np.random.default_rng(9).normal(size=60)
        drop, large = (detectable_drop(scale * differences, alpha=0.05, bounded=False) for scale in (1, 1_000))
        assert large == pytest.approx(1_000 * drop, rel=1e-3)
        assert large > 1
        assert detectable_drop(np.zeros(60), alpha=0.05, bounded=False) is None

    def test_the_observed_drop_is_not_noise(self):
        """100 questions lost of 200 say little about how much two equal runs differ, 100 changed both ways do."""
        lost, swapped = np.repeat([-1.0, 0.0], 100), np.repeat([-1.0, 1.0, 0.0], [50, 50, 100])
        assert observed_churn(lost).shares.sum() < 0.011
        assert observed_churn(swapped).shares.sum() == 0.5

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
