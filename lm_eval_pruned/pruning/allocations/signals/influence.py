"""Influence: dot products of training gradients with a held-out gradient, without ever holding a training gradient.

Of a Linear with inputs x_t and output gradients d_t, the gradient of one sample is sum_t d_t x_t^T. Its dot product
with the held-out gradient G is sum_t d_t . (G x_t): one product with a matrix, in place of the one of the same size
that would make the gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.model.decoder import Block, Linear
from lm_eval_pruned.pruning.model.experts import one_by_one

Absorb = Callable[[Linear, Tensor, Tensor], None]

# One in so many samples, at the end, is held out.
HELD_OUT = 4


def influences(
    model: nn.Module,
    blocks: Sequence[Block],
    scoped: Sequence[Sequence[Sequence[Linear]]],
    windows: Windows,
) -> Float[Tensor, "groups blocks"]:
    """Return S = sum_i max(0, G . g_i) for every group of Linears and block, in the order of `scoped`.

    g_i is the gradient of the mean token loss of sample i, G the mean of it over the last quarter of the samples, which
    the sum leaves out.

    Raises:
        ArgumentError: there are fewer than two samples.
        PruningError: the weights are float16, whose gradients underflow, or a gradient is not finite.

    Reference: arXiv 2604.25098, after Askari et al. 2025, arXiv 2505.23811, with the identity for the Hessian.
    """
    linears = [linear for group in scoped for of_block in group for linear in of_block]
    check_gradients(len(windows), {linear.weight.dtype for linear in linears})
    training, held_out = windows[: -_held_out(windows)], windows[-_held_out(windows) :]
    mean_gradients: dict[str, Tensor] = {}

    def add(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        product = gradients.float().T @ inputs.float() / len(held_out)
        known = mean_gradients.get(linear.name)
        mean_gradients[linear.name] = product if known is None else known.add_(product)

    dots: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))

    def dot(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        if linear.name in mean_gradients:
            along = torch.nn.functional.linear(inputs, mean_gradients[linear.name].to(inputs.dtype))
            dots[linear.name] = dots[linear.name] + (along.float() * gradients.float()).sum().double().cpu()

    total = torch.zeros(len(scoped), len(blocks), dtype=torch.float64)
    with (
        _differentiable_from(blocks[0].module, model),
        one_by_one(model),
        tqdm(total=len(windows), desc="layerif", unit="sample", disable=None) as progress,
    ):
        for window in held_out:
            _backward(model, linears, window, add)
            progress.update()
        for window in training:
            dots.clear()
            _backward(model, linears, window, dot)
            of_sample = [[sum(float(dots[one.name]) for one in of_block) for of_block in group] for group in scoped]
            total += torch.tensor(of_sample, dtype=torch.float64).clamp(min=0)
            progress.update()
    if not total.isfinite().all():
        raise PruningError("a gradient is not finite: check the checkpoint and its dtype")
    return total


def check_gradients(samples: int, dtypes: Collection[torch.dtype]) -> None:
    """Raise where influences cannot be computed from so many samples, or with weights of these dtypes.

    Raises:
        ArgumentError: there are fewer than two samples.
        PruningError: a dtype is float16, in which gradients underflow.
    """
    if samples < 2:
        raise ArgumentError("alloc=layerif needs at least two calibration samples, one of them held out")
    if torch.float16 in dtypes:
        raise PruningError("gradients in float16 underflow: load with dtype=bfloat16 or float32 for alloc=layerif")


def _held_out(windows: Windows) -> int:
    return max(1, len(windows) // HELD_OUT)


def _backward(model: nn.Module, linears: Sequence[Linear], window: Tensor, absorb: Absorb) -> None:
    """Run a window forwards and backwards; `absorb` gets inputs and output gradients [tokens ...] of every Linear."""

    def hook(watched: Sequence[Linear], inputs: Tensor, outputs: Tensor) -> None:
        kept = inputs.detach().flatten(0, -2)

        def on_gradient(gradient: Tensor) -> None:
            rows = gradient.flatten(0, -2)
            for linear in watched:
                absorb(linear, kept, rows[:, linear.rows])

        outputs.register_hook(on_gradient)  # type: ignore[no-untyped-call]

    ids = window[None].to(next(model.parameters()).device)
    with torch.enable_grad():
        with Watch(linears, behind=hook):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()


@contextmanager
def _differentiable_from(block: nn.Module, model: nn.Module) -> Iterator[None]:
    """Differentiate by the hidden states alone, from the first block on: no parameter collects a gradient."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}

    def start(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        assert isinstance(hidden, Tensor)
        hidden.requires_grad_(True)

    handle = block.register_forward_pre_hook(start, with_kwargs=True)
    model.requires_grad_(False)
    try:
        yield
    finally:
        handle.remove()
        for parameter, needed in before.items():
            parameter.requires_grad_(needed)
