"""Equivalence: exact p-values against a slow sum, error rates and power of simulated pairs, and the gate's words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.comparison import Pair
from lm_eval_pruned.results.equivalence import prove
from lm_eval_pruned.results.gate.check import Rules, check
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.statistics.equivalence import equivalence_reach, equivalence_test
from lm_eval_pruned.results.statistics.trinomial import excludes_drop, rejection_region
from tests.results.test_direction import judged, write
from tests.results.test_gate import measured, replaced

PAIRS = 2_000
# 5 % and three standard errors of PAIRS pairs.
RARE = 0.05 + 3 * np.sqrt(0.05 * 0.95 / PAIRS)


def score(lost: int, won: int, n: int, margin: float) -> float:
    """Tango's statistic, with the most likely share won found on a grid."""
    shares = np.linspace(0, (1 - margin) / 2, 20_001)[1:-1]
    rest = n - lost - won
    likelihood = lost * np.log(shares + margin) + won * np.log(shares) + rest * np.log(1 - 2 * shares - margin)
    best = shares[likelihood.argmax()] if won else max(0.0, shares[likelihood.argmax()] if lost else 0.0)
    return (won - lost + n * margin) / np.sqrt(n * (2 * best + margin - margin**2))


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (1, 2), (2, 4)])
def test_p_is_the_largest_probability_of_as_large_a_score(lost, won):
    n, margin = 20, 0.1
    scores = {(b, c): score(b, c, n, margin) for b in range(n + 1) for c in range(n + 1 - b)}
    # The grid finds scores to four digits.
    at_least = [pair for pair, one in scores.items() if one >= scores[lost, won] - 1e-4]
    counts = np.array([[b, c, n - b - c] for b, c in at_least])
    slow = max(
        stats.multinomial.pmf(counts, n, [share + margin, share, 1 - 2 * share - margin]).sum()
        for share in np.linspace(0, (1 - margin) / 2, 301)
    )
    assert excludes_drop(lost, won, n, margin) == pytest.approx(slow, rel=2e-3)


@pytest.mark.parametrize(("n", "margin"), [(38, 0.1), (300, 0.05), (300, 0.1)])
def test_at_the_margin_no_churn_exceeds_the_level(n, margin):
    # Nearly all answers may change: the probability has narrow peaks there.
    shares = np.sin(np.linspace(0, np.pi / 2, 2_001)) ** 2 * (1 - margin) / 2
    for level in (0.05, 0.025, 0.01, 0.001):
        assert rejection_region(n, margin, level).probability(shares, shares + margin).max() <= level * (1 + 2e-3)


def test_nothing_lost_is_certain_by_the_binomial_distribution():
    assert excludes_drop(0, 0, 149, 0.02) == pytest.approx(0.98**149)


@pytest.mark.parametrize(("n", "margin", "won"), [(100, 0.05, 0.0), (100, 0.05, 0.05), (500, 0.02, 0.05)])
def test_answers_at_the_margin_are_rarely_equivalent_and_equal_ones_as_often_as_printed(n, margin, won):
    generator, region = np.random.default_rng(0), rejection_region(n, margin, 0.05)
    for drop in (margin, margin + 0.02):
        counts = generator.multinomial(n, [won + drop, won, 1 - 2 * won - drop], size=PAIRS)
        assert (counts[:, 0] <= region.most_lost[counts[:, 1]]).mean() <= RARE
    counts = generator.multinomial(n, [won, won, 1 - 2 * won], size=PAIRS)
    power = float((counts[:, 0] <= region.most_lost[counts[:, 1]]).mean())
    half = int(won * n)
    differences = np.repeat([-1.0, 1.0, 0.0], [half, half, n - 2 * half])
    assert power == pytest.approx(
        equivalence_reach(differences, margin=margin, level=0.05, bounded=True).power, abs=0.03
    )
    # The table of outcomes is what the p-value says.
    for lost, gained in ((0, 0), (half, half), (half + 3, half)):
        is_inside = lost <= region.most_lost[gained]
        assert is_inside == (equivalence_test(changes(lost, gained, n), margin=margin, bounded=True).p <= 0.05)


def changes(lost: int, won: int, n: int):
    return np.repeat([-1.0, 1.0, 0.0], [lost, won, n - lost - won])


