"""Which matrices of a model are pruned: stacks of several layouts, Conv1D, routers, mixers of tokens, `exclude`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import silu

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream, can_stream
from lm_eval_pruned.pruning.artifacts.store import TENSORS
from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.fit import check_fits
from lm_eval_pruned.pruning.model.decoder import Decoder, Linear, find_decoder
from lm_eval_pruned.pruning.model.experts import unfused_experts
from lm_eval_pruned.pruning.recipe import resolve

SMALL = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
MODELS = {
    "GPT2": {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "Mamba": {**SMALL, "state_size": 4, "time_step_rank": 3},
    "Rwkv": {**SMALL, "attention_hidden_size": 48, "intermediate_size": 40},
    "JetMoe": {**SMALL, "num_key_value_heads": 2, "kv_channels": 8, "intermediate_size": 24, "num_local_experts": 3},
    "Llama4": {
        **SMALL,
        **HEADS,
        "intermediate_size": 24,
        "intermediate_size_mlp": 40,
        "num_local_experts": 3,
        "head_dim": 8,
    },
    "Phimoe": {**SMALL, **HEADS, "intermediate_size": 24, "num_local_experts": 3},
    "Dbrx": {
        "vocab_size": 61,
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 3, "moe_top_k": 2},
    },
    "HunYuanDenseV1": {**SMALL, **HEADS, "intermediate_size": 40, "head_dim": 8},
}
SPELLED = {"Llama4": ("Llama4TextConfig", "Llama4ForCausalLM"), "GPT2": ("GPT2Config", "GPT2LMHeadModel")}
# Before transformers 5, Llama 4 multiplied the tokens of an expert by the scores of other tokens.
IS_5 = Version(transformers.__version__).major >= 5
ROUTES_WRONG = () if IS_5 else ("Llama4",)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = ("gate", "up", "down")
# Of the first block, under # for the number of an expert: what is pruned and as which sublayer, and the routers.
EXPECTED = {
    "GPT2": ({"attn.c_attn": "attn", "attn.c_proj": "attn", "mlp.c_fc": "mlp", "mlp.c_proj": "mlp"}, set()),
    "Mamba": ({f"mixer.{name}_proj": "attn" for name in ("in", "x", "dt", "out")}, set()),
    "Rwkv": (
        {f"attention.{name}": "attn" for name in ("key", "value", "receptance", "output")}
        | {f"feed_forward.{name}": "mlp" for name in ("key", "value", "receptance")},
        set(),
    ),
    "JetMoe": (
        {"self_attention.experts.input_linear.#": "attn", "self_attention.experts.output_linear.#": "attn"}
        | {"self_attention.kv_proj": "attn", "mlp.input_linear.#": "mlp", "mlp.output_linear.#": "mlp"},
        {"self_attention.experts.router.layer", "mlp.router.layer"},
    ),
    "Llama4": (
        {f"self_attn.{name}": "attn" for name in ATTENTION}
        | {
            f"feed_forward.{kind}.{name}_proj": "mlp"
            for kind in ("experts.#", "shared_expert")
            for name in ("gate", "up", "down")
        },
        {"feed_forward.router"},
    ),
    "Phimoe": (
        {f"self_attn.{name}": "attn" for name in ATTENTION} | {f"mlp.experts.#.{name}_proj": "mlp" for name in GATED},
        {"mlp.router"},
    )
    if IS_5
    else (
        {f"self_attn.{name}": "attn" for name in ATTENTION}
        | {f"block_sparse_moe.experts.#.w{number}": "mlp" for number in (1, 2, 3)},
        {"block_sparse_moe.gate"},
    ),
    "Dbrx": (
        {"norm_attn_norm.attn.Wqkv": "attn", "norm_attn_norm.attn.out_proj": "attn"}
        | {f"ffn.experts.mlp.#.{name}": "mlp" for name in ("w1", "v1", "w2")},
        {"ffn.router.layer"},
    ),
    "HunYuanDenseV1": (
        {f"self_attn.{name}": "attn" for name in ATTENTION} | {f"mlp.{name}_proj": "mlp" for name in GATED},
        set(),
    ),
}
ROUTER = "router of a mixture of experts"


def build(family: str) -> nn.Module:
    torch.manual_seed(0)
    config, model = SPELLED.get(family, (f"{family}Config", f"{family}ForCausalLM"))
    return getattr(transformers, model)(getattr(transformers, config)(**MODELS[family])).eval()


def windows(rows: int = 3) -> torch.Tensor:
    return torch.randint(1, 61, (rows, 12), generator=torch.Generator().manual_seed(5))


def of_first_block(decoder: Decoder, name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".#", name.removeprefix(f"{decoder.blocks[0].name}."))


@pytest.mark.parametrize("family", EXPECTED)
def test_the_matrices_of_a_family_are_those_of_its_paper(family):
    decoder = find_decoder(build(family))
    prunable, routers = EXPECTED[family]
    found = {of_first_block(decoder, linear.name): linear.sublayer for linear in decoder.blocks[0].linears}
    assert found == prunable
    inside = [one for one in decoder.excluded if one.name.startswith(decoder.blocks[0].name)]
    assert {of_first_block(decoder, one.name) for one in inside if one.reason == ROUTER} == routers


@pytest.mark.parametrize(
    "family", [name for name, (_, routers) in EXPECTED.items() if routers and name not in ROUTES_WRONG]
)
def test_with_routers_of_zeros_all_tokens_go_to_the_same_experts(family):
    model = build(family)
    decoder = find_decoder(model)
    tokens = windows()

    def share_of_tokens() -> set[float]:
        seen: dict[str, float] = {}

        def count(linears, rows):
            seen[linears[0].name] = int(rows.any(dim=-1).sum()) / tokens.numel()

        experts = [one for one in decoder.linears if one.routed]
        with torch.no_grad(), unfused_experts(model), Watch(experts, before=count):
            model(tokens)
        return set(seen.values())

    assert share_of_tokens() - {0.0, 1.0}
    for item in decoder.excluded:
        if item.reason == ROUTER:
            model.get_submodule(item.name).weight.data.zero_()
    assert share_of_tokens() <= {0.0, 1.0}


@pytest.mark.parametrize("family", EXPECTED)
def test_a_dense_run_refuses_nothing(family):
    assert prune_model(build(family), PruneConfig()).zero_weights == 0


def wanda_by_hand(weight: torch.Tensor, inputs: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Return what Wanda keeps of a weight [out in], from all of its inputs [tokens in]."""
    scores = weight.abs() * inputs.norm(dim=0)
    lowest = scores.argsort(dim=1, stable=True)[:, : int(weight.shape[1] * sparsity)]
    return torch.ones_like(weight, dtype=torch.bool).scatter(1, lowest, False)


