"""LayerIF's influence signal: dot products of training gradients with a held-out gradient.

The gradient of one sample for a Linear with inputs x_t and output gradients d_t is sum_t d_t x_t^T. Its dot product
with the held-out gradient G is sum_t d_t . (G x_t), which costs one matrix product and never forms the gradient itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal
from lm_eval_pruned.pruning.calibration.backward import choose_backward, kept_inputs
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.model.experts import unfused_experts
from lm_eval_pruned.pruning.model.flops import Work, gradient_dot_products
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape
from lm_eval_pruned.pruning.products import float32_product

# One in this many windows, at the end, is held out.
HELD_OUT = 4


def influences(dense: DenseModel, config: PruneConfig) -> Float[Tensor, "groups blocks"]:
    """Return S = sum_i max(0, G . g_i) for every allocation group and block.

    g_i is the gradient of the mean token loss of sample i, and G its mean over the last quarter of the samples, which
    the sum leaves out.

    Raises:
        ArgumentError: there are fewer than two samples, or only samples of one token.
        PruningError: the weights are float16, in which gradients underflow, or a gradient is not finite.

    Reference: arXiv 2604.25098, after Askari et al. 2025, arXiv 2505.23811, with the identity for the Hessian.
    """
    del config
    decoder, windows = dense.decoder, dense.required_windows()
    wanted = {
        block.index: [linear for group in dense.groups for linear in group.blocks[block.index]]
        for block in decoder.blocks
    }
    linears = {linear.name: linear for in_block in wanted.values() for linear in in_block}
    check_gradients(len(windows), {linear.weight.dtype for linear in linears.values()})
    count = held_out_windows(len(windows))
    training, held_out = windows[:-count], windows[-count:]
    if min(max(len(window) for window in part) for part in (training, held_out)) < 2:
        raise ArgumentError("alloc=layerif needs windows of at least two tokens: one token predicts nothing")
    mean_gradients: dict[str, Tensor] = {}

    def accumulate(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        product = float32_product(gradients.T, inputs) / len(held_out)
        known = mean_gradients.get(linear.name)
        mean_gradients[linear.name] = product if known is None else known.add_(product)

    dots: dict[str, Tensor] = {}

    def dot(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        if linear.name in mean_gradients:
            along = torch.nn.functional.linear(inputs, mean_gradients[linear.name])
            found = (along.float() * gradients.float()).sum().double()
            dots[linear.name] = dots[linear.name] + found if linear.name in dots else found

    total = torch.zeros(len(dense.groups), len(decoder.blocks), dtype=torch.float64)
    with (
        _frozen(decoder.model),
        unfused_experts(decoder.model),
        progress_bar(len(windows) * len(decoder.blocks), desc="layerif", unit="window") as progress,
    ):

        def round_sums(index: int) -> None:
            # In the dtype of the weights, in which they are multiplied, they take half the memory.
            for linear in wanted[index]:
                if linear.name in mean_gradients:
                    mean_gradients[linear.name] = mean_gradients[linear.name].to(linear.weight.dtype)
            progress.update(len(held_out))

        backward = choose_backward(decoder, wanted, windows)
        backward(held_out, accumulate, round_sums)
        for index in range(len(training)):
            dots.clear()
            # A slice knows which of its tokens count.
            backward(training[index : index + 1], dot, lambda _: progress.update())
            # One wait for the device in a window.
            together = torch.stack([one.to(decoder.device) for one in dots.values()]).tolist() if dots else []
            values = dict(zip(dots, together, strict=True))
            of_sample = [
                [sum(values.get(one.name, 0.0) for one in in_block) for in_block in g.blocks] for g in dense.groups
            ]
            total += torch.tensor(of_sample, dtype=torch.float64).clamp(min=0)
    if not total.isfinite().all():
        raise PruningError("a gradient is not finite: check the checkpoint and its dtype")
    return total


def held_out_windows(windows: int) -> int:
    """Return how many of the windows, at the end, are held out."""
    return max(1, windows // HELD_OUT)


def check_gradients(samples: int, dtypes: Collection[torch.dtype]) -> None:
    """Check that influences can be computed from this number of samples with weights of these dtypes.

    Raises:
        ArgumentError: there are fewer than two samples.
        PruningError: a dtype is float16, in which gradients underflow.
    """
    if samples < 2:
        raise ArgumentError("alloc=layerif needs at least two calibration samples, one of them held out")
    if torch.float16 in dtypes:
        raise PruningError("gradients in float16 underflow: load with dtype=bfloat16 or float32 for alloc=layerif")


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter accumulate a gradient for a `with` block."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, needed in before.items():
            parameter.requires_grad_(needed)


def _work(architecture: Architecture, windows: WindowShape, config: PruneConfig) -> Work:
    del config
    blocks, held_out = len(architecture.blocks), held_out_windows(windows.samples)
    return gradient_dot_products(architecture, windows, held_out, kept_inputs(blocks, held_out))


INFLUENCE = Signal(
    name="influence",
    needs=Needs.GRADIENTS,
    measure=influences,
    work=_work,
    description="how far gradients agree with held-out ones in each block",
    least_windows=2,
    is_stored=True,
)
