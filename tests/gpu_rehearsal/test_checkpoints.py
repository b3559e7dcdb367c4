"""Pruning checkpoints on a pretend CUDA device: part by part, loaded whole, and for vLLM's loader, as on the CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.models.vllm.prepare_process import Job, prepare_here
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve
from tests.gpu_rehearsal.cuda import pretend_cuda
from tests.gpu_rehearsal.models import FOLDER, calibration_windows, mixture_of_experts, plain
from tests.gpu_rehearsal.tensor import bare

pytestmark = pytest.mark.rehearsal

TRACES = {"calib": f"traces:{FOLDER}/questions.jsonl", "calib_samples": 2, "calib_seqlen": 40}
RECIPES = {
    "one block at a time": {"method": "wanda", "sparsity": 0.3, "alloc": "owl"},
    "solved, one block at a time": {"method": "sparsegpt", "sparsity": 0.3},
    "dropped blocks": {"method": "shortgpt", "num_blocks": 1},
    "gradients, so the whole model": {"method": "magnitude", "sparsity": 0.3, "alloc": "layerif"},
    "traces, so the whole model": {"method": "wanda", "sparsity": 0.3, **TRACES},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Callable[[str], str]:
    """Write a checkpoint with the tokenizer of tiny-reasoner."""
    makers = {"bfloat16": plain, "experts": mixture_of_experts}

    def write(name: str) -> str:
        folder = tmp_path_factory.mktemp(name)
        makers[name](torch.bfloat16).save_pretrained(folder)
        for file in FOLDER.glob("tokenizer*"):
            shutil.copy(file, folder)
        return str(folder)

    written: dict[str, str] = {}
    return lambda name: written.setdefault(name, "") or written.update({name: write(name)}) or written[name]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def config_of(recipe: str, folder: Path) -> PruneConfig:
    """Return a configuration, with calibration windows in a file."""
    windows = folder / "windows.npy"
    np.save(windows, calibration_windows().numpy())
    return PruneConfig(**{"calib": str(windows), **RECIPES[recipe]})


def prune(source: str, config: PruneConfig, device: str, output: Path) -> PruneReport:
    run = RunConfig(artifacts=str(output.with_suffix(".artifacts")))
    return prune_pretrained(source, resolve(config), run, LoadOptions(device=device), output=output)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name].cpu(), expected[name])] == []


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", ["bfloat16", "experts"])
def test_the_same_checkpoint_is_written_as_on_the_cpu(checkpoint, recipe, model, tmp_path):
    on_cpu, on_card = tmp_path / "cpu", tmp_path / "card"
    on_cpu.mkdir()
    on_card.mkdir()
    config = config_of(recipe, tmp_path)
    expected = prune(checkpoint(model), config, "cpu", on_cpu)
    with pretend_cuda() as counts:
        found = prune(checkpoint(model), config, "cuda", on_card)
    assert_same(weights(on_card), weights(on_cpu))
    # Texts that a model generates on another device are other inputs.
    assert (found.fingerprint == expected.fingerprint) is ("traces" not in recipe)
    assert counts.launches
    if "traces" not in recipe:
        assert not counts.unordered


@pytest.mark.parametrize("recipe", ["one block at a time", "solved, one block at a time"])
def test_what_vllm_loads_is_pruned_on_the_card_as_on_the_cpu(checkpoint, recipe, tmp_path):
    config = config_of(recipe, tmp_path)

    def prepare(device: str) -> tuple[dict[str, torch.Tensor], int]:
        options = LoadOptions(device=device)
        made = prepare_here(
            Job.of(checkpoint("bfloat16"), config, artifacts=str(tmp_path / device), thinking="auto", options=options)
        )
        stream = PrunedStream.open(Path(made.artifact))
        given = {name: value.to(device) for name, value in weights(Path(made.pretrained)).items()}
        loaded = {name: bare(value) for name, value in stream(iter(given.items()))}
        stream.check()
        return loaded, sum(stream.zeros.values())

    expected, zeros = prepare("cpu")
    with pretend_cuda() as counts:
        found, zeros_on_card = prepare("cuda")
    assert_same(found, expected)
    assert zeros == zeros_on_card > 0
    assert counts.launches
