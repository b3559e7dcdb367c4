"""The command `lm-eval-pruned diverge`, from a dense run's samples to its files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.cli import main
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint import load
from lm_eval_pruned.results.divergence.summary import MEANING
from tests.dense_samples import PROMPT, RESPONSES, write_samples

KEYS = [
    "schema_version", "config", "fingerprint", "traces", "tokens", "kl", "kl_low", "kl_high", "flips", "survive",
    "by_budget", "questions",
]  # fmt: skip


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path)


def run(samples: Path, output: Path, *flags: str) -> int:
    given = ["--pretrained", "tiny-reasoner", "--traces", str(samples), "--output", str(output)]
    return main(["diverge", *given, *flags])


@torch.no_grad()
def expected_kl() -> list[float]:
    """The sum of KL of each response, from plain transformers and one forward pass for each model."""
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    dense, pruned = (AutoModelForCausalLM.from_pretrained(bundled_folder()).eval() for _ in range(2))
    prune_model(pruned, PruneConfig(method="magnitude", sparsity=0.7))
    sums = []
    for question, response in RESPONSES.items():
        prompt = PROMPT.format(question) + "<think>\n"
        ids = tokenizer(prompt + response.removeprefix("<think>\n"), return_tensors="pt").input_ids
        start = len(tokenizer(prompt).input_ids)
        p, q = (model(ids).logits[0, start - 1 : -1].double().log_softmax(-1) for model in (dense, pruned))
        sums.append(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum").item())
    return sums


def test_files_and_figures(tmp_path, samples, capsys):
    output = tmp_path / "out"
    assert run(samples, output, "--method", "magnitude", "--sparsity", "0.7") == 0
    content = json.loads((output / "divergence.json").read_text())
    assert list(content) == KEYS
    assert [one["kl"] for one in content["questions"]] == pytest.approx(expected_kl(), rel=1e-5, abs=1e-5)
    assert content["kl"] == pytest.approx(sum(expected_kl()) / content["tokens"], rel=1e-5)
    assert [one["budget"] for one in content["by_budget"]] == [16]
    assert content["config"]["method"] == "magnitude"
    assert (output / "divergence.png").read_bytes().startswith(b"\x89PNG")
    assert MEANING in capsys.readouterr().out


def test_the_dense_run_is_cached(tmp_path, samples, monkeypatch):
    cache = str(tmp_path / "cache")
    flags = ("--method", "magnitude", "--sparsity", "0.5", "--artifacts")
    assert run(samples, tmp_path / "first", *flags, cache) == 0
    monkeypatch.setattr("lm_eval_pruned.models.diverge.dense_traces", None)
    assert run(samples, tmp_path / "second", *flags, cache) == 0
    first, second = (json.loads((tmp_path / name / "divergence.json").read_text()) for name in ("first", "second"))
    assert first == second
    with pytest.raises(TypeError):
        run(samples, tmp_path / "third", *flags, "off")


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--method", "wanda"], "needs a sparsity"),
        (["--method", "wandaa", "--sparsity", "0.5"], "did you mean 'wanda'"),
        (["--method", "magnitude", "--sparsity", "0.5", "--traces", "nowhere"], "--traces nowhere does not exist"),
        (["--method", "magnitude", "--sparsity", "0.5", "--pretrained", "/nowhere"], "is not a folder"),
        (["--method", "shortgpt", "--num_blocks", "9"], "drops 9 of the model's 5 blocks"),
        (
            ["--method", "magnitude", "--sparsity", "0.5", "--backend", "vlm"],
            "unknown --backend 'vlm': did you mean 'vllm'",
        ),
        (["--method", "magnitude", "--sparsity", "0.5", "--backend", "vllm"], "--backend vllm needs vLLM: pip install"),
        (["--method", "magnitude", "--sparsity", "0.5", "--engine_args", "a=1"], "are vLLM's: leave them out"),
        (["--method", "magnitude", "--sparsity", "0.5", "--logprobs", "0"], "--logprobs 0: give 1 or more"),
    ],
)
def test_mistakes_are_found_before_any_weight_is_read(tmp_path, samples, monkeypatch, capsys, flags, error):
    monkeypatch.setattr(load, "load_checkpoint", None)
    monkeypatch.setattr("lm_eval_pruned.models.prune_checkpoint.load_checkpoint", None)
    monkeypatch.setattr("lm_eval_pruned.commands.diverge.find_spec", lambda name: None)
    assert run(samples, tmp_path / "out", *flags) == 2
    assert error in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(samples, capsys):
    assert run(samples, samples, "--method", "magnitude", "--sparsity", "0.5") == 2
    assert "cannot be a folder" in capsys.readouterr().err


def test_traces_of_another_model_are_noticed(tmp_path, samples, caplog):
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    rows[0]["resps"] = [["Le petit chat est tombé dans le puits, et personne ne sait pourquoi."]]
    samples.write_text(json.dumps(rows[0]) + "\n")
    assert run(samples, tmp_path / "out", "--method", "none") == 0
    assert "are they another model's" in caplog.text
    content = json.loads((tmp_path / "out" / "divergence.json").read_text())
    assert (content["kl"], content["kl_low"], content["survive"]) == (0.0, None, 1.0)
