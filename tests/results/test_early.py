"""Early stopping: the rule, its error rates, and what leaderboard, baseline and gate make of stopped runs."""

from __future__ import annotations

import csv
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.comparison import Pair, compare
from lm_eval_pruned.results.gate.baseline_file import dump_baseline
from lm_eval_pruned.results.gate.check import Rules, check
from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine, build_entries
from lm_eval_pruned.results.leaderboard.tables import as_csv, markdown
from lm_eval_pruned.results.measurement import measure
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.statistics.early import StoppingRule, anytime_p, difference_sequence, judge, share_sequence
from lm_eval_pruned.results.statistics.paired import paired_test
from tests.results.test_gate import frozen
from tests.results.written_runs import stop, write_run

RULE = StoppingRule(lines=13, curves=13)
DENSE = {"t_tts_16": [1] * 60, "t_tts_32": [1] * 60}


def gains(lost: int, won: int, asked: int) -> np.ndarray:
    return np.repeat([-1.0, 1.0, 0.0], [lost, won, asked - lost - won])


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((15, 0, 16), "drop"),
        ((0, 15, 16), "gain"),
        ((0, 0, 52), "undecided"),
        ((0, 0, 60), "equivalent"),
        ((4, 0, 59), "undecided"),
        ((40, 0, 400), "drop"),
        ((40, 40, 400), "equivalent"),
    ],
)
def test_verdicts(counts, verdict):
    assert judge([gains(*counts)], RULE).verdict == verdict


def test_one_budget_is_enough_for_a_drop_and_equivalence_is_of_the_whole():
    same, lost = np.zeros(64), gains(30, 0, 64)
    assert judge([same, lost, lost / 8], RULE).verdict == "drop"
    assert judge([same, gains(3, 0, 64), gains(3, 0, 64) / 8], RULE).verdict == "equivalent"
    assert judge([same, gains(3, 0, 64), gains(3, 0, 64)], RULE).verdict == "undecided"


def test_the_next_round_ends_where_the_verdict_is_expected_and_at_most_doubles():
    assert judge([np.zeros(16)], RULE).ask == 32
    expected = judge([np.zeros(32)], RULE).ask
    assert judge([np.zeros(expected)], RULE).verdict == "equivalent"
    assert judge([np.zeros(expected - 1)], RULE).verdict == "undecided"