def inputs_of(model: nn.Module, module: nn.Module) -> torch.Tensor:
    seen = []
    handle = module.register_forward_hook(lambda module, given, output: seen.append(given[0].detach().flatten(0, -2)))
    with torch.no_grad():
        for window in windows():
            model(window[None])
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize(
    ("family", "name"), [("GPT2", "attn.c_attn"), ("Mamba", "mixer.in_proj"), ("Mamba", "mixer.x_proj")]
)
def test_wanda_by_hand(family, name):
    model = build(family)
    block = find_decoder(model).blocks[0]
    module = block.module.get_submodule(name)
    stored = module.weight.detach().clone()
    dense = stored.T if family == "GPT2" else stored
    keep = wanda_by_hand(dense, inputs_of(model, module), 0.5)
    alone = f"^{re.escape(block.name)}.{re.escape(name)}$"
    prune_model(model, PruneConfig(method="wanda", sparsity=0.5, exclude=f"^(?!{alone[1:]})"), windows())
    pruned = module.weight.T if family == "GPT2" else module.weight
    assert torch.equal(pruned, dense * keep)


@pytest.mark.parametrize("family", [name for name in ("Llama4", "Dbrx") if name not in ROUTES_WRONG])
def test_wanda_by_hand_of_an_expert_stored_transposed(family):
    model = build(family)
    decoder = find_decoder(model)
    module = model.model.layers[0].feed_forward if family == "Llama4" else model.transformer.blocks[0].ffn
    seen = inputs_of(model, module)
    if family == "Llama4":
        gate_up, down = module.experts.gate_up_proj.detach().clone(), module.experts.down_proj.detach().clone()
        with torch.no_grad():
            scores, _ = module.router(seen)
        routed = seen * scores[:, 1:2]
        gate, up = (routed @ gate_up[1]).chunk(2, dim=-1)
        inputs, dense = up * silu(gate), down[1].T
    else:
        parts = {
            name: getattr(module.experts.mlp, name).detach().clone().view(3, 24, 32) for name in ("w1", "v1", "w2")
        }
        with torch.no_grad():
            *_, chosen = module.route_tokens_to_experts(module.router(seen)) if IS_5 else module.router(seen)
        routed = seen[(chosen == 1).any(dim=-1)]
        inputs = silu(routed @ parts["w1"][1].T) * (routed @ parts["v1"][1].T)
        dense = parts["w2"][1].T
    keep = wanda_by_hand(dense, inputs, 0.5)
    name = "experts.1.down_proj" if family == "Llama4" else "mlp.1.w2"
    linear = next(one for one in decoder.blocks[0].linears if one.name.endswith(name))
    only = PruneConfig(method="wanda", sparsity=0.5, exclude=f"^(?!{re.escape(linear.name)}$)")
    prune_model(model, only, windows())
    assert torch.equal(linear.weight, dense * keep)


