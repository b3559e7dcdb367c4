"""Compare models that were built without weights from two configs: attributes, tensors, and outputs on stand-ins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_pruned.pruning.model.stand_in import outputs_of

# Relative to the largest output; two orders of summation differ by less, two constants by more.
_TOLERANCE = 1e-5
# Attributes that every module has.
OF_ALL_MODULES = frozenset({*vars(nn.Module()), "config", "generation_config", "name_or_path"})
# What building or running a model raises if its config or its stand-in weights do not fit.
MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, StopIteration),
    *(TypeError, ValueError),
    StrictDataclassError,
)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a model, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def differing_attributes(module: nn.Module, other: nn.Module) -> Iterator[tuple[str, object]]:
    """Yield the plain attributes of `other` that differ from those of `module`."""
    for name, value in vars(other).items():
        if name not in OF_ALL_MODULES and _is_plain(value) and vars(module).get(name, value) != value:
            yield name, value


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple | set):
        return all(map(_is_plain, value))
    return isinstance(value, int | float | str | None)


class Dense(NamedTuple):
    """What blocks of a dense model write, as `outputs_of` returns it, and whether the model has a cache."""

    outputs: Sequence[Tensor]
    cached: bool


def run_dense(model: PreTrainedModel, blocks: Sequence[nn.Module], bypassed: Sequence[nn.Module] = ()) -> Dense:
    """Run a model on a few tokens with its cache, or without where it runs only so; arguments as in `outputs_of`.

    Raises:
        FloatingPointError: its outputs are not finite, so that they cannot be compared.
    """
    try:
        dense = Dense(outputs_of(model, blocks, bypassed, cached=True), cached=True)
    except MISFITS:
        dense = Dense(outputs_of(model, blocks, bypassed, cached=False), cached=False)
    if not all(bool(output.isfinite().all()) for output in dense.outputs):
        raise FloatingPointError("what it computes from random weights is not finite")
    return dense


def first_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> int | None:
    """Return the place of the first of some outputs that differs from what was expected."""
    if len(expected) != len(found):
        return len(expected)
    for place, (one, other) in enumerate(zip(expected, found, strict=True)):
        atol = _TOLERANCE * float(one.abs().max())
        if one.shape != other.shape or not torch.allclose(one, other, rtol=0, atol=atol):
            return place
    return None


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or its name where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
