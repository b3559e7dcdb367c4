"""Hooks around matrix products: observe the inputs and outputs of given weights, whatever module multiplies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lm_eval_pruned.pruning.model.decoder import Linear

# The places of the inputs and of the weight among the arguments of a product; `Conv1D` of transformers adds a bias.
_PRODUCTS: Mapping[Callable[..., object], tuple[int, int]] = {
    torch.nn.functional.linear: (0, 1),
    torch.matmul: (0, 1),
    Tensor.matmul: (0, 1),
    Tensor.__matmul__: (0, 1),
    torch.mm: (0, 1),
    Tensor.mm: (0, 1),
    torch.addmm: (1, 2),
}


class Watch(TorchFunctionMode):
    """Call `before(linears, inputs)` and `after(linears, inputs, outputs)` around every product with their weight.

    A tensor that `before` returns is multiplied in place of the inputs.

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
        before: Callable[[Sequence[Linear], Tensor], Tensor | None] | None = None,
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
        place, of_weight = _PRODUCTS.get(func, (0, len(args)))
        weight = args[of_weight] if of_weight < len(args) else None
        linears = self._watched.get(weight.data_ptr(), ()) if isinstance(weight, Tensor) else ()
        inputs = args[place] if linears else None
        if not isinstance(inputs, Tensor):
            return func(*args, **(kwargs or {}))
        if self._before and (replaced := self._before(linears, inputs)) is not None:
            args = [*args[:place], replaced, *args[place + 1 :]]
        outputs = func(*args, **(kwargs or {}))
        if self._after and isinstance(outputs, Tensor):
            self._after(linears, inputs, outputs)
        return outputs