def test_masks_of_a_square_conv1d_are_not_transposed_in_a_stream(tmp_path):
    dense, pruned = build("GPT2"), build("GPT2")
    config = PruneConfig(method="wanda", sparsity=0.5)
    prune_model(pruned, config, windows(), artifacts=tmp_path)
    (folder,) = [path.parent for path in tmp_path.glob(f"*/{TENSORS}")]
    stream = PrunedStream.open(folder)
    stored = {name: value.clone() for name, value in dense.state_dict().items() if name != "lm_head.weight"}
    assert can_stream(stream.names, stored)
    save_file(stored, tmp_path / "dense.safetensors")
    read = dict(stream(stored.items()))
    for name, value in pruned.state_dict().items():
        assert torch.equal(read.get(name, value), value), name
    again = build("GPT2")
    prune_model(again, config, windows(), artifacts=tmp_path)
    assert all(torch.equal(value, pruned.state_dict()[name]) for name, value in again.state_dict().items())


def test_products_of_a_stack_and_of_a_left_weight_are_seen_with_their_own_inputs_and_gradients():
    stack, left = nn.Parameter(torch.randn(2, 3, 4)), nn.Parameter(torch.randn(5, 3))
    holder = nn.Module()
    holder.stack, holder.left = stack, left
    linears = [
        Linear(
            name=f"stack.{index}",
            sublayer="mlp",
            module=holder,
            parameter="stack",
            expert=index,
            members=2,
            transposed=True,
        )
        for index in range(2)
    ]
    linears.append(Linear(name="left", sublayer="mlp", module=holder, parameter="left"))
    inputs, columns = torch.randn(2, 6, 3), torch.randn(3, 7)
    seen, gradients = {}, {}

    def after(watched, given, output):
        (linear,) = watched
        seen[linear.name] = (given, output.detach())
        output.register_hook(lambda gradient: gradients.update({linear.name: gradient}))

    with Watch(linears, after=after):
        (torch.bmm(inputs, stack).sum() + (left @ columns).sum()).backward()
    for index in range(2):
        assert torch.equal(seen[f"stack.{index}"][0], inputs[index])
        torch.testing.assert_close(seen[f"stack.{index}"][1], inputs[index] @ stack[index])
        assert gradients[f"stack.{index}"].shape == (6, 4)
    assert torch.equal(seen["left"][0], columns.T)
    assert gradients["left"].shape == (7, 5)
    assert stack.grad is not None
    assert left.grad is not None


