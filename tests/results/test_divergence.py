"""Rates, intervals and pictures of what pruning changed along traces."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from lm_eval_pruned.results.divergence.picture import draw_changes, flip_hazards, position_bins
from lm_eval_pruned.results.divergence.summary import MEANING, Changes, first_flip, summarise, summary_lines
from lm_eval_pruned.results.statistics.ratio import ratio_interval

CHANGES = Changes(
    kl=np.array([0.0, 0.4, 0.2, 0.0, 0.0, 1.0]),
    flipped=np.array([False, True, True, False, False, True]),
    offsets=np.array([0, 3, 5, 6]),
    thinking=np.array([2, 1, 0]),
    questions=("a", "b", "a"),
)


def test_a_summary_by_hand():
    found = summarise(CHANGES, [1, 2])
    assert {name: found[name] for name in ("traces", "tokens", "flips")} == {"traces": 3, "tokens": 6, "flips": 0.5}
    assert found["kl"] == pytest.approx(1.6 / 6)
    assert found["survive"] == pytest.approx(1 / 3)
    assert found["by_budget"] == [
        # The third trace has no thinking, and survives every budget.
        {"budget": 1, "kl": 0.0, "flips": 0.0, "survive": 1.0},
        {"budget": 2, "kl": pytest.approx(0.4 / 3), "flips": pytest.approx(1 / 3), "survive": pytest.approx(2 / 3)},
    ]
    assert found["questions"] == [
        {"doc_hash": "a", "tokens": 3, "kl": pytest.approx(0.6), "first_flip": 1},
        {"doc_hash": "b", "tokens": 2, "kl": 0.0, "first_flip": None},
        {"doc_hash": "a", "tokens": 1, "kl": 1.0, "first_flip": 0},
    ]
    assert MEANING in summary_lines(found, 1.5)[-1]


def test_hazards_by_hand():
    assert first_flip(CHANGES).tolist() == [1, -1, 0]
    # Three traces reach token 0 and one flips there; of two unbroken at token 1, one flips; none is unbroken after.
    points = flip_hazards(CHANGES, np.array([0, 1, 2, 3]))
    assert [point.value for point in points[:2]] == [pytest.approx(1 / 3), 0.5]
    assert np.isnan(points[2].value)
    assert position_bins(1).tolist() == [0, 1]


def test_questions_and_not_tokens_are_drawn():
    """Ten copies of every token say nothing new about other questions, and one question says nothing of others."""
    generator = np.random.default_rng(0)
    sums = generator.gamma(0.5, size=50)
    counts = np.full(50, 20.0)
    once, tenfold = ratio_interval(sums, counts), ratio_interval(10 * sums, 10 * counts)
    assert once == pytest.approx(tenfold)
    assert ratio_interval(sums[:1], counts[:1]) is None
    assert ratio_interval(0 * sums, counts) is None


def test_intervals_cover_the_rate():
    """Of 300 samples of 50 questions with skewed sums and unequal lengths, about 95 % cover the true ratio."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        counts = generator.integers(20, 200, size=50).astype(float)
        found = ratio_interval(counts * generator.gamma(0.7, 1 / 0.7, size=50), counts)
        assert found is not None
        covered += found.low <= 1 <= found.high
    assert 0.9 <= covered / 300 <= 0.98


def test_the_picture_states_what_it_does_not_say(tmp_path, monkeypatch):
    figures: list[Figure] = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: figures.append(self) or savefig(self, path))
    path = tmp_path / "divergence.png"
    draw_changes(CHANGES, ["digits", "words", "words", "other", "operators", "words"], path, title="wanda $x$")
    assert imread(path).shape[2] == 4
    assert MEANING in figures[0].get_supxlabel()
