"""A Qwen3 mixture of experts: fused tensors are pruned one expert at a time, with the tokens routed to it."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.allocations.signals.influence import influences
from lm_eval_pruned.pruning.allocations.signals.kinds import AllocationGroup, DenseModel
from lm_eval_pruned.pruning.calibration.counted import CountedWindows
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import find_decoder

from . import reference

EXPERTS, HIDDEN, INNER = 6, 32, 24


@pytest.fixture
def mixture() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=97, hidden_size=HIDDEN, intermediate_size=40, moe_intermediate_size=INNER, num_experts=EXPERTS,
        num_experts_per_tok=2, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        # One block of the usual kind among them, as such models have.
        mlp_only_layers=[1],
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config).eval()
    for block in (0, 2):
        for parameter in model.model.layers[block].mlp.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def is_fused(model: Qwen3MoeForCausalLM) -> bool:
    """Releases of transformers before 5 keep one Linear an expert."""
    return hasattr(model.model.layers[0].mlp.experts, "gate_up_proj")


def matrices(model: Qwen3MoeForCausalLM) -> dict[str, torch.Tensor]:
    """Copies of all prunable matrices, read from the state and split by hand."""
    found = {}
    for name, value in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            for index in range(EXPERTS):
                for part, rows in (("gate_proj", value[index, :INNER]), ("up_proj", value[index, INNER:])):
                    found[name.replace("gate_up_proj", f"{index}.{part}")] = rows.clone()
        elif name.endswith("experts.down_proj"):
            for index in range(EXPERTS):
                found[name.replace("down_proj", f"{index}.down_proj")] = value[index].clone()
        else:
            found[name.removesuffix(".weight")] = value.clone()
    return found


def routed_inputs(
    model: Qwen3MoeForCausalLM, block: int, windows: torch.Tensor, counted: torch.Tensor | None = None
) -> list[dict[str, torch.Tensor]]:
    """What goes into the matrices of each expert, computed by hand from what the router is fed."""
    mixture, weights, seen = model.model.layers[block].mlp, matrices(model), []
    handle = mixture.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].detach()))
    for window in windows:
        model(window[None])
    handle.remove()
    tokens = torch.cat(seen) if counted is None else torch.cat(seen)[counted.flatten()]
    chosen = (tokens @ mixture.gate.weight.T).topk(2, dim=-1).indices
    found = []
    for index in range(EXPERTS):
        own = tokens[(chosen == index).any(dim=1)]
        name = f"model.layers.{block}.mlp.experts.{index}"
        gate, up = own @ weights[f"{name}.gate_proj"].T, own @ weights[f"{name}.up_proj"].T
        found.append({"gate_proj": own, "up_proj": own, "down_proj": torch.nn.functional.silu(gate) * up})
    return found


@pytest.mark.parametrize("some", [False, True], ids=["all", "counted"])
@torch.no_grad()
def test_wanda_uses_the_tokens_that_were_routed(mixture, windows, some):
    if some and not is_fused(mixture):
        pytest.skip("experts in separate modules are refused where only some tokens count")
    counted = torch.rand(windows.shape, generator=torch.Generator().manual_seed(2)) < 0.5 if some else None
    found, dense = routed_inputs(mixture, 0, windows, counted), matrices(mixture)
    given = windows if counted is None else CountedWindows(windows, counted)
    prune_model(mixture, PruneConfig(method="wanda", sparsity=0.5), given)
    pruned = matrices(mixture)
    for index, inputs in enumerate(found):
        assert len(inputs["gate_proj"])
        for part, rows in inputs.items():
            name = f"model.layers.0.mlp.experts.{index}.{part}"
            expected = reference.rows_by_score(dense[name], dense[name].abs() * rows.norm(dim=0), 0.5)
            assert torch.equal(pruned[name], expected), name


@torch.no_grad()
def test_magnitude_compares_within_one_matrix_of_one_expert(mixture):
    dense = matrices(mixture)
    report = prune_model(mixture, PruneConfig(method="magnitude", sparsity=0.3))
    pruned = matrices(mixture)
    names = {item.name for item in report.linears}
    assert {"model.layers.0.mlp.experts.5.up_proj", "model.layers.1.mlp.up_proj"} <= names
    assert len(names) == 3 * 4 + 2 * 3 * EXPERTS + 3
    for name in names:
        assert torch.equal(pruned[name], reference.magnitude_matrix(dense[name], 0.3)), name
    assert report.achieved_sparsity == pytest.approx(0.3, abs=1e-3)
    routers = [item for item in report.excluded if "mlp.gate" in item["name"]]
    assert len(routers) == 2


def test_names_are_those_of_the_checkpoint(mixture, tmp_path):
    from safetensors import safe_open

    mixture.save_pretrained(tmp_path)
    names = [linear.name for block in find_decoder(mixture).blocks for linear in block.linears]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert {f"{name}.weight" for name in names} <= set(file.keys())


def test_an_expert_that_no_token_reaches_is_pruned_by_its_weights(mixture, windows):
    windows = windows[:1, :2]  # two tokens reach four of six experts at most
    found, dense = routed_inputs(mixture, 0, windows), matrices(mixture)
    silent = [index for index, inputs in enumerate(found) if not len(inputs["gate_proj"])]
    assert len(silent) >= 2
    prune_model(mixture, PruneConfig(method="wanda", sparsity=0.5), windows)
    pruned = matrices(mixture)
    for index in silent:
        name = f"model.layers.0.mlp.experts.{index}.down_proj"
        assert torch.equal(pruned[name], reference.rows_by_score(dense[name], dense[name].abs(), 0.5))


@pytest.mark.parametrize("method", ["sparsegpt", "wanda"])
@pytest.mark.parametrize("alloc", ["owl", "dlp", "layerif", "alphapruning"])
def test_every_allocation_reads_a_mixture(mixture, windows, method, alloc):
    report = prune_model(mixture, PruneConfig(method=method, sparsity=0.4, alloc=alloc), windows)
    assert report.achieved_sparsity == pytest.approx(0.4, abs=0.04)
    assert getattr(mixture.config, "_experts_implementation", None) != "eager"


def test_influences_of_experts_equal_those_of_whole_gradients(mixture, windows):
    decoder = find_decoder(mixture)
    held, training = windows[-1:], windows[:-1]
    experts = mixture.model.layers[0].mlp.experts
    expert = [linear for linear in decoder.blocks[0].linears if linear.name.endswith("experts.2.down_proj")]
    group = AllocationGroup((tuple(expert), (), ()))
    ours = influences(DenseModel(decoder, [group], windows), PruneConfig())[0, 0]

    def gradient(window: torch.Tensor) -> torch.Tensor:
        mixture.zero_grad()
        mixture(window[None], labels=window[None]).loss.backward()
        whole = experts.down_proj.grad[2] if is_fused(mixture) else experts[2].down_proj.weight.grad
        return whole.double().clone()

    toward = gradient(held[0])
    expected = sum(max(0.0, float((toward * gradient(window)).sum())) for window in training)
    assert float(ours) == pytest.approx(expected, rel=1e-4)


def test_experts_that_hide_their_products_are_refused(mixture, windows, monkeypatch):
    if not is_fused(mixture):
        pytest.skip("this release of transformers keeps one Linear an expert")
    experts = mixture.model.layers[0].mlp.experts
    monkeypatch.setattr(type(experts), "forward", lambda self, states, *_: states)
    with pytest.raises(PruningError, match=r"experts\.0\.gate_proj is never called"):
        prune_model(mixture, PruneConfig(method="wanda", sparsity=0.5), windows)
