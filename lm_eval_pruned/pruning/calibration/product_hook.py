"""Hooks around matrix products: observe the inputs and outputs of given weights, whatever module multiplies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lm_eval_pruned.pruning.model.decoder import Linear

# The places of the two factors among the arguments of a product; before those of `addmm` (Conv1D) comes the bias.
_PRODUCTS: Mapping[Callable[..., object], tuple[int, int]] = {
    **dict.fromkeys([torch.nn.functional.linear, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm], (0, 1)),
    **dict.fromkeys([torch.matmul, Tensor.matmul, Tensor.__matmul__], (0, 1)),
    **dict.fromkeys([torch.addmm, torch.baddbmm], (1, 2)),
}


class _Product(NamedTuple):
    """A product with watched weights: the place of its inputs, and the Linears of each matrix of a stack of weights.

    Attributes:
        place: which argument holds the inputs.
        watched: the Linears of the weight, or of each member of a stack of weights [members ...].
        is_stack: whether each member of the inputs [members tokens in] is multiplied by its own member of the weights.
        is_left: whether the weight is the left factor, so that inputs and outputs are [... features tokens].
    """

    place: int
    watched: Sequence[Sequence[Linear]]
    is_stack: bool = False
    is_left: bool = False

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Return inputs or outputs [... tokens features] of each matrix."""
        return list(tensor.unbind(0)) if self.is_stack else [tensor.mT if self.is_left else tensor]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Undo `split`."""
        return torch.stack([*parts]) if self.is_stack else (parts[0].mT if self.is_left else parts[0])


class Watch(TorchFunctionMode):
    """Call `before(linears, inputs)` and `after(linears, inputs, outputs)` around every product with their weight.

    A tensor that `before` returns is multiplied in place of the inputs.

    Weights are recognised by their data pointer, so that a slice of stacked weights is found like a parameter. Several
    Linears are passed together if one product computes them all (a fused gate and up projection). In a product of
    stacks, each member is passed with its own inputs and outputs.

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
        product = self._product(func, args)
        inputs = args[product.place] if product else None
        if product is None or not isinstance(inputs, Tensor):
            return func(*args, **(kwargs or {}))
        if self._before and (replaced := self._call_before(product, inputs)) is not None:
            args = [*args[: product.place], replaced, *args[product.place + 1 :]]
        outputs = func(*args, **(kwargs or {}))
        if self._after and isinstance(outputs, Tensor):
            # What is passed on is joined from what the callbacks saw, so that gradients pass through it.
            parts = product.split(outputs)
            for linears, one, result in zip(product.watched, product.split(inputs), parts, strict=True):
                if linears:
                    self._after(linears, one, result)
            return product.join(parts)
        return outputs

    def _call_before(self, product: _Product, inputs: Tensor) -> Tensor | None:
        assert self._before is not None
        parts = product.split(inputs)
        replaced = [
            self._before(linears, one) if linears else None for linears, one in zip(product.watched, parts, strict=True)
        ]
        if all(one is None for one in replaced):
            return None
        return product.join([part if one is None else one for part, one in zip(parts, replaced, strict=True)])

    def _product(self, func: Callable[..., object], args: Sequence[object]) -> _Product | None:
        left, right = _PRODUCTS.get(func, (len(args), len(args)))
        factors = [args[place] if place < len(args) else None for place in (left, right)]
        for weight, place, is_left in ((factors[1], left, False), (factors[0], right, True)):
            if not isinstance(weight, Tensor):
                continue
            if weight.ndim == 3 and not is_left:
                watched = [self._watched.get(member.data_ptr(), []) for member in weight.unbind(0)]
                if any(watched):
                    return _Product(place, watched, is_stack=True)
            elif found := self._watched.get(weight.data_ptr()):
                return _Product(place, [found], is_left=is_left)
        return None
