"""Bytes that a decoding step moves at the shapes of Qwen3-8B, counted operator by operator on fake tensors.

    python benchmarks/decoding_bytes.py

A step of a padded batch, with transformers' cache and with ours, against the least possible: every weight and every
key and value read once. What each operator reads and writes is added up, expanded tensors once; views are free, and
attention counts as one operator that reads queries, keys, values and mask. Takes half a minute; no memory is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.reasoning.backends.growing_layers import room_beyond
from lm_eval_pruned.reasoning.backends.kv_batch import Batch
from lm_eval_pruned.reasoning.backends.kv_cache import grow_in_place

CONFIG = Qwen3Config(
    vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=False,
    dtype=torch.bfloat16, attn_implementation="sdpa",
)  # fmt: skip
CACHE_BYTES_PER_TOKEN = 2 * 2 * CONFIG.num_hidden_layers * CONFIG.num_key_value_heads * CONFIG.head_dim
SHAPES = ((1, 4096), (8, 4096), (23, 4096), (23, 8192), (23, 12288))
H100_BYTES_PER_SECOND = 3.35e12
# Operators that move nothing.
FREE = frozenset(
    {"_unsafe_view", "_reshape_alias", "alias", "as_strided", "detach", "device", "empty", "empty_like", "expand"}
    | {"lift_fresh", "narrow", "new_empty", "permute", "select", "slice", "split", "squeeze", "t", "transpose"}
    | {"unbind", "unsqueeze", "view"}
)


class Moved(TorchDispatchMode):
    """Launches and bytes by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = Counter[str](), Counter[str]()

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in FREE:
            # An operator in place returns its argument, and an embedding reads the rows that it writes.
            read = args[1:] if name == "embedding" else args
            self.add(name, (read, kwargs) if name.endswith("_") else (read, kwargs, result))
        return result

    def add(self, name: str, tensors: object) -> None:
        """Count an operator that reads or writes these tensors."""
        self.launches[name] += 1
        self.bytes[name] += sum(map(size, tree_leaves(tensors)))


def size(leaf: object) -> int:
    """Return the bytes of a tensor; an expanded dimension is read once."""
    if not isinstance(leaf, Tensor):
        return 0
    stored = [length for length, stride in zip(leaf.shape, leaf.stride(), strict=True) if stride]
    return leaf.element_size() * torch.Size(stored).numel()


class AttentionAsOne(TorchFunctionMode):
    """Counts attention as one operator, which a CPU would split."""

    def __init__(self, moved: Moved) -> None:
        super().__init__()
        self.moved = moved

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping | None = None
    ) -> object:
        if func is scaled_dot_product_attention:
            out = torch.empty_like(args[0])
            self.moved.add("attention", (args, kwargs, out))
            return out
        return func(*args, **(kwargs or {}))


class Step(NamedTuple):
    """Operators of a step, the bytes that they read and write, and those of copies of the cache."""

    operators: int
    bytes: float
    copied: float


def with_transformers_cache(model: PreTrainedModel, rows: int, width: int) -> Step:
    batch = batch_of(model, rows, width)
    # The mask that transformers would make, as it cannot ask fake tensors whether anything is padded.
    batch._step_mask = lambda: batch._mask()[:, None, None]  # type: ignore[method-assign]
    moved = counted(batch)
    return Step(moved.launches.total(), moved.bytes.total(), moved.bytes["cat"])


def with_growing_cache(model: PreTrainedModel, rows: int, width: int) -> Step:
    """Count a step that copies the cache to one with room, and the steps until that is used up."""
    batch = batch_of(model, rows, width)
    grow_in_place(batch.cache)
    first, other = counted(batch), counted(batch)
    copied = (first.bytes["copy_"] - other.bytes["copy_"]) / (1 + room_beyond(width + 1))
    return Step(other.launches.total(), other.bytes.total() + copied, other.bytes["copy_"] + copied)


def batch_of(model: PreTrainedModel, rows: int, width: int) -> Batch:
    cache = DynamicCache(config=CONFIG)
    shape = rows, CONFIG.num_key_value_heads, width, CONFIG.head_dim
    for layer in range(CONFIG.num_hidden_layers):
        cache.update(*(torch.empty(shape, dtype=torch.bfloat16) for _ in range(2)), layer)
    return CountedBatch(
        model=model,
        autocast=None,
        forward_arguments=frozenset(signature(model.forward).parameters),
        paddings=[*range(rows)],
        width=width,
        logits=torch.empty(0),
        cache=cache,
    )


class CountedBatch(Batch):
    """A batch whose methods can be replaced."""


def counted(batch: Batch) -> Moved:
    moved = Moved()
    with AttentionAsOne(moved), moved:
        batch.step([0] * len(batch.paddings))
    return moved


@torch.inference_mode()
def main() -> None:
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3ForCausalLM(CONFIG).eval()
    torch.set_default_dtype(torch.float32)
    weights = sum(one.nbytes for name, one in model.named_parameters() if "embed" not in name)
    print("| rows x tokens | least | cache | operators | bytes | of them copies | x least | at 3.35 TB/s |")
    print("|---|---|---|---|---|---|---|---|")
    for rows, width in SHAPES:
        least = weights + rows * width * CACHE_BYTES_PER_TOKEN
        for name, count in (("transformers", with_transformers_cache), ("ours", with_growing_cache)):
            step = count(model, rows, width)
            figures = (f"{step.bytes / 1e9:.1f} GB", f"{step.copied / 1e9:.1f}", f"{step.bytes / least:.2f}")
            milliseconds = f"{step.bytes / H100_BYTES_PER_SECOND * 1e3:.1f} ms"
            print(
                "",
                f"{rows} x {width:,}",
                f"{least / 1e9:.1f} GB",
                name,
                step.operators,
                *figures,
                milliseconds,
                "",
                sep=" | ",
            )


if __name__ == "__main__":
    with FakeTensorMode():
        main()
