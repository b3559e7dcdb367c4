"""The command `lm-eval-pruned check`: exit codes, reports, and its power on simulated and real runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lm_eval_pruned import cli
from tests.results.written_runs import answers, difficulties, write_run

CURVE = {"t_tts_16": [1] * 100, "t_tts_32": [1] * 100}


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    write_run(tmp_path / "old", CURVE, method="wanda", sparsity=0.2)
    path = tmp_path / "baseline.json"
    assert cli.main(["baseline", str(tmp_path / "old"), "--output", str(path)]) == 0
    return path


def check(folder: Path, baseline: Path, *arguments: str) -> int:
    return cli.main(["check", str(folder), "--baseline", str(baseline), *arguments])


def worse(folder: Path, lost: int) -> Path:
    write_run(folder, {**CURVE, "t_tts_32": [0] * lost + [1] * (100 - lost)}, method="wanda", sparsity=0.2)
    return folder


def test_fine_is_0(tmp_path, baseline, capsys):
    assert check(tmp_path / "old", baseline) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "passed: 3 fine"


def test_a_regression_is_1(tmp_path, baseline, capsys):
    assert check(worse(tmp_path / "new", 10), baseline) == 1
    out = capsys.readouterr().out
    assert "REGRESSION    tiny-reasoner · wanda uniform 0.2 · t_tts_32: -10.0 points" in out
    assert out.splitlines()[-1].startswith("failed: ")


def test_what_cannot_be_told_is_0_and_said(tmp_path, baseline, capsys):
    assert check(worse(tmp_path / "new", 2), baseline) == 0
    assert "undetectable, so small a drop cannot be told from noise" in capsys.readouterr().out


def test_alpha_and_margin(tmp_path, baseline):
    folder = worse(tmp_path / "new", 10)
    assert check(folder, baseline, "--margin", "0.11") == 0
    assert check(folder, baseline, "--alpha", "0.0001") == 0


def test_equivalence(tmp_path, baseline, capsys):
    assert check(worse(tmp_path / "new", 1), baseline, "--equivalence", "0.1", "--format", "github") == 0
    out = capsys.readouterr().out
    assert out == "::notice title=lm-eval-pruned check::passed: 3 equivalent\n"


def test_sequential(tmp_path, baseline, capsys):
    first = {task: values[:40] for task, values in CURVE.items()}
    write_run(tmp_path / "new", first, method="wanda", sparsity=0.2, limit=40)
    assert check(tmp_path / "new", baseline, "--sequential", "--equivalence", "0.1") == 3
    assert capsys.readouterr().out.splitlines()[-1] == "undecided: 3 undecided"
    write_run(tmp_path / "new", CURVE, method="wanda", sparsity=0.2, day=2)
    assert check(tmp_path / "new", baseline, "--sequential", "--equivalence", "0.1", "--format", "junit") == 0
    write_run(tmp_path / "new", {**first, "t_tts_32": [0] * 40}, method="wanda", sparsity=0.2, limit=40, day=3)
    assert check(tmp_path / "new", baseline, "--sequential") == 1


def test_another_sparsity_and_missing_questions_are_1(tmp_path, baseline, capsys):
    write_run(tmp_path / "a", CURVE, method="wanda", sparsity=0.2, achieved=0.19)
    assert check(tmp_path / "a", baseline) == 1
    write_run(tmp_path / "b", {**CURVE, "t_tts_16": [1] * 99}, method="wanda", sparsity=0.2, limit=99)
    assert check(tmp_path / "b", baseline) == 1
    out = capsys.readouterr().out
    assert "SPARSITY" in out
    assert "1 of 100 questions are missing" in out


@pytest.mark.parametrize("form", ["text", "junit", "github"])
def test_formats_to_stdout_and_into_a_file(tmp_path, baseline, capsys, form):
    folder, target = worse(tmp_path / "new", 10), tmp_path / "report"
    assert check(folder, baseline, "--format", form) == 1
    report = capsys.readouterr().out
    assert check(folder, baseline, "--format", form, "--output", str(target)) == 1
    assert target.read_text() == report
    assert capsys.readouterr().out.splitlines()[-1].startswith("failed: ")
    if form == "junit":
        assert ElementTree.fromstring(report.encode()).attrib["failures"] == "2"


def test_across_backends(tmp_path, baseline, capsys):
    folder = tmp_path / "vllm"
    write_run(folder, CURVE, method="wanda", sparsity=0.2, backend="pruned-vllm")
    assert check(folder, baseline) == 1
    assert "backend pruned-vllm instead of pruned-hf" in capsys.readouterr().out
    assert check(folder, baseline, "--across", "backend") == 0
    write_run(
        folder, {**CURVE, "t_tts_32": [0] * 20 + [1] * 80}, method="wanda", sparsity=0.2, backend="pruned-vllm", day=2
    )
    assert check(folder, baseline, "--across", "backend,limit") == 1


def test_across_what_a_baseline_itself_compares_is_bad_input(tmp_path, capsys):
    for backend in ("pruned-hf", "pruned-vllm"):
        write_run(tmp_path / backend, CURVE, backend=backend)
    path = tmp_path / "both.json"
    assert (
        cli.main(["baseline", *(str(tmp_path / name) for name in ("pruned-hf", "pruned-vllm")), "--output", str(path)])
        == 0
    )
    assert check(tmp_path / "pruned-hf", path) == 1
    assert check(tmp_path / "pruned-hf", path, "--across", "backend") == 2
    assert "differ in backend, limit alone" in capsys.readouterr().err


class TestBadInput:
    def stderr_of(self, capsys, code):
        assert code == 2
        return capsys.readouterr().err

    def test_no_baseline(self, tmp_path, baseline, capsys):
        assert "cannot be read" in self.stderr_of(capsys, check(tmp_path / "old", tmp_path / "none.json"))

    def test_no_results(self, tmp_path, baseline, capsys):
        (tmp_path / "empty").mkdir()
        assert "holds no results file" in self.stderr_of(capsys, check(tmp_path / "empty", baseline))

    def test_runs_of_nothing(self, tmp_path, baseline, capsys):
        write_run(tmp_path / "nothing", {})
        assert "holds no results: no task was run" in self.stderr_of(capsys, check(tmp_path / "nothing", baseline))

    def test_a_baseline_of_nothing(self, tmp_path, baseline, capsys):
        baseline.write_text(json.dumps({**json.loads(baseline.read_text()), "measurements": []}))
        assert "holds no measurement" in self.stderr_of(capsys, check(tmp_path / "old", baseline))

    def test_only_corrupt_results(self, tmp_path, baseline, capsys):
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "results_1.json").write_text("{")
        assert "none of the 1 results files" in self.stderr_of(capsys, check(tmp_path / "bad", baseline))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--alpha", "0"), "0 < alpha < 1"),
            (("--alpha", "nan"), "0 < alpha < 1"),
            (("--margin", "2"), "0.02 is two points"),
            (("--equivalence", "0"), "0 < margin < 1"),
            (("--format", "junti"), "did you mean 'junit'?"),
            (("--output", "/nowhere/report"), "cannot be written"),
        ],
    )
    def test_arguments(self, tmp_path, baseline, capsys, arguments, message):
        assert message in self.stderr_of(capsys, check(tmp_path / "old", baseline, *arguments))


def test_corrupt_files_are_named_and_counted(tmp_path, baseline, capsys):
    (tmp_path / "old" / "results_torn.json").write_text("{")
    assert check(tmp_path / "old", baseline) == 0
    err = capsys.readouterr().err
    assert "results_torn.json is not a results file" in err
    assert err.splitlines()[-1] == "warning: 1 skipped"


def test_texts_that_are_no_unicode(tmp_path, capsys):
    write_run(tmp_path, {"t_tts_16": [0, 1]}, model="half \ud800")
    assert cli.main(["baseline", str(tmp_path), "--output", str(tmp_path / "b.json")]) == 0
    assert check(tmp_path, tmp_path / "b.json", "--format", "junit") == 0
    assert check(tmp_path, tmp_path / "b.json") == 0
    assert "half \\ud800" in capsys.readouterr().out


def test_a_planted_regression_and_a_rerun_through_files(tmp_path):
    """200 questions and three seeds, all noise drawn anew; one of two pruning settings loses ten points."""
    generator = np.random.default_rng(0)
    chances = {task: 0.1 + 0.85 * difficulties(200, generator) for task in ("t_tts_16", "t_tts_64")}

    def run(folder: str, drop: float) -> Path:
        for method, lost in (("magnitude", 0.0), ("wanda", drop)):
            for seed in (7, 11, 42):
                tasks = {task: answers(np.maximum(0, chance - lost), generator) for task, chance in chances.items()}
                write_run(tmp_path / folder / method, tasks, seed=seed, method=method, sparsity=0.2)
        return tmp_path / folder

    frozen = tmp_path / "b.json"
    assert cli.main(["baseline", str(run("old", 0.0)), "--output", str(frozen)]) == 0
    assert check(run("same", 0.0), frozen) == 0
    assert check(run("worse", 0.1), frozen) == 1


# Two runs of the harness's own command line in one process, which imports it once.
SCRIPT = """
import json, sys
from lm_eval.__main__ import cli_evaluate
tasks = ["tiny_tts_16", "tiny_tts_128"]
for name, seed in ("old", 1), ("again", 2):
    sys.argv = ["lm_eval", "--model", "pruned-hf", "--model_args", "pretrained=tiny-reasoner,method=wanda,sparsity=0.5",
                "--tasks", ",".join(tasks), "--samples", json.dumps(dict.fromkeys(tasks, list(range(0, 200, 4)))),
                "--gen_kwargs", f"do_sample=true,temperature=1.0,seed={seed}", "--batch_size", "128",
                "--log_samples", "--output_path", name]
    cli_evaluate()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
