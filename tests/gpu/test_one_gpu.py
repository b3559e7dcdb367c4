"""One GPU: the masks and texts of the CPU, equal texts in batches of any size, and memory that runs out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.planning.architecture import read_architecture
from lm_eval_pruned.planning.memory import peak_memory_bytes
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS, DropMethod
from lm_eval_pruned.pruning.methods.kinds import ExpertMethod
from lm_eval_pruned.pruning.model.shapes import WindowShape
from lm_eval_pruned.pruning.products import float32_product
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.pruning.reproducible import reproducible
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import BudgetSettings

FOLDER = assets_folder() / "tiny_reasoner"
PROMPTS = [f"<|im_start|>user\n{one.problem}<|im_end|>\n<|im_start|>assistant\n" for one in benchmark_chains()[::8]]
GREEDY, SAMPLED = Sampling(), Sampling(temperature=0.8, top_p=0.95, top_k=20)
DROPPING = [name for name, method in METHODS.items() if isinstance(method, DropMethod)]
RECIPES = [
    *(
        {"method": name, "sparsity": 0.3}
        for name, method in METHODS.items()
        # tiny-reasoner has no experts.
        if not isinstance(method, DropMethod | ExpertMethod)
    ),
    *({"method": "wanda", "sparsity": 0.3, "alloc": name} for name in ALLOCATIONS if name != "uniform"),
    *({"method": name, "num_blocks": 1} for name in DROPPING),
    {"method": "magnitude", "sparsity": 0.3, "compare": "row"},
    {"method": "wanda", "sparsity": 0.3, "compare": "matrix"},
    {"method": "wanda", "pattern": "2:4"},
    {"method": "sparsegpt", "pattern": "2:4"},
]
# Sums over many tokens end in other last bits on another device, which may decide a tie of scores.
CHANGED_MASKS = 1e-3


def tiny(device: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=dtype).to(device).eval()


def pruned(device: str, settings: dict, *, artifacts: Path | None = None) -> tuple[dict[str, Tensor], PruneReport]:
    windows = torch.from_numpy(np.load(FOLDER / "calibration.npy")).long()[:16]
    model = tiny(device)
    report = prune_model(model, PruneConfig(**settings), windows, artifacts=artifacts)
    return {name: value.detach().cpu() for name, value in model.named_parameters()}, report


@pytest.mark.parametrize("settings", RECIPES, ids=lambda settings: "-".join(map(str, settings.values())))
def test_masks_are_those_of_the_cpu_and_the_same_again(device, settings):
    (here, report), (again, _), (there, on_cpu) = (pruned(place, settings) for place in (device, device, "cpu"))
    assert report.fingerprint == on_cpu.fingerprint
    assert report.removed_blocks == on_cpu.removed_blocks
    assert here.keys() == again.keys() == there.keys()
    assert all(torch.equal(here[name], again[name]) for name in here)
    changed = sum(int(((here[name] == 0) != (there[name] == 0)).sum()) for name in here)
    uses_no_sums = settings["method"] == "magnitude" and "alloc" not in settings
    assert changed <= (0 if uses_no_sums else CHANGED_MASKS * report.prunable_weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "width"), [(2048, 1024), (1000, 777)])
def test_products_of_16_bits_are_added_in_float32(device, dtype, tokens, width):
    rows = torch.randn(tokens, width, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    exact = rows.T.double() @ rows.double()
    with reproducible():
        once = float32_product(rows.T, rows)
        again = float32_product(rows.T, rows)
        twice = float32_product(rows.T, rows, added_to=once.clone())
    assert once.dtype == torch.float32
    assert torch.equal(once, again)
    # Sums in 16 bits would be wrong in the third digit.
    assert float((once - exact).abs().max() / exact.abs().max()) < 1e-6
    assert float((twice - 2 * exact).abs().max() / exact.abs().max()) < 2e-6


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("made_on_cpu", [True, False])
def test_artifacts_go_from_device_to_device(device, method, made_on_cpu, tmp_path):
    settings = {"method": method, "sparsity": 0.3}
    first, second = ("cpu", device) if made_on_cpu else (device, "cpu")
    made, _ = pruned(first, settings, artifacts=tmp_path)
    read, _ = pruned(second, settings, artifacts=tmp_path)
    assert len([*tmp_path.glob("*/SHA256SUMS")]) == 1
    assert all(torch.equal(made[name], read[name]) for name in made)


def texts(
    model: PreTrainedModel, batch_size: int | None, sampling: Sampling, *, share: bool = True, prompts: Sequence[str]
) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    backend = TransformersBackend(
        model=model, tokenizer=tokenizer, encode_text=tokenizer.encode, context=1024, batch_size=batch_size,
        is_quiet=True,
    )  # fmt: skip
    requests = [Request(prompt, 0) for prompt in prompts]
    sets = [
        prepare(backend, requests, BudgetSettings(budget=one, answer_room=32, sampling=sampling), FORMATS["tiny"])
        for one in (16, 64, 128)
    ]
    return [completion for one in complete(backend, sets, share=share) for completion in one]


@cache
def expected_texts(device: str, sampling: Sampling) -> list[str]:
    return texts(tiny(device), 64, sampling, prompts=PROMPTS)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("batch_size", "share"), [(7, True), (1, True), (None, True), (64, False)])
def test_texts_do_not_depend_on_the_batch_in_float32(device, sampling, batch_size, share):
    assert texts(tiny(device), batch_size, sampling, share=share, prompts=PROMPTS) == expected_texts(device, sampling)


def test_greedy_texts_are_those_of_the_cpu(device):
    pairs = zip(expected_texts(device, GREEDY), expected_texts("cpu", GREEDY), strict=True)
    assert sum(one != other for one, other in pairs) <= 0.02 * 3 * len(PROMPTS)


def test_memory_that_runs_out_halves_the_batch(device, caplog):
    if device == "cpu":
        pytest.skip("only a GPU has memory that can be cut")
    model = tiny(device)
    wanted = expected_texts(device, GREEDY)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + (24 << 20)
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level(logging.WARNING):
            got = texts(model, 64, GREEDY, prompts=PROMPTS)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "no memory for a batch of" in caplog.text
    assert got == wanted


@pytest.mark.parametrize("alloc", ["uniform", "layerif"])
def test_the_peak_is_at_most_that_of_the_plan(device, alloc):
    if device == "cpu":
        pytest.skip("the peak of a process includes all tests before")
    sizes = {"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16, "num_key_value_heads": 8}
    with torch.device(device):
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=50000, num_hidden_layers=12, head_dim=128, **sizes)).bfloat16()
    windows = WindowShape(8, 1024)
    recipe = resolve(PruneConfig(method="wanda", sparsity=0.1, alloc=alloc))
    plan = peak_memory_bytes(recipe, read_architecture(recipe, model, torch.bfloat16, whole=True), windows)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    ids = torch.randint(0, 50000, windows, generator=torch.Generator().manual_seed(0))
    report = prune_model(model.eval(), recipe, ids)
    assert report.peak_memory_bytes <= 1.1 * sum(plan.values())
