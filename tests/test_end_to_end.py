"""The stock `lm_eval` command and `lm-eval-pruned`: one run in a fresh interpreter, the others in forked processes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.errors import PrunedEvalError
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.paths import assets_folder
from tests import forked
from tests.pruning import reference

BIN = Path(sys.executable).parent
TINY = "pretrained=tiny-reasoner"


@pytest.fixture
def run(tmp_path_factory) -> Callable[..., forked.Done]:
    """Run a command and return what it wrote and how it ended."""

    def run(*command: str, data: Path | None = None) -> forked.Done:
        variables = {"LM_EVAL_PRUNED_DATA": "" if data is None else str(data)}
        return forked.run(command, tmp_path_factory.mktemp("log") / "log", variables)

    return run


@pytest.fixture
def evaluate(run) -> Callable[..., forked.Done]:
    return partial(run, "lm_eval", "--model", "pruned-hf")


def results_in(folder: Path) -> dict:
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text())


def test_the_curve_of_a_pruned_model(tmp_path):
    def stock(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False)

    done = stock(
        "lm_eval", "--model", "pruned-hf", "--model_args", f"{TINY},method=wanda,sparsity=0.2",
        "--tasks", "tiny_tts", "--batch_size", "64", "--log_samples", "--output_path", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = results_in(tmp_path)
    curve = [content["results"][f"tiny_tts_{budget}"]["acc,none"] for budget in (16, 32, 64, 128, 256)]
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(curve)), curve
    assert curve[-1] >= 0.9 * 0.95
    pruning = content["config"]["pruning"]
    assert pruning["achieved_sparsity"] == pruning["zero_weights"] / pruning["prunable_weights"]
    assert 0.19 < pruning["achieved_sparsity"] <= 0.2
    assert "tiny_tts_256" in done.stdout
    for budget in (16, 32, 64, 128, 256):
        (samples,) = tmp_path.rglob(f"samples_tiny_tts_{budget}_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        assert len(rows) == 200
        assert max(row["thinking_tokens"] for row in rows) <= budget
        # The prompt and the response join to one text; the answer is the one that was compared with the gold one.
        asked = [(row["arguments"]["gen_args_0"]["arg_0"], row["doc"]["problem"]) for row in rows]
        assert all(
            prompt.startswith("<|im_start|>user\n") and prompt.endswith("<|im_start|>assistant\n") and text in prompt
            for prompt, text in asked
        )
        assert all((row["filtered_resps"] == [[row["target"]]]) == row["acc"] for row in rows)

    picture = tmp_path / "curve.png"
    drawn = stock("python", "-m", "lm_eval_pruned.results.curve", str(tmp_path), "--png", str(picture))
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.count("wanda uniform 0.2") == 5
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_real_model_on_the_real_benchmarks(tmp_path, evaluate, smollm2, data_folder):
    texts = ["The quick brown fox jumps over the lazy dog. " * 30, "It was a bright cold day in April. " * 40]
    calibration = tmp_path / "text.jsonl"
    calibration.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = evaluate(
        "--model_args",
        f"pretrained={smollm2},method=wanda,sparsity=0.2,calib={calibration},calib_samples=4,calib_seqlen=64",
        "--tasks", "aime24_tts_512,gpqa_diamond_tts_512", "--limit", "2", "--batch_size", "2",
        "--gen_kwargs", "thinking_token_budget=24,max_gen_toks=8", "--output_path", str(tmp_path), data=data_folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "aime24_tts_512" in done.stdout
    content = results_in(tmp_path)
    assert content["config"]["thinking"] == "none"
    assert 0.19 < content["config"]["pruning"]["achieved_sparsity"] <= 0.2
    for task in ("aime24_tts_512", "gpqa_diamond_tts_512"):
        assert content["results"][task]["thinking_tokens,none"] <= 24


@pytest.fixture(scope="module")
def random_qwen3(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=64, dtype="float32",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("qwen3")
    Qwen3ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets_folder() / "tiny_reasoner").save_pretrained(folder)
    return folder


def test_prune_writes_exactly_the_mask_of_the_formulas(tmp_path, run, random_qwen3):
    ids = torch.randint(0, 264, (6, 40), generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "tokens.npy", ids.numpy())
    output = tmp_path / "pruned"
    done = run(
        "lm-eval-pruned", "prune", "--pretrained", str(random_qwen3), "--method", "wanda", "--sparsity", "0.3",
        "--calib", str(tmp_path / "tokens.npy"), "--output", str(output),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    dense = AutoModelForCausalLM.from_pretrained(random_qwen3).eval()
    expected = copy.deepcopy(dense)
    reference.wanda_in_place(expected, ids, 0.3, propagate="pruned")
    pruned = AutoModelForCausalLM.from_pretrained(output)
    for (name, value), other in zip(pruned.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    report = json.loads((output / "pruning_report.json").read_text())
    assert report["linears"][0] == {
        "name": "model.layers.0.self_attn.q_proj", "weights": 2048, "zeros": 64 * int(32 * 0.3), "target": 0.3,
    }  # fmt: skip
    assert AutoTokenizer.from_pretrained(output)("a=3").input_ids

    again = run(
        "lm-eval-pruned", "prune", "--pretrained", str(random_qwen3), "--method", "magnitude", "--sparsity", "0.3",
        "--output", str(output),
    )  # fmt: skip
    assert again.returncode == 2
    assert "already exists: give a new or an empty folder" in again.stderr


def test_a_checkpoint_without_a_block_is_a_normal_checkpoint(tmp_path, run):
    done = run(
        "lm-eval-pruned", "prune", "--pretrained", "tiny-reasoner", "--method", "shortgpt", "--num_blocks", "1",
        "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sparsity 0.2000, target 0.2" in done.stdout
    report = json.loads((tmp_path / "out" / "pruning_report.json").read_text())
    assert len(report["removed_blocks"]) == 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 4


def test_list_has_a_line_for_everything(run):
    done = run("lm-eval-pruned", "list")
    assert done.returncode == 0
    names = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert {
        "none",
        "magnitude",
        "wanda",
        "uniform",
        "qwen3",
        "s1",
        "deepseek-r1",
        "tts",
        "aime24_tts",
        "tiny_tts",
    } <= names


# One for each stage of a run: arguments, tasks, data, generation.
MISTAKES = {
    "method": (
        ["--tasks", "tiny_tts_16", "--model_args", f"{TINY},method=wandaa,sparsity=0.2"],
        "unknown method 'wandaa': did you mean 'wanda'?",
    ),
    "tasks": (
        ["--tasks", "aime24_ttss", "--model_args", TINY],
        "unknown --tasks 'aime24_ttss' (did you mean 'aime24_tts'",
    ),
    "data": (["--tasks", "aime24_tts_512", "--model_args", TINY], "simplescaling/aime24_nofigures cannot be loaded"),
    "budget": (
        ["--tasks", "tiny_tts_16", "--model_args", TINY, "--gen_kwargs", "thinking_token_budget=9999"],
        "thinking_token_budget=9999 does not fit",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_ends_in_one_sentence(evaluate, mistake):
    arguments, sentence = MISTAKES[mistake]
    done = evaluate(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("lm_eval: error: ")
    assert sentence in last


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sparsity": 1.5}, "sparsity=1.5 is not a fraction"),
        ({"alloc": "owll"}, "unknown alloc 'owll': did you mean 'owl'?"),
        ({"pretrained": "/nowhere"}, "pretrained=/nowhere is not a folder"),
        ({"calib": "/nowhere.jsonl"}, "calib=/nowhere.jsonl does not exist"),
        ({"calib": "c4"}, "calib=c4 cannot be loaded from the hub"),
    ],
    ids=str,
)
def test_a_mistake_in_an_argument_is_such_a_sentence(arguments, sentence):
    with pytest.raises(PrunedEvalError) as raised:
        PrunedHFLM(**{"pretrained": "tiny-reasoner", "method": "wanda", "sparsity": 0.2, **arguments})
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_calibration_file_is_one_too(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PrunedEvalError, match=r"empty\.jsonl is empty"):
        PrunedHFLM("tiny-reasoner", method="wanda", sparsity=0.2, calib=str(tmp_path / "empty.jsonl"))


def test_the_same_holds_for_our_own_command(tmp_path, run):
    done = run("lm-eval-pruned", "prune", "--pretrained", "/nowhere", "--method", "magnitude", "--sparsity", "0.1",
               "--output", str(tmp_path / "out"))  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("lm-eval-pruned: error: pretrained=/nowhere is not a folder")
    assert not (tmp_path / "out").exists()
