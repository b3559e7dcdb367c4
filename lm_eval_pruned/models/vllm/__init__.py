"""`pruned-vllm`: the harness's vLLM model, pruned while the engine loads its weights."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lm_eval_pruned.models.vllm.model import PrunedVLLM

__all__ = ["PrunedVLLM"]


def __getattr__(name: str) -> object:
    """Import the model class on first use: vLLM imports this package in each worker for `loader` alone."""
    if name != "PrunedVLLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lm_eval_pruned.models.vllm.model import PrunedVLLM

    return PrunedVLLM
