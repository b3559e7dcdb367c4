"""Verdicts while questions are still asked: e-processes, their error rates, and the gate that uses them."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest
from scipy import stats

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.results.gate.check import Rules, check, check_against
from lm_eval_pruned.results.gate.reports import summary
from lm_eval_pruned.results.gate.sequential import evidence
from lm_eval_pruned.results.statistics.eprocess import log_e_losses, log_e_mean, mean_sequence
from tests.results.test_gate import frozen, measured, replaced
from tests.results.written_runs import write_run

QUESTIONS, SWEEPS = 500, 1_000
RARE = 0.05 + 3 * np.sqrt(0.05 * 0.95 / SWEEPS)


def test_e_has_an_expectation_of_one_if_losses_are_as_likely_as_gains():
    losses = np.arange(41.0)
    assert stats.binom.pmf(losses, 40, 0.5) @ np.exp(log_e_losses(losses, 40 - losses)) == pytest.approx(1)
    assert stats.binom.pmf(losses, 40, 0.4) @ np.exp(log_e_losses(losses, 40 - losses)) < 0.9


def test_hopeless_counts_are_finite():
    assert np.isfinite(log_e_losses(np.array(0.0), np.array(1e5)))


@pytest.mark.parametrize(
    ("lost", "won", "found", "mean"),
    [(0.10, 0.05, 0.65, 323), (0.15, 0.05, 0.99, 137), (0.3, 0.05, 1, 38), (0.5, 0.03, 1, 16)],
)
def test_how_soon_a_drop_is_found(lost, won, found, mean):
    losses, gains = counts(lost, won)
    is_sure = log_e_losses(losses, gains) >= log(20)
    asked = np.where(is_sure.any(axis=1), is_sure.argmax(axis=1) + 1, QUESTIONS)
    assert is_sure.any(axis=1).mean() >= found - 0.02
    assert asked.mean() <= 1.03 * mean + 0.5


def test_looking_after_every_question_finds_nothing_in_equal_runs():
    is_sure = log_e_losses(*counts(0.1, 0.1)) >= log(20)
    assert is_sure.any(axis=1).mean() <= RARE


def counts(lost: float, won: float):
    """The numbers of questions lost and won after each question, [sweeps questions]."""
    drawn = np.random.default_rng(0).random((SWEEPS, QUESTIONS))
    return np.cumsum(drawn < lost, axis=1, dtype=float), np.cumsum(
        (drawn >= lost) & (drawn < lost + won), axis=1, dtype=float
    )


@pytest.mark.parametrize("kind", ["answers", "fractions"])
def test_looking_after_every_batch_at_the_margin_shows_no_equivalence(kind):
    generator, rules, false = np.random.default_rng(1), Rules(equivalence=0.05), 0
    for _ in range(200):
        chance = np.where(generator.random(QUESTIONS) < 0.05 / 0.9, 0, 0.9)
        samples = 1 if kind == "answers" else 8
        gains = (generator.binomial(samples, chance) - generator.binomial(samples, 0.9, QUESTIONS)) / samples
        false += any(
            evidence(gains[:asked], rules, bounded=True).same >= log(20) for asked in range(50, QUESTIONS + 1, 50)
        )
    assert false <= 19


def test_no_drop_of_five_points_with_nothing_changed_takes_88_questions():
    assert [log_e_mean(np.full(n, 0.05), least=-0.95) >= log(20) for n in (87, 88)] == [False, True]


@pytest.mark.parametrize(("values", "least"), [([-0.5], -0.4), ([0.0], 0.0)])
def test_values_below_the_least(values, least):
    with pytest.raises(ArgumentError, match="no value below it"):
        log_e_mean(np.array(values), least=least)


def test_a_confidence_sequence_holds_the_mean_and_narrows():
    generator, missed, widths = np.random.default_rng(2), 0, []
    for _ in range(60):
        values = generator.choice([-1.0, 0.0, 1.0], p=[0.15, 0.8, 0.05], size=200)
        found = [mean_sequence(values[:asked], alpha=0.05) for asked in (20, 60, 200)]
        missed += not all(low <= -0.1 <= high for low, high in found)
        widths.append([high - low for low, high in found])
    assert missed <= 6
    assert (np.diff(np.mean(widths, axis=0)) < 0).all()


def test_metrics_without_bounds_count_questions_and_are_never_equivalent():
    worse, same = evidence(np.full(20, -3.5), Rules(equivalence=0.5), bounded=False)
    assert worse == log_e_losses(np.array(20.0), np.array(0.0))
    assert same is None


def test_a_margin_is_bet_on():
    values = np.repeat([-1.0, 0.0], [20, 80])
    at_most = [evidence(values, Rules(margin=margin), bounded=True).worse for margin in (0.0, 0.05, 0.2)]
    assert at_most == sorted(at_most, reverse=True)
    assert at_most[1] > log(20) > at_most[2]


class TestGate:
    def found(self, lost: int, asked: int, **rules):
        """A line of 400 questions, of which so many were asked and lost."""
        baseline = measured([np.ones(400)], np.random.default_rng(3))
        (key,) = baseline
        run = replaced(baseline[key], np.ones(400))
        keep = run.outcomes.questions < asked
        outcomes = type(run.outcomes)(
            questions=run.outcomes.questions[keep],
            correct=(run.outcomes.questions[keep] >= lost).astype(float),
        )
        return check(
            baseline, {key: type(run)(**{**fields(run), "outcomes": outcomes})}, Rules(sequential=True, **rules)
        )

    def test_questions_not_yet_asked_are_not_missing(self):
        (one,) = self.found(1, 40)
        assert one.status == "undecided"
        assert one.message.startswith("-2.5 points [")
        assert "on 40 of 400 questions; e = 1.5 of 20 for a drop" in one.message
        assert summary([one]) == "undecided: 1 undecided"

    def test_a_clear_drop_is_found_early(self):
        (one,) = self.found(20, 40)
        assert (one.status, "e = 6.17e+04 of 20" in one.message) == ("regression", True)

    def test_equivalence_is_found_early(self):
        (one,) = self.found(0, 100, equivalence=0.05)
        assert one.status == "equivalent"
        assert "against a drop of 5.0 points" in one.message

    @pytest.mark.parametrize(
        ("outcomes", "message"),
        [
            (lambda old: replace(old, questions=old.questions + np.uint64(100)), "the 60 that were asked are others"),
            (lambda _: None, "nothing is known of its questions"),
        ],
    )
    def test_no_question_in_common_is_no_pass(self, outcomes, message):
        baseline = measured([np.ones(60)], np.random.default_rng(3))
        runs = {key: replace(one, outcomes=outcomes(one.outcomes)) for key, one in baseline.items()}
        for found in (
            check(baseline, runs, Rules(sequential=True)),
            check_against(baseline, runs, "wanda", Rules(sequential=True)),
        ):
            assert [(one.status, message in one.message) for one in found] == [("missing", True)]

    def test_a_table_of_many_lines_takes_more(self, tmp_path):
        tasks = {f"t_tts_{budget}": [1] * 60 for budget in (16, 32)}
        write_run(tmp_path / "old", tasks)
        write_run(tmp_path / "new", {name: [0] * 5 + [1] * 15 for name in tasks}, limit=20)
        old, new = frozen(tmp_path / "old"), frozen(tmp_path / "new")
        for found in (
            check(old, new, Rules(sequential=True)),
            check_against(old, new, "dense", Rules(sequential=True)),
        ):
            assert [one.status for one in found] == ["undecided"] * 3
            assert all("e = 9.82 of 60 for a drop" in one.message for one in found)


def fields(one) -> dict:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}
