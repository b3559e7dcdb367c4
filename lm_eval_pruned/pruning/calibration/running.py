"""Forward passes of a window through a model, and replaced forward methods of its blocks to observe them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeAlias

from torch import Tensor, nn

from lm_eval_pruned.pruning.calibration.activations import StopForward
from lm_eval_pruned.pruning.model.decoder import Block, Decoder

Forward: TypeAlias = Callable[..., object]


def run_model(decoder: Decoder, window: Tensor) -> None:
    """Run a window through the model up to its head, or until a hook raises `StopForward`."""
    model = decoder.model
    find_head: Callable[[], nn.Module | None] = getattr(model, "get_output_embeddings", lambda: None)
    head = find_head()

    def stop(*_: object) -> None:
        raise StopForward

    handle = head.register_forward_pre_hook(stop) if isinstance(head, nn.Module) else None
    try:
        with suppress(StopForward):
            model(input_ids=window[None].to(decoder.device), use_cache=False)
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def replaced_forward(blocks: Sequence[Block], around: Callable[[Block, Forward], Forward]) -> Iterator[None]:
    """Replace the forward method of every block by `around(block, forward)` for a `with` block.

    A hook could neither skip the computation of a block nor call it again.
    """
    with ExitStack() as stack:
        for block in blocks:
            module = block.module
            before = vars(module).get("forward")
            # Patch (docs/harness-hook.md): hooks run besides a block, not instead of it.
            module.forward = around(block, module.forward)
            stack.callback(_restore, module, before)
        yield


def _restore(module: nn.Module, before: Forward | None) -> None:
    if before is None:
        del module.forward
    else:
        module.forward = before
