"""The command `lm-eval-pruned sweep` as a user starts it, with a real Ray and the real harness."""

from __future__ import annotations

import shutil
import sys

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.paths import assets_folder, configs_folder
from tests.sweeps.small_sweeps import finish, start

CI = configs_folder() / "ci" / "gate.yaml"


def test_a_dry_run_runs_nothing_and_needs_no_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", "demo", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert not [*tmp_path.iterdir()]
    assert out.count("tiny_tts\n") == 14
    assert "14 cells" in out
    assert "assumed: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "slurm"], "unknown --engine 'slurm': Known: local, ray"),
        (["--engine", "local", "--address", "auto"], "--address auto is of Ray"),
        (["--address", "127.0.0.1:1"], "no Ray at --address 127.0.0.1:1"),
    ],
)
def test_a_mistake_is_one_line_and_2(tmp_path, capsys, arguments, message):
    assert cli.main(["sweep", "smoke", "--output", str(tmp_path), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_is_needed_to_run(capsys):
    assert cli.main(["sweep", "smoke"]) == 2
    assert "--output DIR is missing" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["sweep", "smoke", "--output", str(tmp_path)]) == 2
    assert "pip install 'ray>=2.40'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failed_cell_is_named_and_the_rest_is_done(tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(assets_folder() / "tiny_reasoner", broken)
    (broken / "model.safetensors").write_bytes(b"torn")
    (tmp_path / "sweep.yaml").write_text(
        f"defaults: {{models: [tiny-reasoner, {broken}], tasks: tiny_tts_16, limit: 4, batch_size: 4}}\n"
        "grids: [{methods: none}]\n"
    )
    code, output = finish(start(tmp_path / "sweep.yaml", tmp_path / "out"))
    assert code == 1
    assert "1 done, 1 failed" in output
    failed = next(line for line in output.splitlines() if line.startswith("failed: "))
    assert "model, dense, tiny_tts_16: " in failed
    assert "log.txt)" in failed
    assert (tmp_path / "out/leaderboard.md").exists()


@pytest.mark.slow
def test_gpus_are_shared_and_what_fits_nowhere_is_refused(tmp_path):
    text = "defaults: {models: tiny-reasoner, tasks: tiny_tts_16, limit: 4, batch_size: 4, gpus: SHARE}\n"
    grid = "grids: [{methods: none}, {methods: magnitude, sparsities: 0.5}]\n"
    gpus = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'}
    (tmp_path / "half.yaml").write_text(text.replace("SHARE", "0.5") + grid)
    code, output = finish(start(tmp_path / "half.yaml", tmp_path / "half", **gpus))
    assert (code, "2 done, 0 failed" in output) == (0, True), output
    (tmp_path / "two.yaml").write_text(text.replace("SHARE", "2") + grid)
    code, output = finish(start(tmp_path / "two.yaml", tmp_path / "two", **gpus))
    assert code == 2
    assert "2 GPU" in output
    assert "at most" in output


@pytest.mark.slow
def test_the_gate_passes_on_what_it_was_frozen_from_and_fails_on_a_worse_model(tmp_path, capsys):
    assert finish(start(CI, tmp_path / "out"))[0] == 0
    check = ["check", str(tmp_path / "out/cells"), "--baseline", str(CI.with_name("baseline.json"))]
    assert cli.main([*check, "--margin", "0.02"]) == 0
    shutil.rmtree(next(tmp_path.glob("out/cells/*")))
    assert cli.main(check) == 1
    assert "missing" in capsys.readouterr().out