def test_masks_made_under_vmap_are_left_alone():
    layer, seen = nn.Linear(3, 2), []
    linear = Linear(name="layer", sublayer="mlp", module=layer)
    with Watch([linear], before=lambda linears, inputs: seen.append(linears[0].name)):
        mask = torch.vmap(lambda one: one <= torch.arange(3))(torch.arange(4))
        layer(mask.float())
    assert mask.sum() == 6
    assert seen == ["layer"]


def test_a_matrix_that_blocks_share_is_pruned_once():
    shared = nn.Linear(8, 8)
    blocks = nn.ModuleList([nn.ModuleDict({"own": nn.Linear(8, 8), "shared": shared}) for _ in range(2)])
    decoder = find_decoder(nn.ModuleDict({"layers": blocks}))
    assert [linear.name for linear in decoder.linears] == ["layers.0.own", "layers.0.shared", "layers.1.own"]


def test_a_convolution_is_not_a_stack_of_experts_and_is_named():
    block = nn.ModuleDict({"conv": nn.Conv1d(8, 8, 3), "proj": nn.Linear(8, 8), "gate": nn.Linear(8, 1)})
    decoder = find_decoder(nn.ModuleDict({"layers": nn.ModuleList([block])}))
    assert [linear.name for linear in decoder.linears] == ["layers.0.proj"]
    assert {one.name: one.reason for one in decoder.excluded} == {
        "layers.0.conv.weight": "convolution",
        "layers.0.gate": "gate with one output",
    }


def test_excluded_matrices_are_listed_keep_their_weights_and_do_not_count():
    model = build("HunYuanDenseV1")
    name = "model.layers.1.mlp.up_proj"
    dense = model.get_submodule(name).weight.detach().clone()
    config = PruneConfig(method="magnitude", sparsity=0.5, exclude=r"layers\.1\.mlp\.up")
    every = prune_model(build("HunYuanDenseV1"), PruneConfig(method="magnitude", sparsity=0.5))
    report = prune_model(model, config)
    assert torch.equal(model.get_submodule(name).weight, dense)
    assert report.prunable_weights == every.prunable_weights - dense.numel()
    assert report.achieved_sparsity == pytest.approx(0.5)
    assert {"name": name, "reason": rf"exclude={config.exclude}"} in report.excluded
    assert report.fingerprint != every.fingerprint


def test_exclude_is_in_the_settings_that_decide_only_if_given():
    plain = resolve(PruneConfig(method="magnitude", sparsity=0.5))
    assert "exclude" not in plain.determining()


@pytest.mark.parametrize("given", ["(", ""])
def test_a_pattern_that_is_not_one_is_refused_before_a_model_is_there(given):
    with pytest.raises(ArgumentError, match="exclude"):
        PruneConfig(method="magnitude", sparsity=0.5, exclude=given)


def test_a_pattern_that_matches_nothing_is_refused():
    config = PruneConfig(method="magnitude", sparsity=0.5, exclude="up99")
    with pytest.raises(ArgumentError, match="exclude=up99 matches none of the prunable matrices: they are named like"):
        prune_model(build("HunYuanDenseV1"), config)
    with pytest.raises(ArgumentError, match="exclude=up99 matches none"):
        check_fits(resolve(config), build("HunYuanDenseV1").config)
    check_fits(resolve(replace(config, exclude="up_proj")), build("HunYuanDenseV1").config)
    assert prune_model(build("HunYuanDenseV1"), PruneConfig(exclude="up99")).zero_weights == 0


def test_dropping_blocks_takes_no_exclude():
    with pytest.raises(ArgumentError, match="leave exclude=x out"):
        resolve(PruneConfig(method="shortgpt", num_blocks=1, exclude="x"))
