"""Stand-in weights: a model of any size runs on a few tokens in little memory, to compare what two configs compute.

All parameters are views of one short random buffer, so that nothing is read and no memory is needed but for the largest
matrix. Constants, masks and the order of the blocks decide the outputs of such a model as they do with real weights.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from math import gcd, prod, sqrt
from zlib import crc32

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.pruning.model.empty import empty_weights

# More tokens than the windows below, so that a sliding window or a chunk differs from full attention.
TOKENS = 11
_WINDOW = 4
_WINDOWS = re.compile(r"window(_size)?$|attention_chunk_size$|window_sizes?$")
# Names of config fields that count the channels of an MLP, and how many are enough to see that two models differ.
CHANNELS = re.compile(r"intermediate|ffn|inner|d_?ff$|dim_ff|hidden_dim$")
FEW_CHANNELS = 48
# Names of config fields that count heads, and a width that is enough to see that two models differ.
_HEADS = ("num_attention_heads", "num_key_value_heads")
_NARROW = 256
# Different parameters begin at different places of the buffer, fused experts this far apart.
_PLACES = 4099
_STEP = 61
_SCALE = 0.06
# Names of the cache in the output of a model, and in its arguments; the first is that of the newest releases.
_CACHES = ("cache", "past_key_values", "cache_params", "state")


def build_empty(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Build a model of a config with its parameters on the meta device; attention windows are short, kernels eager."""
    config = deepcopy(config)
    for one in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in vars(one).items():
            if _WINDOWS.search(name) and isinstance(value, int) and not isinstance(value, bool) and value > _WINDOW:
                vars(one)[name] = _WINDOW
        for kernels in ("_attn_implementation_internal", "_experts_implementation_internal"):
            if kernels in vars(one):
                vars(one)[kernels] = "eager"
        # `save_pretrained` leaves its name in place of a dtype, with which Apertus cannot be built.
        if isinstance(named := vars(one).get("dtype"), str):
            vars(one)["dtype"] = getattr(torch, named)
    # Buffers are computed, because constants are among them.
    with warnings.catch_warnings(), empty_weights():
        # A config that is only tried may have parameters without elements.
        warnings.simplefilter("ignore")
        model = model_class(config)
    model.train(False)
    return model


def few_channels(config: PretrainedConfig) -> dict[str, int]:
    """Return the fields with which the MLPs of a model have few channels: what its blocks compute costs less then."""
    fields = config.get_text_config().to_dict()
    wide = (name for name, value in fields.items() if type(value) is int and value > FEW_CHANNELS)
    return {name: FEW_CHANNELS for name in wide if CHANNELS.search(name)}


def fewer_heads(config: PretrainedConfig) -> dict[str, int]:
    """Return the fields with which a model is narrower by a common factor of its width and its numbers of heads.

    Heads keep their size. A model whose other fields depend on its width cannot be built from these.

    Example:
        >>> from transformers import Qwen3Config
        >>> fewer_heads(Qwen3Config(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8))
        {'hidden_size': 512, 'num_attention_heads': 4, 'num_key_value_heads': 1}
    """
    text = config.get_text_config()
    fields = text.to_dict()
    width, *heads = (text.attribute_map.get(name, name) for name in ("hidden_size", *_HEADS))
    counts = {name: value for name in (width, *heads) if type(value := fields.get(name)) is int and value > 0}
    if width not in counts or len(counts) < 2:
        return {}
    common = gcd(*counts.values())
    factors = [one for one in range(2, common + 1) if common % one == 0 and counts[width] // one >= _NARROW]
    return {name: value // factors[-1] for name, value in counts.items()} if factors else {}


def fill(model: PreTrainedModel, given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Give every parameter the `given` value of its name, or else a stand-in, and return all by name."""
    outside = {module for module in model.modules() if isinstance(module, nn.Embedding)}
    outside |= {model.get_output_embeddings()}  # type: ignore[no-untyped-call]
    owners = [
        (f"{prefix}.{own}" if prefix else own, module, own, value)
        for prefix, module in model.named_modules()
        for own, value in module.named_parameters(recurse=False)
    ]
    sizes = (sum(one.shape) if module in outside else prod(one.shape[-2:]) for _, module, _, one in owners)
    noise = torch.randn(max(sizes) + 2 * _PLACES + _STEP * 1024, generator=torch.Generator().manual_seed(0)) * _SCALE

    @cache
    def scaled(gain: float) -> Tensor:
        return noise * gain if gain > 1 else noise

    values: dict[str, Tensor] = {}
    shared: dict[nn.Parameter, Tensor] = {}
    for name, module, own, value in owners:
        if value not in shared:
            known = None if given is None else given.get(name)
            dense = module not in outside
            shared[value] = _stand_in(name, value.shape, scaled, dense=dense) if known is None else known
        values[name] = shared[value]
        module._parameters[own] = nn.Parameter(shared[value], requires_grad=False)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    return values


def _stand_in(name: str, shape: Sequence[int], scaled: Callable[[float], Tensor], *, dense: bool) -> Tensor:
    """Return a view [shape] of the buffer; matrices that are multiplied by are contiguous, others overlap.

    `scaled` returns the buffer with a gain.
    """
    start = crc32(name.encode()) % _PLACES
    if len(shape) < 2:
        return 1 + scaled(1.0)[start : start + prod(shape)].reshape(tuple(shape))
    *leading, _, columns = shape
    strides = [_STEP] * len(leading) + [columns if dense else 1, 1]
    # In narrow models, too, a difference in one block has to be seen above rounding.
    gain = max(2 / sqrt(columns) / _SCALE, 1.0) if dense else 1.0
    return scaled(gain).as_strided(tuple(shape), strides, start)


@torch.no_grad()
def outputs_of(
    model: PreTrainedModel, blocks: Sequence[nn.Module], bypassed: Sequence[nn.Module] = (), *, cached: bool
) -> list[Tensor]:
    """Return what blocks write for a few tokens, and for one more from the cache; the last entries enter the head.

    Args:
        model: the model, whose head is not computed.
        blocks: the blocks to observe.
        bypassed: blocks that run, but pass their input on.
        cached: whether the model has a cache; without one, all tokens are run at once.
    """
    found: list[Tensor] = []

    def observe(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
        del module, arguments
        found.append(_first(output).clone())

    def bypass(
        module: nn.Module, arguments: tuple[object, ...], keywords: Mapping[str, object], output: object
    ) -> object:
        del module
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handles = [block.register_forward_hook(observe) for block in blocks]
    handles += [block.register_forward_hook(bypass, with_kwargs=True) for block in bypassed]
    ids = (torch.arange(TOKENS)[None] * 7 + 5) % min(model.config.get_text_config().vocab_size, 97)
    with _without_head(model, found):
        try:
            output = model(input_ids=ids[:, :-1] if cached else ids, use_cache=cached)
            for name in _CACHES:
                if cached and output.get(name) is not None:
                    model(input_ids=ids[:, -1:], use_cache=True, **{name: output[name]})
                    break
        finally:
            for handle in handles:
                handle.remove()
    return found


@contextmanager
def _without_head(model: PreTrainedModel, found: list[Tensor]) -> Iterator[None]:
    """Record what the head is given instead of computing it: its matrix may be the largest of the model."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear):
        yield
        return

    def record(hidden: Tensor) -> Tensor:
        found.append(hidden.clone())
        return hidden[..., :1].expand(*hidden.shape[:-1], head.out_features)

    head.forward = record  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward


def _first(output: object) -> Tensor:
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, Tensor)
    return first
