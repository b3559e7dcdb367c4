"""Logits of the last token alone, from models that would compute those of a whole prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel


@contextmanager
def only_last_logits(model: PreTrainedModel, tokens: int) -> Iterator[None]:
    """Let the head of a model see the last of `tokens` tokens alone, as `logits_to_keep=1` does where there is that.

    What is made of logits, such as a scale or a cap, is made of each alone. A head that is no module, or is given its
    states in another shape than [rows tokens hidden], sees all of them.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]

    def cut(_: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...] | None:
        match inputs:
            case (Tensor(ndim=3) as states, *others) if states.shape[1] == tokens:
                return (states[:, -1:], *others)
        return None

    handle = head.register_forward_pre_hook(cut) if isinstance(head, nn.Module) else None
    try:
        yield
    finally:
        if handle:
            handle.remove()
