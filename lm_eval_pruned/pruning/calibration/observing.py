"""Observing the inputs of Linears, of each window those of the tokens that count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.calibration.statistics import SharedInputs
from lm_eval_pruned.pruning.model.decoder import Linear
from lm_eval_pruned.pruning.model.experts import routed_arguments, takes_routes

Result = TypeVar("Result")


class Observer(Generic[Result]):
    """Passes the inputs of Linears on to their statistics.

    An expert is fed those tokens that are routed to it, and nothing says which. So where only some tokens count,
    experts are run once more with these alone, and observed then.
    """

    def __init__(self, linears: Sequence[Linear], inputs: SharedInputs[Result]) -> None:
        self._inputs, self._routed = inputs, [linear.name for linear in linears if linear.routed]
        self._counted: Tensor | None = None
        self._again = False

    def __call__(self, watched: Sequence[Linear], tensor: Tensor) -> None:
        """Add the inputs of Linears that are multiplied together."""
        apart = self._counted is not None and watched[0].routed
        if not apart or self._again:
            self._inputs.update([linear.name for linear in watched], tensor, None if apart else self._counted)

    def begin_window(self, counted: Tensor | None) -> None:
        """Say which tokens of the next window count [tokens]; None counts all."""
        self._counted = counted

    @contextmanager
    def experts_apart(self, module: nn.Module) -> Iterator[None]:
        """Run the experts in `module` again where only some tokens count, for a `with` block."""
        with ExitStack() as stack:
            for one in module.modules() if self._routed else ():
                if takes_routes(one):
                    stack.callback(one.register_forward_pre_hook(self._run_again, with_kwargs=True).remove)
            yield

    def check_experts(self, module: nn.Module) -> None:
        """Check that the experts in `module` can be run with some tokens alone.

        Raises:
            PruningError: they are modules that the mixture calls one by one.
        """
        if self._routed and not any(takes_routes(one) for one in module.modules()):
            raise PruningError(
                f"nothing says which tokens are routed to {self._routed[0]}, so that those that do not count cannot be "
                "left out: use calib_tokens=all"
            )

    def _run_again(self, module: nn.Module, arguments: tuple[Tensor, ...], keywords: Mapping[str, Tensor]) -> None:
        if self._counted is None or self._again:
            return
        routed = routed_arguments(module, arguments, keywords)
        if len(routed[0]) != len(self._counted):
            raise PruningError(
                f"experts are given {list(routed[0].shape)} in a window of {len(self._counted)} tokens, and not one "
                "row for each: use calib_tokens=all"
            )
        if self._counted.any():
            self._again = True
            try:
                module.forward(*(one[self._counted.to(one.device)] for one in routed))
            finally:
                self._again = False