class TestRealRuns:
    """The bundled model run by the harness's command line, sampled with two different seeds."""

    def test_another_seed_passes_and_a_lost_budget_fails(self, runs, capsys):
        frozen = runs / "baseline.json"
        assert cli.main(["baseline", str(runs / "old"), "--output", str(frozen)]) == 0
        assert check(runs / "old", frozen) == 0
        assert check(runs / "again", frozen) == 0
        # Answers under a budget of 16 instead of 128, as if the budget were ignored.
        broken = runs / "broken"
        broken.mkdir()
        for path in runs.glob("again/*/*"):
            if "_tts_128_" not in path.name:
                (broken / path.name).write_bytes(path.read_bytes())
            if "_tts_16_" in path.name:
                (broken / path.name.replace("_tts_16_", "_tts_128_")).write_bytes(path.read_bytes())
        assert check(broken, frozen) == 1
        out = capsys.readouterr().out
        assert "REGRESSION    tiny-reasoner · wanda uniform 0.5 · tiny_tts_128" in out
        assert "REGRESSION    tiny-reasoner · wanda uniform 0.5 · tiny_tts_16" not in out

    def test_the_leaderboard_merges_the_seeds(self, runs):
        table = runs / "table.json"
        assert cli.main(["leaderboard", str(runs / "old"), str(runs / "again"), "--output", str(table)]) == 0
        lines = {line["task"]: line for line in json.loads(table.read_text())["lines"]}
        first, second, area = (lines[name] for name in ("tiny_tts_16", "tiny_tts_128", "tiny_tts"))
        assert (second["seeds"], second["questions"], second["sparsity"]) == (2, 50, 0.5)
        assert first["acc"] < area["acc"] < second["acc"]
        assert first["thinking_tokens"] < second["thinking_tokens"] < 128
        assert first["budget_hit"] > second["budget_hit"]