@pytest.mark.parametrize("curves", [1, 2, 13])
def test_verdicts_and_intervals_agree(curves):
    rule, seen = StoppingRule(lines=curves, curves=curves), set()
    for asked in (40, 60, 150):
        for lost in (0, 1, 4, asked // 3):
            for won in {0, lost // 2, lost}:
                values = gains(lost, won, asked)
                verdict = judge([values], rule).verdict
                low, high = difference_sequence(values, alpha=rule.alpha)
                # The level of each end is that of the verdict.
                lower, upper = difference_sequence(values, alpha=2 * rule.alpha / max(2, curves))
                seen.add(verdict)
                if verdict == "drop":
                    assert high < 0
                else:
                    assert (verdict == "equivalent") == (lower > -0.1 and upper < 0.1)
                    assert verdict != "equivalent" or (low > -0.1 and high < 0.1)
    assert seen == {"drop", "equivalent", "undecided"}


def test_of_13_equal_cells_judged_after_every_round_any_is_called_changed_in_few_sweeps():
    """200 questions; with the tests at the end, which are doubled as the leaderboard does."""
    generator, sweeps, false = np.random.default_rng(0), 600, 0

    @cache
    def is_changed(lost: int, won: int, asked: int) -> bool:
        values = gains(lost, won, asked)
        if asked == 200 and 2 * 13 * paired_test(values, "two-sided").p <= 0.05:
            return True
        return judge([values], RULE).verdict in ("drop", "gain")

    for _ in range(sweeps):
        dense, cells = generator.random(200) < 0.5, generator.random((13, 200)) < 0.5
        lost, won = np.cumsum(dense & ~cells, axis=1), np.cumsum(~dense & cells, axis=1)
        false += any(
            is_changed(int(lost[cell, asked - 1]), int(won[cell, asked - 1]), asked)
            for cell in range(13)
            for asked in (16, 32, 64, 128, 200)
        )
    assert false / sweeps <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sweeps)


def test_a_p_that_holds_at_any_time_is_larger_than_one_that_holds_once():
    for counts in ((5, 0, 20), (12, 2, 40)):
        values = gains(*counts)
        assert anytime_p(values, two_sided=True) > paired_test(values, "two-sided").p
        assert anytime_p(values, two_sided=False) < anytime_p(values, two_sided=True)
    assert anytime_p(gains(30, 0, 100), two_sided=False, margin=0.3) > 0.05


def test_a_share_sequence_holds_the_share_at_all_times():
    generator, missed = np.random.default_rng(1), 0
    for _ in range(40):
        right = (generator.random(150) < 0.1).astype(float)
        ends = [share_sequence(right[:asked], alpha=0.05) for asked in (10, 40, 150)]
        missed += not all(low <= 0.1 <= high for low, high in ends)
        assert all(0 <= low < high <= 1 for low, high in ends)
    assert missed <= 5


def test_in_a_table_with_a_stopped_line_every_p_counts_twice():
    questions = np.arange(40, dtype=np.uint64)
    ones, fewer = (Outcomes(questions=questions, correct=(questions >= lost).astype(float)) for lost in (0, 8))
    plain = compare([Pair(fewer, ones)], alpha=0.05, alternative="two-sided")
    both = compare([Pair(fewer, ones), Pair(fewer, ones, True, True)], alpha=0.05, alternative="two-sided")
    assert both[0].p_holm == pytest.approx(4 * plain[0].p_holm)
    assert (both[1].test, both[1].detectable) == ("e-process", None)
    assert both[1].low < plain[0].low
    assert both[1].high > plain[0].high


@pytest.fixture
def folder(tmp_path) -> Path:
    write_run(tmp_path, DENSE)
    for seed, sparsity, right, asked in ((8, 0.2, 0, 20), (9, 0.5, 1, 60)):
        path = write_run(
            tmp_path, {task: [right] * asked for task in DENSE}, method="wanda", sparsity=sparsity, seed=seed
        )
        stop(path, asked)
    return tmp_path


def lines(folder: Path) -> list[LeaderboardLine]:
    return [entry.line for entry in build_entries(read_records([folder]).records)]


class TestStoppedRuns:
    def test_the_leaderboard_gives_them_intervals_and_a_mark_and_no_mean(self, folder):
        found = lines(folder)
        stopped = [line for line in found if line.run == "wanda uniform 0.2"]
        assert len(stopped) == 3
        for line in stopped:
            assert (line.acc, line.difference, line.harmful, line.finished, line.std) == (None,) * 5
            assert (line.stopped_at, line.stopped_of, line.verdict) == (20, 60, "drop")
            assert line.low == 0 < line.high < 0.3
            assert line.difference_low == -1 < line.difference_high < -0.4
            assert line.p_holm < 0.05
        # A run under the rule that was asked everything is an ordinary one.
        assert [line.acc for line in found if line.run == "wanda uniform 0.5"] == [1.0] * 3
        # Between 1.0 and the published ones stands nothing worse.
        assert [line.run for line in found][2::3] == ["wanda uniform 0.2"] * 3

    def test_tables(self, folder):
        table = markdown(lines(folder))
        (row,) = [line for line in table.splitlines() if "0.2 |" in line and line.startswith("| 16 ")]
        assert "| stopped at 20 of 60 | 0.000 to 0." in row
        assert "* | drop | " in row
        assert "stopped at 20 of 200: a sweep" in table
        assert "all p-values of the table are doubled" in table
        rows = csv.DictReader(io.StringIO(as_csv(lines(folder))))
        assert {(one["acc"], one["stopped_at"]) for one in rows} == {("1.0", ""), ("", "20")}

    def test_no_word_of_it_where_nothing_was_stopped(self, tmp_path):
        write_run(tmp_path, DENSE)
        assert "stopped" not in markdown(lines(tmp_path))

    def test_seeds_are_compared_on_what_all_of_them_asked(self, tmp_path):
        write_run(tmp_path, DENSE)
        for seed, asked in ((8, 20), (9, 40)):
            values = {task: [0] * asked for task in DENSE}
            stop(write_run(tmp_path, values, method="wanda", sparsity=0.2, seed=seed), asked)
        (one,) = [
            one
            for key, one in measure(read_records([tmp_path]).records).items()
            if key.configuration.pruning and key.budget == 16
        ]
        assert one.stopped == (20, 60, "drop")
        assert len(one.outcomes.questions) == 20

    def test_they_are_no_baseline(self, folder):
        with pytest.raises(DataError, match=r"wanda uniform 0.2 · t_tts_16: stopped after 20 of 60: drop; a baseline"):
            dump_baseline(frozen(folder))

    def test_the_gate_misses_questions_or_judges_those_asked(self, tmp_path):
        write_run(tmp_path / "old", DENSE)
        stop(write_run(tmp_path / "new", {task: [0] * 20 for task in DENSE}), 20)
        old, new = frozen(tmp_path / "old"), frozen(tmp_path / "new")
        found = check(old, new, Rules())
        missing = [one.message for one in found if one.status == "missing"]
        # The area has the same questions.
        assert len(missing) == len(DENSE)
        assert all("stopped after 20 of 60: drop; --sequential judges" in message for message in missing)
        assert {one.status for one in check(old, new, Rules(sequential=True))} == {"regression"}

    def test_a_malformed_mark_is_said(self, tmp_path):
        path = write_run(tmp_path, DENSE)
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "early_stopping": {"tasks": {"t_tts_16": {"stopped_at": "x"}}}}))
        with pytest.raises(DataError, match="early_stopping is not what a sweep writes"):
            read_records([tmp_path])
