"""Pruning on pretend CUDA devices sets the same bits as on the CPU, under the same fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import Qwen3ForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS
from tests.gpu_rehearsal.counts import Counts
from tests.gpu_rehearsal.cuda import pretend_cuda
from tests.gpu_rehearsal.models import Make, calibration_windows, mixture_of_experts, plain
from tests.gpu_rehearsal.placing import on_one_device, on_two_devices
from tests.gpu_rehearsal.tensor import bare

pytestmark = pytest.mark.rehearsal

PLACES = {"cpu": lambda model: model, "one device": on_one_device, "two devices": on_two_devices}
MODELS = {
    "float32": (plain, torch.float32),
    "bfloat16": (plain, torch.bfloat16),
    "experts": (mixture_of_experts, torch.float32),
}


def recipes() -> dict[str, PruneConfig]:
    """Return every registered method with every registered allocation, and the variants that take other paths."""
    settings: list[dict[str, object]] = []
    for name, method in METHODS.items():
        if method.drops_blocks:
            settings.append({"method": name, "num_blocks": 1})
        elif method.reshapes:
            settings.append({"method": name, "sparsity": 0.3})
        else:
            settings += [{"method": name, "sparsity": 0.3, "alloc": alloc} for alloc in ALLOCATIONS if alloc != "list"]
            settings.append({"method": name, "pattern": "2:4"})
    settings += [
        {"method": "none"},
        {"method": "magnitude", "sparsity": 0.3, "compare": "row"},
        {"method": "magnitude", "sparsity": 0.3, "preset": "paper"},
        {"method": "wanda", "sparsity": 0.3, "compare": "matrix"},
        {"method": "wanda", "sparsity": 0.3, "propagate": "dense"},
        {"method": "magnitude", "sparsity": 0.3, "alloc": "layerif", "layerif_groups": "block"},
    ]
    return {",".join(f"{key}={value}" for key, value in one.items()): PruneConfig(**one) for one in settings}


RECIPES = recipes()
# In float32 every method with every allocation; elsewhere all methods with one, and one method with all.
# What takes out channels needs an MLP without experts, what takes out experts a mixture with enough of them.
NOT_FOR = {"width": ("experts",), "reap": ("float32", "bfloat16")}
CASES = [
    (name, model)
    for name, recipe in RECIPES.items()
    for model in MODELS
    if model == "float32" or recipe.alloc == "uniform" or recipe.method == "magnitude"
    if model not in NOT_FOR.get(recipe.method, ())
]


class Pruned(NamedTuple):
    """The bits of a pruned model, its report, and what the device did."""

    bits: dict[str, torch.Tensor]
    report: PruneReport
    counts: Counts


def prune(model: str, recipe: str, place: str, artifacts: Path | None = None) -> Pruned:
    make: Make
    make, dtype = MODELS[model]
    with pretend_cuda() as counts:
        pruned = PLACES[place](make(dtype))
        windows = None if recipe == "method=none" else calibration_windows()
        report = prune_model(pruned, RECIPES[recipe], windows, artifacts=artifacts)
    bits = {name: bare(value.detach()).view(torch.uint8) for name, value in pruned.named_parameters()}
    return Pruned(bits, report, counts)


def differences(one: Pruned, other: Pruned) -> list[str]:
    assert one.bits.keys() == other.bits.keys()
    return [name for name in one.bits if not torch.equal(one.bits[name], other.bits[name])]


@pytest.fixture(autouse=True)
def tf32():
    """Products in TF32, as the environment of NVIDIA's containers asks for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("recipe", "model"), CASES)
def test_the_same_weights_are_pruned_as_on_the_cpu(recipe, model, tmp_path):
    expected = prune(model, recipe, "cpu")
    for place in ("one device", "two devices"):
        made, read = (prune(model, recipe, place, tmp_path / place) for _ in range(2))
        for found in (made, read):
            assert not differences(expected, found), place
            assert found.report.fingerprint == expected.report.fingerprint
            assert found.counts.launches
            assert not found.counts.unordered
            assert not found.counts.reduced


def test_a_threshold_of_a_whole_matrix_is_sorted_for():
    counts = prune("float32", "method=magnitude,sparsity=0.3,alloc=uniform", "one device").counts
    assert "kthvalue" not in counts.launches
    assert counts.launches["sort"]


# Most synchronisations of a run with three windows and three blocks of seven Linears. 99 of them hash the weights and
# count zeros three times; one more for each group of columns, each row or each window would show.
MOST_SYNCHRONISATIONS = {
    "method=none": 99,
    "method=magnitude,sparsity=0.3,alloc=uniform": 162,
    "method=magnitude,pattern=2:4": 141,
    "method=wanda,sparsity=0.3,alloc=uniform": 221,
    "method=wanda,pattern=2:4": 200,
    "method=sparsegpt,sparsity=0.3,alloc=uniform": 263,
    "method=sparsegpt,pattern=2:4": 242,
    "method=wanda,sparsity=0.3,alloc=owl": 322,
    "method=wanda,sparsity=0.3,alloc=dlp": 283,
    "method=wanda,sparsity=0.3,alloc=alphapruning": 284,
    "method=shortgpt,num_blocks=1": 262,
}


@pytest.mark.parametrize("recipe", MOST_SYNCHRONISATIONS)
def test_the_host_seldom_waits_for_the_device(recipe):
    waits = prune("float32", recipe, "one device").counts.synchronisations
    assert waits.total() <= MOST_SYNCHRONISATIONS[recipe], waits


def test_layerif_goes_on_without_a_deterministic_algorithm_and_says_so(caplog, monkeypatch):
    head = Qwen3ForCausalLM.forward

    def forward(model, input_ids, **others):
        model.get_input_embeddings().weight.float().cumsum(0)
        return head(model, input_ids, **others)

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", forward)
    recipe = "method=magnitude,sparsity=0.3,alloc=layerif"
    expected, found = (prune("float32", recipe, place) for place in ("cpu", "one device"))
    assert not differences(expected, found)
    assert [one.report.software["deterministic"] for one in (expected, found)] == ["yes", "no"]
    assert [one.report.software["device"] for one in (expected, found)] == ["cpu", "pretend"]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "cumsum_float does not have a deterministic implementation" in caplog.text
