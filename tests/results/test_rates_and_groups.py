"""Metrics that are no plain mean over one task's rows: bits per byte, Brier scores, and metrics of groups."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.results.area import with_areas
from lm_eval_pruned.results.comparison import Pair, compare, gains
from lm_eval_pruned.results.equivalence import prove
from lm_eval_pruned.results.gate.check import check, check_against
from lm_eval_pruned.results.gate.rules import Rules
from lm_eval_pruned.results.gate.sequential import evidence
from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.measurement import measure
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.record import read_record
from lm_eval_pruned.results.records.row_values import row_value
from lm_eval_pruned.results.records.samples import Outcomes
from lm_eval_pruned.results.reference import why_no_outcomes

STAMP = "2026-05-01T10-00-00.000001"
SIZES = [10, 40, 100, 250, 30, 70]


def write(folder, tasks, *, groups=None, limit=None, model="a/b", **more):
    """Write a run as the harness does: for each task its metrics and rows."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "results": {task: metrics for task, (metrics, _) in tasks.items()}
        | {g: m for g, (m, _) in (groups or {}).items()},
        "configs": {task: {"num_fewshot": 0} for task in tasks},
        "group_subtasks": {group: members for group, (_, members) in (groups or {}).items()},
        "config": {"model": "hf", "model_args": {"pretrained": model}, "limit": limit},
        **more,
    }
    for task, (_, rows) in tasks.items():
        lines = [
            {"doc_id": i, "filter": "none", "doc_hash": hashlib.sha256(f"{task} {i}".encode()).hexdigest(), **row}
            for i, row in enumerate(rows)
        ]
        (folder / f"samples_{task}_{STAMP}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    path = folder / f"results_{STAMP}.json"
    path.write_text(json.dumps(content))
    return path


def pages(bits):
    """A rolling task with documents of SIZES bytes and these bits for each byte."""
    nats = [-rate * size * math.log(2) for rate, size in zip(bits, SIZES, strict=False)]
    rate = -sum(nats) / sum(SIZES[: len(nats)]) / math.log(2)
    words = sum(SIZES[: len(nats)]) / 5
    metrics = {"word_perplexity,none": math.exp(min(700, -sum(nats) / words)), "bits_per_byte,none": rate}
    rows = [
        {"word_perplexity": [one, size / 5], "bits_per_byte": [one, size]}
        for one, size in zip(nats, SIZES, strict=False)
    ]
    return {"pages": (metrics, rows)}


def measured(folder, **options):
    return measure(read_records([folder]).records, **options)


class TestRates:
    def test_a_perplexity_is_followed_by_its_rate(self, tmp_path):
        perplexity, rate = read_record(write(tmp_path, pages([1.0, 2.0, 3.0, 0.5, 1.5, 2.5]))).results
        assert (perplexity.metric, perplexity.outcomes, rate.metric) == ("word_perplexity", None, "bits_per_byte")
        assert rate.outcomes is not None
        assert rate.outcomes.mean == pytest.approx(rate.metrics["bits_per_byte"], rel=1e-12)
        assert rate.outcomes.spread.mean() == pytest.approx(rate.outcomes.mean)
        assert sorted(rate.outcomes.weights) == sorted(SIZES)

    def test_a_rise_is_a_regression_in_the_unit_of_the_metric(self, tmp_path):
        old, new = [0.7, 0.8, 0.9, 0.75, 0.6, 0.85], [0.8, 0.85, 0.95, 0.9, 0.7, 0.95]
        write(tmp_path / "old", pages(old))
        write(tmp_path / "new", pages(new))
        *_, found = check(measured(tmp_path / "old"), measured(tmp_path / "new"), Rules(alpha=0.05))
        rise = sum((after - before) * size for after, before, size in zip(new, old, SIZES, strict=True)) / sum(SIZES)
        assert (found.status, found.name) == ("regression", "a/b · dense · pages (bits_per_byte)")
        assert found.message.startswith(f"+{rise:.4g} (worse: lower is better) [")
        *_, back = check(measured(tmp_path / "new"), measured(tmp_path / "old"), Rules(alpha=0.05))
        assert (back.status, f"-{rise:.4g} (better" in back.message) == ("fine", True)

    def test_only_shared_documents_count(self, tmp_path):
        write(tmp_path / "old", pages([1.0, 1.0, 1.0]), limit=3)
        write(tmp_path / "new", pages([2.0, 1.0, 1.0, 9.0, 9.0, 9.0]))
        old, new = (measured(tmp_path / name, ignoring=("limit",)) for name in ("old", "new"))
        *_, found = check(old, new, Rules(alpha=0.05))
        assert found.message.startswith(f"+{10 / 150:.4g} (worse")

    def test_a_constant_rise_is_measured_exactly_whatever_the_sizes(self):
        rng = np.random.default_rng(0)
        sizes, keys = rng.lognormal(8, 1, 40), np.arange(40, dtype=np.uint64)
        old = Outcomes(questions=keys, correct=rng.normal(1, 0.1, 40), weights=sizes)
        rises = 0.1 + 0.001 * rng.standard_normal(40)
        pair = Pair(Outcomes(questions=keys, correct=old.correct + rises, weights=sizes), old, False)
        found = {
            margin: compare([pair], alpha=0.05, alternative="less", margin=margin)[0] for margin in (0.0, 0.098, 0.102)
        }
        assert 0.098 < found[0.0].low < found[0.0].high < 0.102
        assert (found[0.098].p < 1e-3, found[0.102].p > 0.999) == (True, True)
        proofs = {margin: prove([pair], alpha=0.05, margin=margin)[0].p for margin in (0.098, 0.102)}
        assert (proofs[0.098] > 0.99, proofs[0.102] < 1e-3) == (True, True)
        # Every document is within the margin of 0.11, and none within that of 0.09.
        assert evidence(gains(pair, center=-0.11), Rules(alpha=0.05, margin=0.11), bounded=False).worse < 0
        assert evidence(gains(pair, center=-0.09), Rules(alpha=0.05, margin=0.09), bounded=False).worse > 9

    def test_an_area_is_a_rate(self, tmp_path):
        write(tmp_path, pages([0.7, 0.8, 0.9, 0.75, 0.6, 0.85]))
        ((key, rate),) = ((key, one) for key, one in measured(tmp_path).items() if key.metric == "bits_per_byte")
        curve = {replace(key, budget=budget): replace(rate, budget=budget) for budget in (512, 1024)}
        *_, area = with_areas(curve).values()
        assert (area.metric, area.outcomes.mean) == ("area of bits_per_byte", pytest.approx(rate.outcomes.mean))

    def test_a_baseline_file_keeps_the_sizes(self, tmp_path, capsys):
        write(tmp_path / "old", pages([0.7, 0.8, 0.9, 0.75, 0.6, 0.85]))
        write(tmp_path / "new", pages([0.8, 0.85, 0.95, 0.9, 0.7, 0.95]))
        baseline = tmp_path / "b.json"
        assert cli.main(["baseline", str(tmp_path / "old"), "--output", str(baseline)]) == 0
        out = capsys.readouterr().out
        assert "left out: the word_perplexity of a/b · dense · pages: a perplexity is not a mean over documents" in out
        assert cli.main(["check", str(tmp_path / "new"), "--baseline", str(baseline)]) == 1
        from_file = capsys.readouterr().out
        *_, direct = check(measured(tmp_path / "old"), measured(tmp_path / "new"), Rules(alpha=0.05))
        assert direct.message in from_file
        stored = json.loads(baseline.read_text())
        stored["measurements"][0]["weights"].popitem()
        baseline.write_text(json.dumps(stored))
        assert cli.main(["check", str(tmp_path / "new"), "--baseline", str(baseline)]) == 2
        assert "is not a baseline" in capsys.readouterr().err

    def test_equal_runs_are_not_said_to_be_beyond_detection(self, tmp_path):
        write(tmp_path, pages([0.7, 0.8, 0.9, 0.75, 0.6, 0.85]))
        runs = measured(tmp_path)
        *_, found = check(runs, runs, Rules(alpha=0.05))
        assert "nothing changed, so that the smallest rise that would be found is unknown" in found.message

    def test_seeds_are_averaged(self, tmp_path):
        for seed, bits in enumerate(([1.0] * 6, [3.0] * 6)):
            path = write(tmp_path / str(seed), pages(bits))
            content = json.loads(path.read_text())
            content["config"]["random_seed"] = seed
            path.write_text(json.dumps(content))
        (rate,) = (one for one in measured(tmp_path).values() if one.metric == "bits_per_byte")
        assert (rate.outcomes.mean, rate.accuracies) == (pytest.approx(2.0), (pytest.approx(1.0), pytest.approx(3.0)))

    def test_an_infinite_perplexity_leaves_the_rate(self, tmp_path):
        task = pages([700.0, 800.0, 650.0, 900.0, 720.0, 810.0])
        task["pages"][0]["word_perplexity,none"] = math.inf
        (rate,) = read_record(write(tmp_path, task)).results
        assert (rate.metric, rate.outcomes.mean) == ("bits_per_byte", pytest.approx(rate.metrics["bits_per_byte"]))

    def test_a_document_without_text_counts_nothing(self):
        assert row_value("bits_per_byte", [0.0, 0]) == (0.0, 0.0)
        assert row_value("bits_per_byte", [-1.0, "4"]) is None


class TestBrierScores:
    @pytest.mark.parametrize("given", [[3, "[0.5 0.5]"], [0, "[0.1 ... 0.2]"], [0, 0.5], ["0", "[1.0 0.0]"], [0]])
    def test_what_is_no_score(self, given):
        assert row_value("brier_score", given) is None

    def test_a_score_is_compared(self, tmp_path):
        def task(right):
            rows = [{"brier_score": [0, f"[{right:.8e} {1 - right:.8e}]"]} for _ in range(8)]
            return {"quiz": ({"brier_score,none": 2 * (1 - right) ** 2}, rows)}

        write(tmp_path / "old", task(0.9))
        write(tmp_path / "new", task(0.6))
        *_, found = check(measured(tmp_path / "old"), measured(tmp_path / "new"), Rules(alpha=0.05))
        assert (found.status, "+30.0 points (worse" in found.message) == ("regression", True)


class TestGroups:
    def run(self, folder, values, *, reported, model="a/b"):
        tasks = {
            task: ({"acc,none": sum(some) / len(some)}, [{"acc": float(one)} for one in some])
            for task, some in values.items()
        }
        groups = {
            "quiz": ({"acc,none": reported, "alias": "quiz"}, ["easy", "quiz_hard"]),
            "quiz_hard": ({}, ["law", "art"]),
        }
        return write(folder, tasks, groups=groups, model=model)

    def test_questions_of_all_tasks(self, tmp_path):
        path = self.run(tmp_path, {"easy": [1, 1, 1], "law": [0, 1], "art": [0]}, reported=4 / 6)
        *_, group = read_record(path).results
        assert (group.task, group.is_group, group.questions, dict(group.settings)["num_fewshot"]) == (
            "quiz",
            True,
            6,
            "0",
        )
        assert group.outcomes is not None
        assert (group.outcomes.mean, len(set(group.outcomes.questions.tolist()))) == (pytest.approx(4 / 6), 6)

    def test_shots_are_those_of_its_tasks(self, tmp_path):
        path = self.run(tmp_path, {"easy": [1], "law": [0], "art": [0]}, reported=1 / 3)
        content = json.loads(path.read_text())
        content["n-shot"] = {"easy": 5, "law": 5, "art": 5, "quiz": 0}
        path.write_text(json.dumps(content))
        *_, group = read_record(path).results
        assert (group.shots, dict(group.settings)["num_fewshot"]) == ("5", "5")

    def test_a_mean_over_tasks_is_shown_and_not_compared(self, tmp_path):
        path = self.run(tmp_path, {"easy": [1, 1, 1], "law": [0, 1], "art": [0]}, reported=0.5)
        *_, group = read_record(path).results
        assert (group.metrics["acc"], group.outcomes) == (0.5, None)
        *_, key = runs = measured(tmp_path)
        assert "the mean over the questions of all its tasks" in why_no_outcomes(runs, key)

    def test_a_task_without_samples(self, tmp_path):
        path = self.run(tmp_path, {"easy": [1, 1, 1], "law": [0, 1], "art": [0]}, reported=4 / 6)
        (tmp_path / f"samples_law_{STAMP}.jsonl").unlink()
        *_, group = read_record(path).results
        assert (group.metrics["acc"], group.outcomes) == (4 / 6, None)

    def test_a_task_that_reports_another_metric(self, tmp_path):
        path = self.run(tmp_path, {"easy": [1, 1, 1], "law": [0, 1], "art": [0]}, reported=4 / 6)
        path.write_text(path.read_text().replace('"art": {"acc,none": 0.0}', '"art": {"f1,none": 0.0}'))
        *_, group = read_record(path).results
        assert (group.outcomes, group.questions) == (None, None)

    def test_rates_of_tasks_are_not_those_of_their_group(self, tmp_path):
        tasks = {
            name: ({"bits_per_byte,none": bits}, [{"bits_per_byte": [-bits * 8 * math.log(2), 8]}])
            for name, bits in (("easy", 0.5), ("law", 0.7))
        }
        groups = {"pages": ({"bits_per_byte,none": 0.6}, ["easy", "law"])}
        *_, group = read_record(write(tmp_path, tasks, groups=groups)).results
        assert (group.metrics["bits_per_byte"], group.outcomes) == (0.6, None)

    def test_the_gate_finds_a_drop_that_no_task_shows(self, tmp_path):
        tasks = ("easy", "law", "art")
        self.run(tmp_path / "old", dict.fromkeys(tasks, [1] * 12), reported=1.0)
        self.run(tmp_path / "new", dict.fromkeys(tasks, [0, 0, 0] + [1] * 9), reported=0.75, model="c/d")
        old, new = measured(tmp_path / "old"), measured(tmp_path / "new")
        found = {one.name: one.status for one in check_against(old, new, "a/b · dense", Rules(alpha=0.05))}
        assert found == {"c/d · dense · quiz": "regression"} | {f"c/d · dense · {one}": "undetectable" for one in tasks}

    def test_the_page_shows_questions_under_their_tasks(self, tmp_path):
        for name, last in (("a/b", 1), ("c/d", 0)):
            values = {"easy": [1, 1, last], "law": [0, 1], "art": [0]}
            self.run(tmp_path / name, values, reported=(3 + last) / 6, model=name)
        page = tmp_path / "page.html"
        assert cli.main(["leaderboard", str(tmp_path), "--output", str(page), "--against", "a/b"]) == 0
        entries = build_entries(read_records([tmp_path]).records, against="a/b")
        group = next(one for one in entries if one.line.task == "quiz" and one.reference is not None)
        assert (group.line.harmful, group.reference.pair.is_group) == (pytest.approx(1 / 6), True)


class TestVersions:
    """The version of a task changes with its prompts and scoring, which its questions do not tell."""

    def run(self, folder, version, *, model="a/b", **more):
        rows = [{"acc": float(i % 2)} for i in range(10)]
        return write(folder, {"quiz": ({"acc,none": 0.5}, rows)}, model=model, versions={"quiz": version}, **more)

    def test_other_versions_are_not_compared(self, tmp_path):
        self.run(tmp_path / "old", 2.0)
        self.run(tmp_path / "new", 3.0)
        (found,) = check(measured(tmp_path / "old"), measured(tmp_path / "new"), Rules(alpha=0.05))
        assert (found.status, "the nearest has version 3 instead of 2" in found.message) == ("missing", True)
        assert len(measured(tmp_path)) == 2

    def test_a_run_is_chosen_whole_although_its_tasks_have_several_versions(self, tmp_path, capsys):
        rows = [{"acc": float(i % 2)} for i in range(10)]
        tasks = {name: ({"acc,none": 0.5}, rows) for name in ("quiz", "exam")}
        for folder, model, version in (("old", "a/b", 2.0), ("new", "a/b", 3.0), ("other", "c/d", 3.0)):
            write(tmp_path / folder, tasks, model=model, versions={"quiz": version, "exam": 0})
        lines = [entry.line for entry in build_entries(read_records([tmp_path]).records, against="a/b")]
        compared = [line.task for line in lines if line.model == "c/d" and line.reference == "a/b · dense"]
        assert sorted(compared) == ["exam", "quiz"]
        baseline = str(tmp_path / "b.json")
        assert cli.main(["baseline", str(tmp_path / "new"), "--output", baseline]) == 0
        assert cli.main(["check", str(tmp_path), "--baseline", baseline, "--against", "a/b"]) == 0
        assert "MISSING" not in capsys.readouterr().out

    def test_they_are_if_one_says_so(self, tmp_path, capsys):
        self.run(tmp_path / "old", 2.0)
        self.run(tmp_path / "new", 3.0)
        baseline = str(tmp_path / "b.json")
        assert cli.main(["baseline", str(tmp_path / "old"), "--output", baseline]) == 0
        assert cli.main(["check", str(tmp_path / "new"), "--baseline", baseline]) == 1
        assert cli.main(["check", str(tmp_path / "new"), "--baseline", baseline, "--across", "version"]) == 0
        assert "FINE" in capsys.readouterr().out

    def test_a_baseline_from_before_versions_counted(self, tmp_path):
        self.run(tmp_path / "old", None)
        self.run(tmp_path / "new", 3.0)
        baseline = str(tmp_path / "b.json")
        assert cli.main(["baseline", str(tmp_path / "old"), "--output", baseline]) == 0
        assert cli.main(["check", str(tmp_path / "new"), "--baseline", baseline]) == 0

    @pytest.mark.parametrize(("given", "shown"), [(1, "1"), (1.0, "1"), (0, "0"), ("Yaml", None), ("N/A", None)])
    def test_numbers_are_versions(self, tmp_path, given, shown):
        (result,) = read_record(self.run(tmp_path, given)).results
        assert dict(result.settings).get("version") == shown


def test_a_baseline_that_holds_runs(tmp_path, capsys):
    path = write(tmp_path, {"quiz": ({"acc,none": 0.5}, [{"acc": 0.0}, {"acc": 1.0}])})
    for given in (path, tmp_path):
        assert cli.main(["check", str(tmp_path), "--baseline", str(given)]) == 2
        told = capsys.readouterr().err
        assert f"lm-eval-pruned baseline {tmp_path} --output baseline.json" in told


def test_files_of_lmms_eval(tmp_path):
    rows = [{"doc_id": i, "target": "B", "doc_hash": f"{i:064x}", "exact_match": i % 2 / 1} for i in range(4)]
    entry = {"exact_match,none": 0.5, "exact_match_stderr,none": 0.1, "exact_match_stderr_clt,none": 0.2}
    content = {"results": {"quiz": entry}, "configs": {"quiz": {}}, "date": "20260218_234435", "model_name": "a/b"}
    path = tmp_path / "20260218_234435_results.json"
    path.write_text(json.dumps(content))
    (tmp_path / "20260218_234435_samples_quiz.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    record = read_record(path)
    (result,) = record.results
    assert datetime.fromtimestamp(record.date, UTC) == datetime(2026, 2, 18, 23, 44, 35, tzinfo=UTC)
    assert (result.metrics, result.errors) == ({"exact_match": 0.5}, {"exact_match": 0.1})
    assert result.outcomes is not None
    assert result.outcomes.correct.tolist() == [0.0, 1.0, 0.0, 1.0]
