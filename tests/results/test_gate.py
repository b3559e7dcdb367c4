"""Regression gate: regressions are found, noise passes, undetectable drops are reported as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.results.gate.baseline_file import IGNORED, dump_baseline, load_baseline
from lm_eval_pruned.results.gate.check import FAILING, Rules, check
from lm_eval_pruned.results.measurement import Key, Measurement, measure
from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples import Outcomes
from tests.results.written_runs import answers, difficulties, write_run

BUDGETS = (16, 32, 64, 128, 256)
CURVE = {"t_tts_16": [0, 1, 1, 0], "t_tts_32": [1, 1, 1, 0]}


def measured(chances, generator, *, samples=1, seeds=1, method="wanda"):
    """Measurements of a model with these probabilities of a right answer, [questions] per budget; one run per seed."""
    found = {}
    for budget, chance in zip(BUDGETS, chances, strict=False):
        correct = np.mean([answers(chance, generator, samples) for _ in range(seeds)], axis=0)
        configuration = Configuration(model="m", pruning=(("method", method),), settings=())
        key = Key(configuration, f"t_tts_{budget}", "none", "acc", budget)
        found[key] = Measurement(
            configuration=configuration, benchmark="t_tts", task=key.task, filter="none", budget=budget, metric="acc",
            accuracies=(correct.mean(),), metrics={}, error=None, sparsity=0.5,
            outcomes=Outcomes(questions=np.arange(len(correct), dtype=np.uint64), correct=correct),
        )  # fmt: skip
    return found


def replaced(found: Measurement, correct) -> Measurement:
    """The measurement with its outcomes replaced."""
    outcomes = Outcomes(questions=found.outcomes.questions, correct=np.asarray(correct, dtype=float))
    return replace(found, outcomes=outcomes)


def is_failed(baseline, runs, alpha=0.05, margin=0.0):
    return any(found.status in FAILING for found in check(baseline, runs, Rules(alpha=alpha, margin=margin)))


def statuses(baseline, runs, margin=0.0):
    return [found.status for found in check(baseline, runs, Rules(alpha=0.05, margin=margin))]


def frozen(folder: Path) -> dict[Key, Measurement]:
    return measure(read_records([folder]).records, ignoring=IGNORED)


class TestNoise:
    @pytest.mark.parametrize(("samples", "seeds", "budgets"), [(1, 1, 1), (1, 1, 5), (1, 3, 5), (4, 1, 5)])
    def test_another_seed_is_not_flagged_19_times_in_20(self, samples, seeds, budgets):
        generator = np.random.default_rng(samples + seeds + budgets)
        flagged = 0
        for _ in range(60):
            chances = np.sort([difficulties(200, generator) for _ in range(budgets)], axis=0)
            baseline, runs = (measured(chances, generator, samples=samples, seeds=seeds) for _ in range(2))
            flagged += is_failed(baseline, runs)
        assert flagged <= 3

    def test_a_drop_within_the_margin_is_not_flagged(self):
        generator = np.random.default_rng(0)
        flagged = 0
        for _ in range(100):
            chances = [0.1 + 0.9 * difficulties(200, generator)]
            worse = [chances[0] - 0.05]
            flagged += is_failed(measured(chances, generator), measured(worse, generator), margin=0.05)
        assert flagged <= 5


class TestRegressions:
    @pytest.mark.parametrize(("samples", "seeds"), [(1, 3), (4, 1)])
    def test_ten_points_on_200_questions_are_caught(self, samples, seeds):
        """One pruning setting of three got worse at every budget; all noise is drawn anew."""
        generator = np.random.default_rng(seeds)
        caught = 0
        for _ in range(20):
            chances = np.sort([0.12 + 0.85 * difficulties(200, generator) for _ in BUDGETS], axis=0)
            baseline, runs = {}, {}
            for method, drop in (("magnitude", 0.0), ("wanda", 0.1), ("sparsegpt", 0.0)):
                baseline |= measured(chances, generator, samples=samples, seeds=seeds, method=method)
                runs |= measured(chances - drop, generator, samples=samples, seeds=seeds, method=method)
            regressions = {
                found.name.split(" · ")[1].split()[0]
                for found in check(baseline, runs, Rules(alpha=0.05, margin=0.0))
                if found.status == "regression"
            }
            caught += regressions == {"wanda"}
        assert caught >= 19

    def test_twenty_answers_lost_of_200_are_caught_at_one_budget_of_thirty(self):
        generator = np.random.default_rng(1)
        baseline = {}
        for method in ("a", "b", "c", "d", "e", "f"):
            baseline |= measured([difficulties(200, generator) for _ in BUDGETS], generator, method=method)
        key = next(iter(baseline))
        correct = baseline[key].outcomes.correct.copy()
        correct[np.flatnonzero(correct)[:20]] = 0
        runs = baseline | {key: replaced(baseline[key], correct)}
        found = [one for one in check(baseline, runs, Rules(alpha=0.05, margin=0.0)) if one.status == "regression"]
        assert [one.name for one in found] == ["m · a uniform · t_tts_16", "m · a uniform · t_tts (area of acc)"]
        assert found[0].message.startswith("-10.0 points [-15.0, -5.8] on 200 questions, p = 9.5e-07")

    def test_a_small_drop_at_every_budget_shows_in_the_area(self):
        generator = np.random.default_rng(2)
        chances = np.full((5, 200), 0.5)
        baseline, runs = measured(chances, generator), measured(chances - 0.08, generator)
        found = check(baseline, runs, Rules(alpha=0.05, margin=0.0))
        assert [(one.name, one.status) for one in found][-1] == (
            "m · wanda uniform · t_tts (area of acc)",
            "regression",
        )

    def test_a_margin_lets_it_through(self):
        baseline = measured([np.ones(200)], np.random.default_rng(3))
        (key,) = baseline
        runs = {key: replaced(baseline[key], np.repeat([0.0, 1.0], [20, 180]))}
        assert [statuses(baseline, runs, margin=margin) for margin in (0.0, 0.03, 0.12)] == [
            ["regression"], ["regression"], ["fine"],
        ]  # fmt: skip


class TestUndetectable:
    def test_one_answer_lost_of_30(self):
        baseline = measured([np.ones(30)], np.random.default_rng(4))
        (key,) = baseline
        runs = {key: replaced(baseline[key], np.repeat([0.0, 1.0], [1, 29]))}
        (found,) = check(baseline, runs, Rules(alpha=0.05, margin=0.0))
        assert found.status == "undetectable"
        assert "-3.3 points" in found.message
        assert "cannot be told from noise here; a drop is found 4 times in 5 from 24.5 points" in found.message

    def test_what_is_fine_says_what_it_would_have_seen(self):
        baseline = measured([np.ones(30)], np.random.default_rng(4))
        (found,) = check(baseline, baseline, Rules(alpha=0.05, margin=0.0))
        assert found.status == "fine"
        assert found.message.endswith("a drop is found 4 times in 5 from 21.4 points")

    def test_too_few_questions(self):
        baseline = measured([np.ones(4)], np.random.default_rng(4))
        (key,) = baseline
        (found,) = check(baseline, {key: replaced(baseline[key], np.zeros(4))}, Rules(alpha=0.05, margin=0.0))
        assert found.status == "undetectable"
        assert found.message.endswith("no drop at all can be found on 4 questions")


class TestMissing:
    def test_the_same_is_fine(self, tmp_path):
        write_run(tmp_path, CURVE, method="wanda", sparsity=0.2)
        assert statuses(frozen(tmp_path), frozen(tmp_path)) == ["fine"] * 3

    def test_another_sparsity(self, tmp_path):
        for name, achieved in (("old", 0.2), ("new", 0.1999)):
            write_run(tmp_path / name, CURVE, method="wanda", sparsity=0.2, achieved=achieved)
        found = check(frozen(tmp_path / "old"), frozen(tmp_path / "new"), Rules(alpha=0.05, margin=0.0))
        assert [one.status for one in found] == ["sparsity", "fine", "fine", "fine"]
        assert found[0].message == "the achieved sparsity is 0.199900, in the baseline 0.200000"

    def test_another_configuration_names_the_nearest(self, tmp_path):
        write_run(tmp_path / "old", CURVE, method="wanda", sparsity=0.2)
        write_run(tmp_path / "new", CURVE, method="wanda", sparsity=0.3)
        write_run(tmp_path / "new", CURVE, method="magnitude", sparsity=0.3, seed=8)
        (found,) = check(frozen(tmp_path / "old"), frozen(tmp_path / "new"), Rules(alpha=0.05, margin=0.0))
        assert (found.status, found.name) == ("missing", "tiny-reasoner · wanda uniform 0.2")
        assert found.message.endswith("the nearest has sparsity 0.3 instead of 0.2; --against compares others")

    def test_many_differences_are_counted(self, tmp_path):
        write_run(tmp_path / "old", CURVE, method="wanda", sparsity=0.2, kwargs={"temperature": 0.6, "top_p": 0.95})
        write_run(tmp_path / "new", CURVE, model="other")
        (found,) = check(frozen(tmp_path / "old"), frozen(tmp_path / "new"), Rules(alpha=0.05, margin=0.0))
        assert found.message.endswith(
            "the nearest has method unset instead of wanda, model other instead of tiny-reasoner, "
            "sparsity unset instead of 0.2 and 2 more differences; --against compares others"
        )

    def test_a_task(self, tmp_path):
        write_run(tmp_path / "old", CURVE)
        write_run(tmp_path / "new", {"t_tts_16": [0, 1, 1, 0]})
        assert statuses(frozen(tmp_path / "old"), frozen(tmp_path / "new")) == ["missing", "fine"]

    def test_questions(self, tmp_path):
        write_run(tmp_path / "old", CURVE)
        write_run(tmp_path / "new", {"t_tts_16": [0], "t_tts_32": [1, 1, 1, 0]}, limit=1)
        found = check(frozen(tmp_path / "old"), frozen(tmp_path / "new"), Rules(alpha=0.05, margin=0.0))
        assert [one.status for one in found] == ["missing", "fine", "fine"]
        assert found[0].message.startswith("3 of 4 questions are missing: ")

    def test_all_questions(self, tmp_path):
        write_run(tmp_path / "old", {"t_tts_16": [0, 1]})
        write_run(tmp_path / "new", {"t_tts_16": [0, 1]}, has_samples=False)
        (found,) = check(frozen(tmp_path / "old"), frozen(tmp_path / "new"), Rules(alpha=0.05, margin=0.0))
        assert (found.status, "--log_samples" in found.message) == ("missing", True)

    def test_what_is_new_is_no_finding(self, tmp_path):
        write_run(tmp_path / "old", CURVE)
        write_run(tmp_path / "new", {**CURVE, "u_tts_16": [0, 0]})
        assert statuses(frozen(tmp_path / "old"), frozen(tmp_path / "new")) == ["fine"] * 3


class TestBaseline:
    def test_thaws_as_it_was_frozen(self, tmp_path):
        write_run(tmp_path, {"t_tts_16": [0, 1, 0.5], "t_tts_32": [0, 1, 1]}, method="wanda", sparsity=0.2)
        write_run(tmp_path, {"t_tts_16": [0, 1, 0.1]}, method="wanda", sparsity=0.2, seed=11)
        before = frozen(tmp_path)
        (tmp_path / "baseline.json").write_text(dump_baseline(before))
        after = load_baseline(tmp_path / "baseline.json")
        assert before.keys() == after.keys()
        for key, found in before.items():
            assert np.array_equal(found.outcomes.questions, after[key].outcomes.questions)
            assert np.array_equal(found.outcomes.correct, after[key].outcomes.correct)
            assert (found.sparsity, found.budget, found.benchmark) == (0.2, after[key].budget, after[key].benchmark)

    def test_nothing_to_freeze(self, tmp_path):
        write_run(tmp_path, {"t_tts_16": [0, 1]}, has_samples=False)
        with pytest.raises(DataError, match="--log_samples"):
            dump_baseline(frozen(tmp_path))

    @pytest.mark.parametrize(
        "content",
        ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "measurements": [3]}',
         '{"schema_version": 1, "measurements": [{"model": "m"}]}', '{"schema_version": 1, "measurements": 3}', "\xff"],
    )  # fmt: skip
    def test_no_baseline(self, tmp_path, content):
        (tmp_path / "b.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=r"b\.json is not a baseline"):
            load_baseline(tmp_path / "b.json")

    def test_another_version(self, tmp_path):
        (tmp_path / "b.json").write_text('{"schema_version": 2}')
        with pytest.raises(DataError, match="schema_version 2, not 1"):
            load_baseline(tmp_path / "b.json")

    def test_no_such_file(self, tmp_path):
        with pytest.raises(MissingDataError, match="lm-eval-pruned baseline DIR --output"):
            load_baseline(tmp_path / "b.json")
