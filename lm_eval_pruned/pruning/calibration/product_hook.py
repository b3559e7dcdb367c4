"""Hooks around matrix products: observe the inputs and outputs of given weights, whatever module multiplies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lm_eval_pruned.pruning.model.decoder import Linear

_PRODUCTS = {torch.nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__}


class Watch(TorchFunctionMode):
    """Call `before(linears, inputs)` and `after(linears, inputs, outputs)` around every product with their weight.

    Weights are recognised by their data pointer, so that a slice of fused expert weights is found like a parameter.
    Several Linears are passed together if one product computes them all (a fused gate and up projection).

    Example:
        >>> layer = torch.nn.Linear(2, 3)
        >>> linear = Linear(name="layer", sublayer="mlp", module=layer)
        >>> with Watch([linear], before=lambda linears, inputs: print(linears[0].name, tuple(inputs.shape))):
        ...     _ = layer(torch.zeros(4, 2))
        layer (4, 2)
    """

    def __init__(
        self,
        linears: Iterable[Linear],
        *,
        before: Callable[[Sequence[Linear], Tensor], None] | None = None,
        after: Callable[[Sequence[Linear], Tensor, Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        self._watched: dict[int, list[Linear]] = defaultdict(list)
        for linear in linears:
            self._watched[linear.operand.data_ptr()].append(linear)
        self._before, self._after = before, after

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run `func`, with the callbacks around it if it is a product with a watched weight."""
        linears = self._linears(func, args)
        inputs = args[0] if linears else None
        if self._before and isinstance(inputs, Tensor):
            self._before(linears, inputs)
        outputs = func(*args, **(kwargs or {}))
        if self._after and isinstance(inputs, Tensor) and isinstance(outputs, Tensor):
            self._after(linears, inputs, outputs)
        return outputs

    def _linears(self, func: Callable[..., object], args: Sequence[object]) -> Sequence[Linear]:
        if func in _PRODUCTS and len(args) > 1 and isinstance(args[1], Tensor):
            return self._watched.get(args[1].data_ptr(), ())
        return ()
