"""Put a model onto one pretend device, or onto two as accelerate's `device_map` does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.gpu_rehearsal.tensor import PretendTensor, bare, device_of


def place_module(module: nn.Module, place: Callable[[str], torch.device]) -> nn.Module:
    """Move parameters and buffers, each to where `place` says by its name; tied parameters stay tied."""
    moved: dict[Tensor, nn.Parameter] = {}
    for prefix, part in module.named_modules():
        for name, value in part.named_parameters(recurse=False):
            if value not in moved:
                held = bare(value.detach()).clone()
                moved[value] = nn.Parameter(PretendTensor(held, place(f"{prefix}.{name}")), value.requires_grad)
            part._parameters[name] = moved[value]
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = PretendTensor(bare(buffer.detach()).clone(), place(f"{prefix}.{name}"))
    return module


def on_one_device(model: PreTrainedModel) -> PreTrainedModel:
    """Put the whole model onto `cuda:0`."""
    place_module(model, lambda name: device_of(0))
    return model


def on_two_devices(model: PreTrainedModel) -> PreTrainedModel:
    """Put the second half of the blocks and what follows them onto `cuda:1`, with hooks that move the activations."""
    blocks = model.model.layers
    tied = model.config.tie_word_embeddings

    def index(name: str) -> int:
        if name.startswith("model.layers."):
            return int(int(name.split(".")[2]) >= len(blocks) // 2)
        return int(name.startswith("model.norm") or (name.startswith("lm_head") and not tied))

    def follow(module: nn.Module, name: str, *, returns: bool = False) -> None:
        add_hook_to_module(
            module,
            AlignDevicesHook(
                execution_device=device_of(index(name)), io_same_device=returns, skip_keys="past_key_values"
            ),
        )

    place_module(model, lambda name: device_of(index(name)))
    for number, block in enumerate(blocks):
        follow(block, f"model.layers.{number}")
    for name in ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"):
        follow(model.get_submodule(name), name)
    follow(model, "", returns=True)
    return model
