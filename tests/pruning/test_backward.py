"""Gradients block by block, against hooks around one pass through the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.calibration.backward import Backward, choose_backward, kept_inputs
from lm_eval_pruned.pruning.model.decoder import Decoder, find_decoder
from lm_eval_pruned.pruning.model.experts import unfused_experts

from .test_block_calls import build

SIDES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 7, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(0, 61, (3, 20), generator=torch.Generator().manual_seed(5))


def chosen(model: nn.Module, windows: Tensor) -> tuple[Decoder, Backward]:
    decoder = find_decoder(model.requires_grad_(False))
    return decoder, choose_backward(decoder, {block.index: block.linears for block in decoder.blocks}, windows)


def gradients_by_hooks(model: nn.Module, window: Tensor) -> dict[str, Tensor]:
    """Gradients of the loss by what every Linear module writes, in a single backward pass."""
    found: dict[str, Tensor] = {}

    def watch(name: str, output: Tensor) -> None:
        output.register_hook(lambda gradient: found.update({name: gradient.flatten(0, -2).clone()}))

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: watch(name, output))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    model.requires_grad_(True)
    model(input_ids=window[None], labels=window[None], use_cache=False).loss.backward()
    model.requires_grad_(False)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["dense", "mixture"])
def test_gradients_have_the_bits_of_a_pass_through_the_model(kind, dtype, windows, caplog):
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [1, 6]}
    model = (
        Qwen3ForCausalLM(Qwen3Config(**SIDES))
        if kind == "dense"
        else Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIDES, **experts))
    )
    model = model.to(dtype).eval()
    found: list[dict[str, Tensor]] = [{} for _ in windows]
    finished: list[int] = []

    def add(linear, inputs, gradients):
        assert inputs.dtype == gradients.dtype == dtype
        block = int(linear.name.split(".")[2])
        assert block not in finished
        # Windows come in order.
        index = next(index for index, one in enumerate(found) if linear.name not in one)
        found[index][linear.name] = gradients.clone()

    with unfused_experts(model):
        decoder, backward = chosen(model, windows)
        backward([*windows], add, finished.append)
        expected = [gradients_by_hooks(model, window) for window in windows]
    assert not caplog.records
    assert sorted(finished) == [*range(7)]
    modules = {linear.name for linear in decoder.linears} & expected[0].keys()
    assert len(modules) >= 4 * 7
    for ours, other in zip(found, expected, strict=True):
        for name in modules:
            if name in ours or name in other:
                assert torch.equal(ours[name], other[name]), name


@pytest.mark.parametrize("name", ["Llama", "Indexed"])
def test_blocks_that_stand_alone_go_backward_alone(name, windows, caplog):
    chosen(build(name), windows)
    assert not caplog.records


@pytest.mark.parametrize("name", ["Looped", "Accumulating", "Remembering", "Gemma3n", "Gemma4"])
def test_blocks_that_share_values_go_backward_through_the_model(name, windows, caplog):
    chosen(build(name), windows)
    assert "activations of all blocks are held at once" in caplog.text


def test_blocks_that_write_into_their_input_have_no_gradient(windows):
    with pytest.raises(PruningError, match="has no gradient of a loss of token ids"):
        chosen(build("InPlace"), windows)


def test_a_full_device_is_not_taken_for_blocks_that_share_values(windows, monkeypatch):
    model = build("Llama")

    def full(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        chosen(model, windows)


def test_a_model_of_one_block_keeps_no_inputs():
    assert kept_inputs(1, windows=1) == kept_inputs(1, windows=3) == set()
