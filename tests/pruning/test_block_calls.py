"""Calibration of models that call their blocks in other ways than one after another, against whole forward passes."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.allocations.signals.influence import influences
from lm_eval_pruned.pruning.allocations.signals.kinds import AllocationGroup, DenseModel
from lm_eval_pruned.pruning.calibration.recording import record
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.sequential import block_influences

from . import reference

SMALL = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8,
    "vocab_size_per_layer_input": 61, "hidden_size_per_layer_input": 8,
}  # fmt: skip


class Looped(LlamaForCausalLM):
    """Runs its blocks twice, and computes between the loops."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.forward = self.run_twice

    def run_twice(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
        hidden = start = self.model.embed_tokens(input_ids)
        positions = self.model.rotary_emb(hidden, torch.arange(input_ids.shape[1])[None])
        for _loop in range(2):
            for block in self.model.layers:
                hidden = block(hidden, position_embeddings=positions)
            hidden = self.model.norm(hidden) + start
        return SimpleNamespace(last_hidden_state=hidden, past_key_values=None, hidden_states=None, attentions=None)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **_: object) -> SimpleNamespace:
        logits = self.lm_head(self.run_twice(input_ids).last_hidden_state)
        loss = None if labels is None else nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:])
        return SimpleNamespace(logits=logits, loss=loss)


