"""The command `lm-eval-pruned plan`: it reads a config and no weights, and refuses what `prune` refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.commands.plan import MEMORY
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.allocations.signals.outlier_ratio import OUTLIER_RATIO
from tests import forked

TINY = ["--pretrained", "tiny-reasoner"]


@pytest.fixture
def plan(tmp_path) -> Callable[..., forked.Done]:
    return lambda *arguments: forked.run(["lm-eval-pruned", "plan", *arguments], tmp_path / "log")


@pytest.fixture
def outline(tmp_path: Path) -> Path:
    """A checkpoint folder with only a config."""
    folder = tmp_path / "outline"
    folder.mkdir()
    (folder / "config.json").write_bytes((assets_folder() / "tiny_reasoner" / "config.json").read_bytes())
    return folder


def test_a_config_is_all_it_needs(tmp_path, plan, outline):
    (tmp_path / "list.json").write_text("[0.1, 0.1, 0.2, 0.3, 0.3]")
    done = plan(
        "--pretrained", str(outline), "--method", "magnitude", "--alloc", str(tmp_path / "list.json"),
        "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["in", "the", "model", "1,018,560"] in lines
    assert ["prunable", "983,040", "attention", "245,760,", "MLP", "737,280"] in lines
    assert [line for line in lines if line[1:2] == ["to"]] == [
        ["0", "to", "1", "0.1000", "0.1000"],
        ["3", "to", "4", "0.3000", "0.3000"],
    ]
    assert ["1", "outside", "the", "decoder", "blocks", "(lm_head)"] in lines
    content = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [block["attn"] for block in content["blocks"]] == [0.1, 0.1, 0.2, 0.3, 0.3]
    # Two blocks of tiny-reasoner, in float32: one at work, one being read.
    assert content["memory_bytes"]["part"] == 2 * 4 * 983_040 // 5
    assert content["memory_bytes"].keys() <= MEMORY.keys()
    assert content["seconds"].keys() == {"calibrate", "allocate", "prune"}
    assert (tmp_path / "out" / "allocation.png").read_bytes().startswith(b"\x89PNG")


def test_a_signal_is_left_to_the_load(tmp_path, plan):
    np.save(tmp_path / "ids.npy", np.zeros((3, 50), dtype=np.int64))
    done = plan(
        *TINY, "--method", "wanda", "--sparsity", "0.3", "--alloc", "owl", "--calib", str(tmp_path / "ids.npy"),
        "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"decided at load by {OUTLIER_RATIO.description}; 0.3 on average" in done.stdout
    assert "3 windows of 50 tokens" in done.stdout
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["blocks"] == []
    assert not (tmp_path / "out" / "allocation.png").exists()


def test_every_signal_has_a_description_and_a_name_of_its_own():
    # Two allocations may read the same signal.
    signals = {id(signal): signal for signal in (ALLOCATIONS[name].signal for name in ALLOCATIONS)}.values()
    assert all(signal.description for signal in signals)
    assert len({signal.name for signal in signals}) == len(signals)


def test_dropped_blocks_are_counted(capsys):
    assert cli.main(["plan", *TINY, "--method", "shortgpt", "--sparsity", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 5 will go: those found at load by shortgpt" in printed


def test_blocks_are_named_where_their_positions_decide(capsys):
    assert cli.main(["plan", *TINY, "--method", "reverse", "--num_blocks", "2"]) == 0
    assert "2 of 5 will go: 2, 3" in capsys.readouterr().out


def test_traces_are_said_to_come_on_top(capsys):
    assert cli.main(["plan", *TINY, "--method", "wanda", "--sparsity", "0.5", "--calib", "traces"]) == 0
    assert "writes its traces comes on top" in capsys.readouterr().out


@pytest.mark.parametrize(
    "mistake",
    [
        "--method wanda --sparsity 1.5",
        "--method wandaa --sparsity 0.5",
        "--method wanda --sparsity 0.5 --alloc owll",
        "--method wanda --sparsity 0.5 --thinking qwen",
        "--method magnitude --alloc /nowhere.json",
        "--method magnitude --alloc {folder}/two.json",
        "--method magnitude --pattern 2:5",
        "--method wanda --sparsity 0.5 --alloc layerif --layerif_scores /nowhere.npy",
        "--method wanda --sparsity 0.5 --calib /nowhere.npy",
        "--method wanda --sparsity 0.5 --calib {folder}/foreign.npy",
        "--method wanda --sparsity 0.5 --calib {folder}/empty.jsonl",
        "--method wanda --sparsity 0.5 --calib traces:{folder}/empty.jsonl",
        "--method sparsegpt --sparsity 0.5 --preset paper",
        "--method shortgpt --num_blocks 5",
        "--method magnitude --sparsity 0.5 --dtype bf16",
        "--method magnitude --sparsity 0.5 --device moon",
        "--method magnitude --sparsity 0.5 --pretrained /nowhere",
        "--method magnitude --sparsity 0.5 --pretrained no/such-model",
    ],
)
def test_mistakes_read_as_those_of_prune(tmp_path, capsys, mistake):
    (tmp_path / "two.json").write_text("[0.1, 0.2]")
    (tmp_path / "empty.jsonl").write_text("")
    np.save(tmp_path / "foreign.npy", np.full((2, 8), 9999))
    arguments = [*TINY, *mistake.format(folder=tmp_path).split(), "--artifacts", "off"]
    sentences = {}
    for command in ("plan", "prune"):
        assert cli.main([command, *arguments, "--output", str(tmp_path / command)]) == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert not (tmp_path / command).exists()
        sentences[command] = error.splitlines()[-1]
    assert sentences["plan"].startswith("lm-eval-pruned: error: ")
    assert sentences["plan"] == sentences["prune"]


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["plan", *TINY, "--output", str(tmp_path / "file")]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["{}", '{"model_type": "t5"}', '{"model_type": "nonsense"}'])
def test_a_config_of_something_else_is_refused(tmp_path, capsys, config):
    (tmp_path / "config.json").write_text(config)
    assert cli.main(["plan", "--pretrained", str(tmp_path), "--method", "magnitude", "--sparsity", "0.5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lm-eval-pruned: error: pretrained={tmp_path} is not a causal language model")


def test_a_quantised_model_is_refused_as_by_prune(outline, capsys):
    config = json.loads((outline / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (outline / "config.json").write_text(json.dumps(config))
    assert cli.main(["plan", "--pretrained", str(outline), "--method", "magnitude", "--sparsity", "0.5"]) == 2
    assert "the model is quantised" in capsys.readouterr().err


def test_without_matplotlib_the_plan_is_written_and_the_picture_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["plan", *TINY, "--method", "magnitude", "--sparsity", "0.5", "--output", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert "pip install 'lm-eval-pruned[plot]'" in caplog.text


def test_an_output_that_cannot_be_written_is_named(capsys):
    arguments = ["--method", "magnitude", "--sparsity", "0.5", "--output", "/proc/plan"]
    assert cli.main(["plan", *TINY, *arguments]) == 2
    assert "--output /proc/plan cannot be written" in capsys.readouterr().err
