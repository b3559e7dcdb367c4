"""Merging of runs over seeds, and the area under the curve over budgets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lm_eval_pruned.results.area import area_weights, with_areas
from lm_eval_pruned.results.labels import line_names
from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.measurement import Measurement, measure
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples_files import samples_file
from tests.results.written_runs import write_run


def measured(folder, **options) -> list[Measurement]:
    return list(measure(read_records([folder]).records, **options).values())


def test_seeds_merge_by_question(tmp_path):
    for seed, values in ((7, [0, 1, 1, 1]), (11, [0, 0, 1, 1]), (42, [0, 0, 0, 1])):
        write_run(tmp_path, {"t_tts_16": values}, seed=seed)
    (found,) = measured(tmp_path)
    assert found.accuracies == (0.75, 0.5, 0.25)
    assert found.accuracy == 0.5
    # Population, not sample: the square root of the mean of 1/16, 0, 1/16.
    assert found.std == pytest.approx(np.sqrt(2 / 48))
    assert found.outcomes is not None
    assert sorted(found.outcomes.correct) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found.metrics["thinking_tokens"] == 12.5


def test_one_seed_has_no_deviation(tmp_path):
    write_run(tmp_path, {"t_tts_16": [0, 1]})
    (found,) = measured(tmp_path)
    assert (found.std, found.error is not None) == (None, True)


def test_of_the_same_seed_the_later_run_counts(tmp_path):
    write_run(tmp_path, {"t_tts_16": [0, 0], "t_tts_32": [1, 1]}, day=2)
    write_run(tmp_path, {"t_tts_16": [1, 1]}, day=3)
    write_run(tmp_path, {"t_tts_16": [0, 1]}, day=1)
    assert {found.task: found.accuracies for found in measured(tmp_path)} == {"t_tts_16": (1.0,), "t_tts_32": (1.0,)}


def test_other_settings_stay_apart_and_are_named(tmp_path):
    write_run(tmp_path / "a", {"t_tts_16": [0, 0]}, kwargs={"temperature": 1.0})
    write_run(tmp_path / "b", {"t_tts_16": [1, 1]}, kwargs={"temperature": 0.6}, seed=8)
    write_run(tmp_path / "c", {"t_tts_16": [1, 1]}, method="wanda", sparsity=0.5)
    names = line_names(measure(read_records([tmp_path]).records))
    assert list(names.values()) == [
        "tiny-reasoner · dense · t_tts_16 · temperature=1",
        "tiny-reasoner · wanda uniform 0.5 · t_tts_16",
        "tiny-reasoner · dense · t_tts_16 · temperature=0.6",
    ]


def test_settings_can_be_ignored(tmp_path):
    write_run(tmp_path / "a", {"t_tts_16": [0, 1, 1]}, seed=1)
    write_run(tmp_path / "b", {"t_tts_16": [1]}, seed=2, limit=1)
    assert len(measured(tmp_path)) == 2
    (found,) = measured(tmp_path, ignoring=("limit",))
    assert found.outcomes is not None
    assert sorted(found.outcomes.correct) == [0.5, 1, 1]


def test_areas_are_worked_by_hand(tmp_path):
    write_run(tmp_path, {"t_tts_16": [0, 0], "t_tts_32": [0, 1], "t_tts_128": [1, 1]}, seed=1)
    write_run(tmp_path, {"t_tts_16": [0, 0], "t_tts_32": [1, 1], "t_tts_128": [1, 1]}, seed=2)
    records = read_records([tmp_path]).records
    *points, area = with_areas(measure(records)).values()
    assert len(points) == 3
    # log2: one step from 16 to 32, two from there to 128.
    assert area.accuracies == pytest.approx(((0.25 + 1.5) / 3, (0.5 + 2) / 3))
    assert area.outcomes is not None
    assert area.outcomes.correct.mean() == pytest.approx(area.accuracy)
    assert (area.task, area.budget, area.metric) == ("t_tts", None, "area of acc")


def test_a_constant_curve_has_its_height_as_area():
    assert sum(area_weights([512, 700, 1024, 8192])) == pytest.approx(1)


def test_no_area_without_a_curve_or_with_other_questions(tmp_path):
    write_run(tmp_path / "a", {"t_tts_16": [0, 0]})
    write_run(tmp_path / "b", {"u_tts_16": [0, 0], "u_tts_32": [0, 1, 1]})
    write_run(tmp_path / "c", {"v_tts_16": [0, 0], "v_tts_32": [0, 1]}, has_samples=False)
    found = measure(read_records([tmp_path]).records)
    assert with_areas(found) == found


def test_two_tasks_of_one_budget_are_no_curve(tmp_path):
    path = write_run(tmp_path, {"t_tts_16": [0, 1], "t_tts_8": [1, 1]})
    content = json.loads(path.read_text())
    content["configs"]["t_tts_8"]["generation_kwargs"]["thinking_token_budget"] = 16
    for kind in ("results", "configs", "n-samples"):
        content[kind]["t_tts"] = content[kind].pop("t_tts_8")
    path.write_text(json.dumps(content))
    samples = next(tmp_path.glob("samples_t_tts_8_*"))
    samples.rename(samples.with_name(samples.name.replace("t_tts_8", "t_tts")))
    found = measure(read_records([tmp_path]).records)
    assert [(one.benchmark, one.budget, one.outcomes is None) for one in found.values()] == [("t_tts", 16, False)] * 2
    assert with_areas(found) == found


def test_one_task_under_two_budgets_is_two_measurements_of_a_curve(tmp_path):
    for day, budget in enumerate((512, 4096), start=1):
        _write_budgeted(tmp_path, day=day, values=[0, 1, budget > 512], thinking_token_budget=budget)
    found = measure(read_records([tmp_path]).records)
    assert [(one.benchmark, one.budget, one.accuracy) for one in found.values()] == [
        ("mine", 512, pytest.approx(1 / 3)), ("mine", 4096, pytest.approx(2 / 3)),
    ]  # fmt: skip
    *_, area = with_areas(found).values()
    assert (area.task, area.accuracy) == ("mine", pytest.approx(1 / 2))


def test_pruned_is_held_against_dense_under_the_same_budget(tmp_path):
    _write_budgeted(tmp_path, day=1, values=[0, 0, 1], thinking_token_budget=512)
    _write_budgeted(tmp_path, day=2, values=[1, 1, 1], thinking_token_budget=4096)
    _write_budgeted(tmp_path, day=3, values=[0, 1, 1], thinking_token_budget=512, method="wanda", sparsity=0.2)
    lines = [entry.line for entry in build_entries(read_records([tmp_path]).records)]
    assert [line.difference for line in lines if line.run != "dense"] == [pytest.approx(1 / 3)]


def test_a_rerun_of_an_earlier_seed_is_the_newest(tmp_path):
    for day, (seed, achieved) in enumerate([(1, 0.4), (2, 0.4), (1, 0.5)], start=1):
        write_run(tmp_path, {"t_tts_8": [1, 0]}, seed=seed, day=day, method="wanda", sparsity=0.4, achieved=achieved)
    (found,) = measure(read_records([tmp_path]).records).values()
    assert (len(found.accuracies), found.sparsity) == (2, 0.5)


def _write_budgeted(folder, *, values, thinking_token_budget, **run):
    """Write a run of a task whose name has no budget."""
    path = write_run(folder, {"t_tts_8": values}, **run)
    content = json.loads(path.read_text())
    content["configs"]["t_tts_8"]["generation_kwargs"]["thinking_token_budget"] = thinking_token_budget
    for section in ("results", "configs", "n-samples"):
        content[section]["mine"] = content[section].pop("t_tts_8")
    path.write_text(json.dumps(content))
    samples_file(path, "t_tts_8").rename(samples_file(path, "mine"))


class TestRepeats:
    """Seeds that change nothing are one."""

    def test_equal_responses_under_other_seeds_are_one_run(self, tmp_path):
        paths = [write_run(tmp_path, {"t_tts_16": [0, 1, 1]}, seed=seed, day=seed) for seed in (1, 2, 3)]
        _write_the_responses_of(paths[0], paths[1])
        (found,) = measured(tmp_path)
        assert (found.accuracies, found.repeats) == ((pytest.approx(2 / 3),) * 2, 1)
        _write_the_responses_of(paths[0], paths[2])
        (found,) = measured(tmp_path)
        assert (len(found.accuracies), found.std, found.repeats) == (1, None, 2)
        line = build_entries(read_records([tmp_path]).records)[0].line
        assert (line.seeds, line.note) == (1, "2 more runs under other seeds gave the same responses")

    def test_equal_outcomes_of_other_responses_are_repetitions(self, tmp_path):
        for seed in (1, 2):
            write_run(tmp_path, {"t_tts_16": [1, 1]}, seed=seed)
        (found,) = measured(tmp_path)
        assert (found.accuracies, found.std, found.repeats) == ((1.0, 1.0), 0.0, 0)

    @pytest.mark.parametrize(
        ("kwargs", "calib_seed", "seeds"),
        [({}, 0, 1), ({"temperature": 0.7}, 0, 2), ({"do_sample": True}, 0, 2), ({}, 1, 2)],
    )
    def test_without_samples_greedy_runs_of_the_same_weights_are_one(self, tmp_path, kwargs, calib_seed, seeds):
        for seed in (1, 2):
            path = write_run(
                tmp_path, {"t_tts_16": [0, 1]}, seed=seed, kwargs=kwargs, method="wanda", has_samples=False
            )
            content = json.loads(path.read_text())
            # Harness tasks have no token counts, whose means would tell the runs apart.
            del content["results"]["t_tts_16"]["thinking_tokens,none"]
            content["config"]["pruning"]["config"]["calib_seed"] = calib_seed * seed
            path.write_text(json.dumps(content))
        (found,) = measured(tmp_path)
        assert len(found.accuracies) == seeds

    def test_samples_of_a_greedy_response_are_one(self, tmp_path):
        path = write_run(tmp_path, {"t_tts_16": [0, 1]})
        content = json.loads(path.read_text())
        content["configs"]["t_tts_16"]["metadata"] = {"num_samples": 4}
        path.write_text(json.dumps(content))
        assert (
            build_entries(read_records([tmp_path]).records)[0].line.note == "the 4 samples of a greedy response are one"
        )
        content["configs"]["t_tts_16"]["generation_kwargs"]["temperature"] = 1.0
        path.write_text(json.dumps(content))
        assert build_entries(read_records([tmp_path]).records)[0].line.note == ""


def _write_the_responses_of(one, other):
    """Give a run the responses of another one, as seeds do that sampling does not use."""
    source, target = (samples_file(path, "t_tts_16") for path in (one, other))
    target.write_text(source.read_text())