class Accumulating(Looped):
    """Each block is called once, with the sum of what all blocks before it wrote."""

    def run_twice(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
        hidden = total = self.model.embed_tokens(input_ids)
        positions = self.model.rotary_emb(hidden, torch.arange(input_ids.shape[1])[None])
        for block in self.model.layers:
            hidden = block(total, position_embeddings=positions)
            total = total + hidden
        return SimpleNamespace(last_hidden_state=hidden)


class InPlace(nn.Module):
    """A block that writes into its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, **keywords: object) -> Tensor:
        hidden_states += self.block(hidden_states, **keywords)
        return hidden_states


class Remembering(InPlace):
    """Adds a mean that the first block kept of its input, in an object of their own, in each block after it."""

    index = 0
    memory: dict[str, Tensor]

    def forward(self, hidden_states: Tensor, **keywords: object) -> Tensor:
        if self.index == 0:
            self.memory["mean"] = hidden_states.mean(1, keepdim=True)
            return self.block(hidden_states, **keywords)
        return self.block(hidden_states + self.memory["mean"], **keywords)


class Indexed(Remembering):
    """Scales its input by its index: equal arguments, different results."""

    def forward(self, hidden_states: Tensor, **keywords: object) -> Tensor:
        return self.block(hidden_states * (1 + self.index), **keywords)


class Alternating(Remembering):
    """Halves the output of every second call, but in the third block alone."""

    calls = 0

    def forward(self, hidden_states: Tensor, **keywords: object) -> Tensor:
        self.calls += self.index == 2
        return self.block(hidden_states, **keywords) / (1 + self.calls % 2)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    llama = LlamaConfig(**{name: SMALL[name] for name in SMALL if "layer_" not in name and "sliding" not in name})
    if name in ("Looped", "Accumulating"):
        return {"Looped": Looped, "Accumulating": Accumulating}[name](llama).eval()
    if name == "Llama":
        return LlamaForCausalLM(llama).eval()
    if name in WRAPPERS:
        model = LlamaForCausalLM(llama).eval()
        model.model.layers = nn.ModuleList([WRAPPERS[name](block) for block in model.model.layers])
        memory: dict[str, Tensor] = {}
        for index, block in enumerate(model.model.layers):
            block.index, block.memory = index, memory
        return model
    extra = {
        "Gemma3n": {"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 4, "laurel_rank": 4},
        "Gemma4": {"num_kv_shared_layers": 2, "global_head_dim": 8},
    }[name]
    if name == "Gemma3n" and Version(transformers.__version__).major < 5:
        pytest.skip("before transformers 5, Gemma 3n shares keys and values through a cache alone")
    kind = {"Gemma3n": "Gemma3nText", "Gemma4": "Gemma4Text"}[name]
    if not hasattr(transformers, f"{kind}Config"):
        pytest.skip(f"this transformers has no {kind}")
    config = getattr(transformers, f"{kind}Config")(**SMALL, **extra)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


WRAPPERS = {kind.__name__: kind for kind in (InPlace, Remembering, Indexed, Alternating)}
REPLAYED = ["Llama", "Indexed", "Gemma3n", "Gemma4"]
WHOLE = ["Looped", "Accumulating", "InPlace", "Remembering"]


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(3, 61, (4, 20), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", [*REPLAYED, *WHOLE, "Alternating"])
def test_only_blocks_that_can_be_called_one_by_one_are(name, windows):
    assert (record(find_decoder(build(name)), windows) is None) == (name not in REPLAYED)


@pytest.mark.parametrize("propagate", ["pruned", "dense"])
@pytest.mark.parametrize("name", REPLAYED + WHOLE)
def test_wanda_equals_hooks_around_whole_passes(name, propagate, windows):
    model = build(name)
    expected = copy.deepcopy(model) if name in REPLAYED else build(name)
    reference.wanda_in_place(expected, windows, 0.5, propagate=propagate)
    prune_model(model, PruneConfig(method="wanda", sparsity=0.5, propagate=propagate), windows)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


@pytest.mark.parametrize("name", ["Llama", "Gemma3n", "Looped", "Accumulating"])
def test_influences_are_those_of_the_gradients_of_parameters(name, windows):
    model = build(name)
    decoder = find_decoder(model)
    group = AllocationGroup.of(decoder, ["attn", "mlp"])
    found = influences(DenseModel(decoder, [group], windows), PruneConfig())[0]

    def gradient(window: Tensor) -> list[Tensor]:
        model.zero_grad()
        logits = model(window[None]).logits[0, :-1]
        nn.functional.cross_entropy(logits, window[1:]).backward()
        return [torch.cat([one.weight.grad.double().flatten() for one in linears]) for linears in group.blocks]

    held_out, expected = gradient(windows[-1]), torch.zeros(4, dtype=torch.float64)
    for window in windows[:-1]:
        dots = [float(one @ other) for one, other in zip(gradient(window), held_out, strict=True)]
        expected += torch.tensor(dots, dtype=torch.float64).clamp(min=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_products_without_a_gradient_count_as_zero(windows):
    model = build("Llama")
    attention = model.model.layers[1].self_attn
    attention.q_proj.forward = torch.no_grad()(attention.q_proj.forward)
    decoder = find_decoder(model)
    group = AllocationGroup((*[(block.linears[0],) for block in decoder.blocks],))
    found = influences(DenseModel(decoder, [group], windows), PruneConfig())[0]
    assert found[1] == 0
    assert found.count_nonzero() > 0


def test_the_influence_of_a_looped_block_is_the_mean_over_its_calls(windows):
    shortgpt = METHODS["shortgpt"].influence
    model, seen = build("Looped"), [[] for _ in range(4)]
    found = block_influences(find_decoder(model), windows, METHODS["shortgpt"])
    for index, block in enumerate(model.model.layers):
        block.register_forward_hook(
            lambda module, inputs, output, index=index: seen[index].append(shortgpt(inputs[0], output).mean())
        )
    with torch.no_grad():
        for window in windows:
            model(window[None])
    assert [len(calls) for calls in seen] == [8] * 4
    assert found == [float(torch.stack(calls).mean()) for calls in seen[:-1]]


def test_equal_arguments_of_windows_are_one_tensor(windows):
    activations = record(find_decoder(build("Llama")), windows).activations
    cosines = {id(call.keywords["position_embeddings"][0]) for calls in activations.calls for call in calls}
    assert len(cosines) == 1
    different = record(find_decoder(build("Gemma3n")), windows).activations
    inputs = {id(call.arguments[1]) for calls in different.calls for call in calls}
    assert len(inputs) == 4 * len(windows)
    containers = {id(call.keywords["shared_kv_states"]) for calls in different.calls for call in calls}
    assert len(containers) == len(windows)


def test_a_full_device_is_not_taken_for_a_block_that_cannot_be_replayed(windows):
    model, calls = build("Llama"), []
    forward = model.model.layers[1].forward

    def full_once(*arguments: object, **keywords: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("CUDA error: out of memory")
        return forward(*arguments, **keywords)

    model.model.layers[1].forward = full_once
    with pytest.raises(RuntimeError, match="out of memory"):
        record(find_decoder(model), windows)


def test_a_block_that_is_never_called_is_named(windows):
    model = build("Looped")
    model.model.layers[2].forward = lambda hidden, **_: hidden
    with pytest.raises(PruningError, match=r"model\.layers\.2\.self_attn\.q_proj is never called"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.5), windows)
