"""Build models without memory for their weights: parameters on the meta device, buffers computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Elements from which a new tensor is taken for a parameter: the experts of one block of DeepSeek-V3 would be 30 GB.
LARGE = 1 << 28
# Not `ones` and `full`, of which causal masks are made: buffers of that size from 16,384 positions on.
_FACTORIES = {torch.empty, torch.zeros, torch.rand, torch.randn}
# Functions that initialise a parameter, by name, as transformers has its own in place of PyTorch's. On the meta device
# each call takes half a millisecond and draws nothing.
_DRAWS = {"normal_", "uniform_", "kaiming_uniform_"}


@contextmanager
def empty_weights() -> Iterator[None]:
    """Put every parameter that is created in a `with` block on the meta device; buffers keep their values.

    `init_empty_weights` of accelerate moves a parameter there after it was allocated, so that the largest one of the
    model has to fit the memory.
    """
    with _WithoutWeights(), init_empty_weights(include_buffers=False):
        yield


class _WithoutWeights(TorchFunctionMode):
    """Makes large tensors on the meta device in the first place, and initialises nothing there."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Call `func`, a factory of a large tensor with the meta device; return a meta tensor as it is."""
        del types
        keywords = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS:
            given: Tensor = args[0] if args else keywords["tensor"]
            if given.is_meta:
                return given
        if func in _FACTORIES and _elements(args, keywords) >= LARGE:
            keywords["device"] = "meta"
        return func(*args, **keywords)


def _elements(args: Sequence[Any], keywords: Mapping[str, Any]) -> int:
    """Return the number of elements of the tensor that a factory makes, from its shape, given as one or as numbers."""
    sizes = args or (keywords.get("size", ()),)
    shape = sizes[0] if isinstance(sizes[0], Sequence) else [one for one in sizes if isinstance(one, int)]
    return prod(shape)