@pytest.mark.parametrize("kind", ["shift", "collapse"])
def test_fractions_at_the_margin_are_rarely_equivalent(kind):
    """A few questions that are lost whole are what sign flips and the bootstrap do not foresee."""
    generator, n, margin, found = np.random.default_rng(1), 100, 0.05, 0
    for _ in range(400):
        chance = np.full(n, 0.95)
        worse = chance - margin if kind == "shift" else np.where(generator.random(n) < margin / 0.95, 0, chance)
        gains = (generator.binomial(16, worse) - generator.binomial(16, chance)) / 16
        found += equivalence_test(gains, margin=margin, bounded=True).p <= 0.05
    assert found <= 33


def test_the_questions_needed_have_the_power():
    differences = changes(10, 10, 200)
    reach = equivalence_reach(differences, margin=0.02, level=0.05, bounded=True)
    assert reach.power < 0.5
    again = equivalence_reach(np.resize(differences, reach.needed), margin=0.02, level=0.05, bounded=True)
    assert again.power == pytest.approx(0.8, abs=0.03)


def test_a_metric_without_bounds():
    generator = np.random.default_rng(2)
    gains = generator.normal(scale=0.1, size=200)
    assert equivalence_test(gains, margin=0.05, bounded=False).p < 0.001
    assert equivalence_test(gains - 0.05, margin=0.05, bounded=False).p > 0.05
    assert equivalence_test(np.zeros(200), margin=0.05, bounded=False).p == 1
    reach = equivalence_reach(gains, margin=0.02, level=0.05, bounded=False)
    assert reach.power > 0.8
    assert reach.needed < 200
    assert equivalence_reach(np.zeros(200), margin=0.05, level=0.05, bounded=False) == (0.0, None)


@pytest.mark.parametrize(("gains", "margin"), [([], 0.1), ([np.nan], 0.1), ([0.0], 0.0)])
def test_bad_arguments(gains, margin):
    with pytest.raises(ArgumentError, match="positive margin and one finite gain"):
        equivalence_test(np.array(gains), margin=margin, bounded=True)


def test_a_table_is_corrected_by_holm():
    keys = np.arange(200, dtype=np.uint64)
    right = Outcomes(questions=keys, correct=np.ones(200))
    one, *others = prove([Pair(right, right)] * 4, alpha=0.05, margin=0.02)
    assert one.p_holm == pytest.approx(4 * one.p)
    assert others == [one] * 3


class TestGate:
    RULES = Rules(equivalence=0.05)

    def found(self, lost: int, n: int = 200):
        baseline = measured([np.ones(n)], np.random.default_rng(3))
        (key,) = baseline
        (one,) = check(baseline, {key: replaced(baseline[key], np.repeat([0.0, 1.0], [lost, n - lost]))}, self.RULES)
        return one

    def test_equivalent(self):
        one = self.found(1)
        assert one.status == "equivalent"
        assert "a drop of 5.0 points is excluded, p = 0.0" in one.message

    def test_a_significant_drop_that_is_small_enough_is_still_a_regression(self):
        one = self.found(6, 2_000)
        assert one.status == "regression"
        assert "a drop of 5.0 points is excluded" in one.message

    def test_what_is_not_shown_says_how_many_questions_would_show_it(self):
        one = self.found(0, 50)
        assert one.status == "fine"
        assert "is not excluded, p = 0.077" in one.message
        assert one.message.endswith("equally good runs are found equivalent 0 times in 100, and 80 in 100 with 60")

    def test_unless_it_is_asked_for_nothing_is_called_equivalent(self):
        baseline = measured([np.ones(200)], np.random.default_rng(3))
        (one,) = check(baseline, baseline, Rules())
        assert (one.status, "excluded" in one.message) == ("fine", False)


def test_where_lower_is_better_a_rise_is_excluded(tmp_path):
    values = [1.0] * 20 + [0.0] * 180
    write(tmp_path / "old", values, metric="wer", stated=False)
    write(tmp_path / "new", [0.0] * 200, metric="wer", stated=False)
    (better,) = judged(tmp_path, equivalence=0.02)
    assert better.status == "equivalent"
    assert "a rise of 2.0 points is excluded" in better.message
    (tmp_path / "old").rename(tmp_path / "x")
    (tmp_path / "new").rename(tmp_path / "old")
    (tmp_path / "x").rename(tmp_path / "new")
    assert [one.status for one in judged(tmp_path, margin=0.2, equivalence=0.02)] == ["fine"]
