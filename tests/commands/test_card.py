"""The command `lm-eval-pruned card`: results of a checkpoint in its card and in .eval_results."""

from __future__ import annotations

import json
import shutil

import huggingface_hub as hub
import pytest
import yaml
from huggingface_hub import ModelCard

from lm_eval_pruned import cli
from lm_eval_pruned.pruning.checkpoint.card import RESULTS_BEGIN, RESULTS_END
from tests.results.written_runs import stop, write_run

KNOWS_THE_FORMAT = hasattr(hub, "EvalResultEntry")
knowing = pytest.mark.skipif(not KNOWS_THE_FORMAT, reason="an older huggingface_hub")
# The data sets that our tasks name.
GPQA = {"dataset_path": "Idavidrein/gpqa", "dataset_name": "gpqa_diamond", "test_split": "train"}
MATH = {"dataset_path": "HuggingFaceH4/MATH-500", "test_split": "test"}
TASKS = {"gpqa_diamond_tts_512": GPQA, "math500_tts_1024": MATH, "tiny_tts_16": {"dataset_path": "tiny-reasoner"}}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "checkpoint"
    flags = ("--method", "magnitude", "--sparsity", "0.5", "--artifacts", "off")
    assert cli.main(["prune", "--pretrained", "tiny-reasoner", *flags, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def checkpoint(tmp_path, pruned):
    return shutil.copytree(pruned, tmp_path / "checkpoint")


def written(folder, checkpoint, *, values=(0, 1), method="magnitude", **kwargs):
    """Write a run of the tasks above; if it is pruned, of the checkpoint."""
    path = write_run(
        folder, {task: [*values] * 20 for task in TASKS}, method=method, sparsity=(method != "none") / 2, **kwargs
    )
    content = json.loads(path.read_text())
    for task, given in TASKS.items():
        content["configs"][task].update(given)
    if method != "none":
        report = json.loads((checkpoint / "pruning_report.json").read_text())
        content["config"]["pruning"]["fingerprint"] = report["fingerprint"]
    path.write_text(json.dumps(content))
    return path


def card(*arguments):
    return cli.main(["card", *map(str, arguments)])


@knowing
def test_results_stand_in_the_card_and_for_leaderboards_beside_it(tmp_path, checkpoint, capsys):
    written(tmp_path / "runs", checkpoint, values=(0, 1))
    written(tmp_path / "runs", checkpoint, values=(1, 1), method="none", day=2)
    before = ModelCard.load(checkpoint / "README.md")
    assert card(checkpoint, tmp_path / "runs") == 0
    captured = capsys.readouterr()
    assert "3 results; written: README.md, .eval_results/gpqa_diamond_tts_512.yaml" in captured.out
    assert "tiny_tts_16: its questions are not a data set of the hub" in captured.err
    after = ModelCard.load(checkpoint / "README.md")
    assert after.data.to_dict() == before.data.to_dict()
    (line,) = (line for line in after.text.splitlines() if line.startswith("| math500_tts_1024 |"))
    assert "| 1024 | acc | 0.5000 | 0.34" in line
    assert "| -0.5000 (-0.6" in line
    assert after.text.replace(line, "").count("| gpqa_diamond_tts_512 |") == 1


@knowing
def test_the_hub_s_own_client_reads_the_files(tmp_path, checkpoint):
    for seed in (1, 2):
        written(tmp_path / "runs", checkpoint, values=(0, seed - 1), seed=seed)
    assert card(checkpoint, tmp_path / "runs") == 0
    folder = checkpoint / ".eval_results"
    assert sorted(path.name for path in folder.iterdir()) == ["gpqa_diamond_tts_512.yaml", "math500_tts_1024.yaml"]
    read = {path.stem: hub.parse_eval_result_entries(yaml.safe_load(path.read_text())) for path in folder.iterdir()}
    (math,), (gpqa,) = read["math500_tts_1024"], read["gpqa_diamond_tts_512"]
    assert (math.dataset_id, math.task_id, math.value) == ("HuggingFaceH4/MATH-500", "default", 25.0)
    assert (gpqa.dataset_id, gpqa.task_id) == ("Idavidrein/gpqa", "diamond")
    assert math.date == "2023-11-15T22:13:22Z"
    assert math.notes.startswith("thinking budget 1024 tokens; pruned: magnitude uniform 0.5; acc; 95 % ")
    assert "2 seeds" in math.notes


def test_an_older_hub_client_writes_the_table_alone(tmp_path, checkpoint, capsys, monkeypatch):
    lazily = hub.__getattr__

    def without_the_format(name):
        if name == "EvalResultEntry":
            raise AttributeError(name)
        return lazily(name)

    monkeypatch.setattr(hub, "__getattr__", without_the_format)
    written(tmp_path / "runs", checkpoint)
    assert card(checkpoint, tmp_path / "runs") == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("3 results; written: README.md\n")
    assert captured.err.startswith("warning: skipped: .eval_results, which needs huggingface_hub 1.4: pip install --up")
    assert not (checkpoint / ".eval_results").exists()
    assert "| math500_tts_1024 | 1024 | acc | 0.5000 |" in (checkpoint / "README.md").read_text()


def test_again_changes_nothing_but_the_results(tmp_path, checkpoint):
    written(tmp_path / "runs", checkpoint)
    readme = checkpoint / "README.md"
    readme.write_text(readme.read_text().replace("## Results", "My own words.\n\n## Results"))
    assert card(checkpoint, tmp_path / "runs") == 0
    first = readme.read_text()
    assert "My own words." in first
    assert card(checkpoint, tmp_path / "runs") == 0
    assert readme.read_text() == first


@knowing
def test_what_somebody_else_wrote_is_left_as_it_is(tmp_path, checkpoint, capsys):
    written(tmp_path / "runs", checkpoint)
    (checkpoint / "README.md").write_text("# Mine\n")
    (checkpoint / ".eval_results").mkdir()
    verified = checkpoint / ".eval_results" / "math500_tts_1024.yaml"
    verified.write_text("- verified\n")
    assert card(checkpoint, tmp_path / "runs") == 0
    assert (checkpoint / "README.md").read_text() == "# Mine\n"
    assert verified.read_text() == "- verified\n"
    err = capsys.readouterr().err
    assert "README.md has no place for results" in err
    assert "math500_tts_1024.yaml was not written by this command" in err


def test_a_checkpoint_without_a_card_gets_one(tmp_path, checkpoint):
    written(tmp_path / "runs", checkpoint)
    (checkpoint / "README.md").unlink()
    assert card(checkpoint, tmp_path / "runs") == 0
    text = (checkpoint / "README.md").read_text()
    assert text.index(RESULTS_BEGIN) < text.index("| math500_tts_1024 |") < text.index(RESULTS_END)


@knowing
def test_a_part_of_a_benchmark_belongs_on_no_leaderboard(tmp_path, checkpoint, capsys):
    written(tmp_path / "runs", checkpoint, limit=40)
    assert card(checkpoint, tmp_path / "runs") == 0
    assert "math500_tts_1024: only a part of its questions was asked (limit 40)" in capsys.readouterr().err
    assert not (checkpoint / ".eval_results").exists()
    text = (checkpoint / "README.md").read_text()
    assert "40 (limit 40)" in text
    assert "Not compared: no run of an unpruned model" in text


@knowing
def test_a_run_that_was_stopped_early_has_no_value(tmp_path, checkpoint, capsys):
    stop(written(tmp_path / "runs", checkpoint), asked=20, of=40)
    assert card(checkpoint, tmp_path / "runs") == 0
    assert "math500_tts_1024: stopped after 20 of 40 questions" in capsys.readouterr().err
    assert not (checkpoint / ".eval_results").exists()
    assert "| acc | stopped at 20 of 40 | 0." in (checkpoint / "README.md").read_text()


def test_runs_of_other_models_are_refused(tmp_path, checkpoint, capsys):
    written(tmp_path / "runs", checkpoint, method="none")
    assert card(checkpoint, tmp_path / "runs") == 2
    assert "none of the 1 runs is of this checkpoint" in capsys.readouterr().err


def test_weights_that_the_report_does_not_describe_are_refused(tmp_path, checkpoint, capsys):
    written(tmp_path / "runs", checkpoint)
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert card(checkpoint, tmp_path / "runs") == 2
    assert "has no pruning_report.json that describes its weights" in capsys.readouterr().err
    assert card(tmp_path / "nowhere", tmp_path / "runs") == 2
