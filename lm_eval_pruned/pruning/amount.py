"""Check how much is to be removed: given once, as the kind of method takes it, with settings that belong to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from lm_eval_pruned.config import BlockMethod, PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.methods import ExpertMethod, Method, WidthMethod

# Settings of methods that set weights to zero.
_OF_WEIGHTS = ("alloc", "pattern", "scope", "exclude", "compare")


def check_amount(config: PruneConfig, method: Method | None) -> None:
    """Check the arguments for how much is removed against the kind of method.

    Raises:
        ArgumentError: an amount is missing, is given twice, or belongs to another kind of method.
    """
    if method is None:
        return
    if method.drops_blocks:
        names = ("num_blocks", "sparsity", "blocks")
        given = [f"{name}={value}" for name in names if (value := getattr(config, name)) is not None]
        if len(given) != 1:
            raise ArgumentError(
                f"method={config.method} needs one of {', '.join(names)}, such as num_blocks=2, and has "
                f"{' and '.join(given) or 'none'}{': leave all but one out' if given else ''}"
            )
        _refuse(config, [*_OF_WEIGHTS, "propagate"], "drops whole blocks")
    elif config.num_blocks is not None or config.blocks is not None:
        name = "num_blocks" if config.blocks is None else "blocks"
        raise ArgumentError(
            f"{name}={getattr(config, name)} is for methods that drop blocks ({', '.join(get_args(BlockMethod))}): use "
            "sparsity"
        )
    elif isinstance(method, ExpertMethod | WidthMethod):
        # The MLPs are all that is narrowed, and experts are all scored in the dense model.
        others = [name for name in _OF_WEIGHTS if (name, config.scope) != ("scope", "mlp")]
        if isinstance(method, ExpertMethod):
            _refuse(config, [*others, "propagate"], "removes whole experts")
        else:
            _refuse(config, others, "removes whole channels of MLPs")
        if config.sparsity is None:
            raise ArgumentError(f"method={config.method} needs a sparsity, the fraction of {method.unit}s, such as 0.2")
    elif config.sparsity is None and config.n_m is None and not config.is_listed:
        raise ArgumentError(f"method={config.method} needs a sparsity, for example sparsity=0.2")


def _refuse(config: PruneConfig, names: Iterable[str], does: str) -> None:
    """Raise ArgumentError if one of some settings differs from its default."""
    for name in names:
        if (value := getattr(config, name)) != getattr(PruneConfig(), name):
            raise ArgumentError(f"method={config.method} {does}: leave {name}={value} out")
