"""LayerIF's influence signal: dot products of training gradients with a held-out gradient.

The gradient of one sample for a Linear with inputs x_t and output gradients d_t is sum_t d_t x_t^T. Its dot product
with the held-out gradient G is sum_t d_t . (G x_t), which costs one matrix product and never forms the gradient itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.process_memory import is_out_of_memory
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.allocations.signals.kinds import DenseModel, Needs, Signal
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.product_hook import Watch
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.model.experts import unfused_experts
from lm_eval_pruned.pruning.model.flops import Work, gradient_dot_products
from lm_eval_pruned.pruning.model.shapes import Architecture, WindowShape

# Takes a Linear, its inputs [tokens in] and its output gradients [tokens out].
OnGradient = Callable[[Linear, Tensor, Tensor], None]

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
    model, blocks, windows = dense.decoder.model, dense.decoder.blocks, dense.required_windows()
    linears = [linear for group in dense.groups for in_block in group.blocks for linear in in_block]
    check_gradients(len(windows), {linear.weight.dtype for linear in linears})
    training, held_out = windows[: -_held_out(windows)], windows[-_held_out(windows) :]
    if min(max(len(window) for window in part) for part in (training, held_out)) < 2:
        raise ArgumentError("alloc=layerif needs windows of at least two tokens: one token predicts nothing")
    mean_gradients: dict[str, Tensor] = {}

    def accumulate(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        product = gradients.float().T @ inputs.float() / len(held_out)
        known = mean_gradients.get(linear.name)
        mean_gradients[linear.name] = product if known is None else known.add_(product)

    dots: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))

    def dot(linear: Linear, inputs: Tensor, gradients: Tensor) -> None:
        if linear.name in mean_gradients:
            along = torch.nn.functional.linear(inputs, mean_gradients[linear.name].to(inputs.dtype))
            dots[linear.name] = dots[linear.name] + (along.float() * gradients.float()).sum().double().cpu()

    total = torch.zeros(len(dense.groups), len(blocks), dtype=torch.float64)
    with (
        _frozen(model),
        unfused_experts(model),
        progress_bar(len(windows), desc="layerif", unit="sample") as progress,
    ):
        for window in held_out:
            _backward(model, linears, window, accumulate)
            progress.update()
        for window in training:
            dots.clear()
            _backward(model, linears, window, dot)
            of_sample = [
                [sum(float(dots[one.name]) for one in in_block) for in_block in g.blocks] for g in dense.groups
            ]
            total += torch.tensor(of_sample, dtype=torch.float64).clamp(min=0)
            progress.update()
    if not total.isfinite().all():
        raise PruningError("a gradient is not finite: check the checkpoint and its dtype")
    return total


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


def _held_out(windows: Windows) -> int:
    return max(1, len(windows) // HELD_OUT)


def _backward(model: nn.Module, linears: Sequence[Linear], window: Tensor, on_gradient: OnGradient) -> None:
    """Run one window forward and backward, and call `on_gradient` for every Linear."""

    def hook(watched: Sequence[Linear], inputs: Tensor, outputs: Tensor) -> None:
        rows_in = inputs.detach().flatten(0, -2)

        def split(gradient: Tensor) -> None:
            rows_out = gradient.flatten(0, -2)
            for linear in watched:
                on_gradient(linear, rows_in, rows_out[:, linear.rows])

        # A product under no_grad (an indexer that only chooses tokens) has no gradient, which counts as zero.
        if outputs.requires_grad:
            outputs.register_hook(split)  # type: ignore[no-untyped-call]

    ids = window[None].to(next(model.parameters()).device)
    try:
        with torch.enable_grad():
            with Watch(linears, before=_differentiable, after=hook):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
    except PruningError:
        raise
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise PruningError(
            f"{type(model).__name__} has no gradient of a loss of token ids, which alloc=layerif needs ({reason}): "
            "use another allocation"
        ) from error


def _differentiable(watched: Sequence[Linear], inputs: Tensor) -> Tensor:
    """Take gradients from the first products on, wherever their inputs come from."""
    del watched
    if inputs.requires_grad or not torch.is_grad_enabled():
        return inputs
    return inputs.detach().requires_grad_(True)


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


def _work(architecture: Architecture, windows: WindowShape) -> Work:
    return gradient_dot_products(architecture, windows, held_out=1 / HELD_OUT)


INFLUENCE = Signal(
    name="influence",
    needs=Needs.GRADIENTS,
    measure=influences,
    work=_work,
    description="how far gradients agree with held-out ones in each block",
    is_stored=True,
)
