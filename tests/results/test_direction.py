"""Directions of metrics: read from the file, decided by the name, or unknown; and what follows from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_pruned.results.area import with_areas
from lm_eval_pruned.results.gate.baseline_file import IGNORED, dump_baseline, load_baseline
from lm_eval_pruned.results.gate.check import Rules, check
from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.measurement import measure
from lm_eval_pruned.results.records.metrics import compared_metric, direction
from lm_eval_pruned.results.records.reading import read_records
from tests.results.written_runs import write_run


def write(folder: Path, values, *, metric: str, stated: object = None, aggregation: str = "mean", **run) -> Path:
    """Write a run of t_tts_16 scored by another metric, whose direction the file states as given."""
    path = write_run(folder, {"t_tts_16": values}, **run)
    content = json.loads(path.read_text())
    results = content["results"]["t_tts_16"]
    for name in ("acc,none", "acc_stderr,none"):
        results[name.replace("acc", metric)] = results.pop(name)
    content["higher_is_better"] = {"t_tts_16": {metric: stated}}
    content["configs"]["t_tts_16"]["metric_list"] = [{"metric": metric, "aggregation": aggregation}]
    path.write_text(json.dumps(content))
    for samples in folder.glob(f"samples_*{path.stem.rpartition('_')[2]}.jsonl"):
        samples.write_text(samples.read_text().replace('"acc": ', f'"{metric}": '))
    return path


def judged(tmp_path: Path, **rules):
    """Findings on `new` against `old`, through a baseline file."""
    old, new = (measure(read_records([tmp_path / name]).records, ignoring=IGNORED) for name in ("old", "new"))
    (tmp_path / "b.json").write_text(dump_baseline(old))
    return check(load_baseline(tmp_path / "b.json"), new, Rules(**rules))


FEW, MANY = [1] * 100 + [0] * 100, [1] * 140 + [0] * 60


@pytest.mark.parametrize("metric", ["toxicity", "wer", "acc"])
def test_the_gate_goes_by_the_direction_in_the_file(tmp_path, metric):
    write(tmp_path / "old", FEW, metric=metric, stated=False)
    write(tmp_path / "new", MANY, metric=metric, stated=False)
    (found,) = judged(tmp_path)
    assert found.status == "regression"
    assert "+20.0 points (worse: lower is better)" in found.message
    assert found.message.endswith("a significant rise")
    assert [one.status for one in judged(tmp_path, margin=0.25)] == ["fine"]
    (tmp_path / "old").rename(tmp_path / "x")
    (tmp_path / "new").rename(tmp_path / "old")
    (tmp_path / "x").rename(tmp_path / "new")
    (found,) = judged(tmp_path)
    assert (found.status, "-20.0 points (better: lower is better)" in found.message) == ("fine", True)


def test_a_name_decides_where_no_file_does(tmp_path):
    write(tmp_path / "old", FEW, metric="wer")
    write(tmp_path / "new", MANY, metric="wer")
    assert [one.status for one in judged(tmp_path)] == ["regression"]


def test_what_nobody_knows_fails_in_words(tmp_path):
    write(tmp_path / "old", FEW, metric="score")
    write(tmp_path / "new", FEW, metric="score")
    (found,) = judged(tmp_path)
    assert found.status == "unknown-direction"
    assert "no file says whether a higher score is better" in found.message
    assert "set higher_is_better" in found.message


def test_files_that_contradict_each_other_say_nothing(tmp_path):
    write(tmp_path / "old", FEW, metric="score", stated=True)
    write(tmp_path / "new", MANY, metric="score", stated=False)
    (found,) = judged(tmp_path)
    assert (found.status, "contradict each other" in found.message) == ("unknown-direction", True)


def test_a_baseline_of_an_older_version_takes_the_direction_of_the_runs(tmp_path):
    write(tmp_path / "old", FEW, metric="score", stated=False)
    write(tmp_path / "new", MANY, metric="score", stated=False)
    content = json.loads(dump_baseline(measure(read_records([tmp_path / "old"]).records, ignoring=IGNORED)))
    for entry in content["measurements"]:
        assert entry.pop("higher_is_better") is False
        entry.pop("evidence")
    (tmp_path / "b.json").write_text(json.dumps(content))
    new = measure(read_records([tmp_path / "new"]).records, ignoring=IGNORED)
    (found,) = check(load_baseline(tmp_path / "b.json"), new, Rules(alpha=0.05, margin=0.0))
    assert found.status == "regression"


@pytest.mark.parametrize(("stated", "best"), [(True, 0.7), (False, 0.5)])
def test_the_best_line_is_first(tmp_path, stated, best):
    write(tmp_path, FEW, metric="score", stated=stated)
    write(tmp_path, MANY, metric="score", stated=stated, method="wanda", sparsity=0.2, seed=8)
    lines = [entry.line for entry in build_entries(read_records([tmp_path]).records)]
    assert (lines[0].acc, {line.higher_is_better for line in lines}) == (best, {stated})
    assert [line.difference for line in lines if line.run != "dense"] == [pytest.approx(0.2)]


def test_amounts_beyond_one_are_not_points(tmp_path):
    write(tmp_path / "old", [3.5] * 50, metric="bias", stated=False)
    write(tmp_path / "new", [4.0] * 50, metric="bias", stated=False)
    (found,) = judged(tmp_path)
    assert found.message.startswith("+0.5 (worse: lower is better)")


def test_rows_of_a_perplexity_are_not_its_values(tmp_path):
    """They are log-likelihoods: their mean is not the metric, and more of them is better."""
    path = write(tmp_path, [-2.0, -3.0], metric="perplexity", stated=False, aggregation="perplexity")
    content = json.loads(path.read_text())
    content["results"]["t_tts_16"]["perplexity,none"] = 12.18
    path.write_text(json.dumps(content))
    (found,) = measure(read_records([tmp_path]).records).values()
    assert (found.accuracy, found.outcomes, found.higher_is_better) == (12.18, None, False)


def test_an_area_has_the_direction_of_its_curve(tmp_path):
    path = write_run(tmp_path, {"t_tts_16": [0, 1], "t_tts_32": [1, 1]})
    content = json.loads(path.read_text())
    content["higher_is_better"] = {task: {"acc": False} for task in content["results"]}
    path.write_text(json.dumps(content))
    assert {one.higher_is_better for one in with_areas(measure(read_records([tmp_path]).records)).values()} == {False}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (["likelihood_diff", "pct_stereotype"], "pct_stereotype"), (["em", "f1"], "f1"), (["bypass"], None),
        (["thinking_tokens", "budget_hit"], None), (["word_perplexity", "bits_per_byte"], "word_perplexity"),
    ],
)  # fmt: skip
def test_which_metric_is_compared(metrics, expected):
    assert compared_metric(metrics) == expected


@pytest.mark.parametrize("metric", ["acc_norm", "pass@16", "pass_at_1", "rougeL", "prompt_level_loose_acc", "qa_f1"])
def test_more_of_it_is_better(metric):
    assert direction(metric, [None]) is True


@pytest.mark.parametrize(
    "metric",
    ["byte_perplexity", "bits_per_byte", "ter", "brier_score", "val_loss", "edit_distance", "rmse", "phone_error_rate"],
)
def test_less_of_it_is_better(metric):
    assert direction(metric, [None]) is False
