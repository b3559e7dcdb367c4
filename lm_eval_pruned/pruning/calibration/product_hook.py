"""Hooks around matrix products: observe the inputs and outputs of given weights, whatever module multiplies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.decoder import Linear

# The places of the two factors among the arguments of a product; before those of `addmm` (Conv1D) comes the bias.
_PRODUCTS: Mapping[Callable[..., object], tuple[int, int]] = {
    **dict.fromkeys([torch.nn.functional.linear, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm], (0, 1)),
    **dict.fromkeys([torch.matmul, Tensor.matmul, Tensor.__matmul__], (0, 1)),
    **dict.fromkeys([torch.addmm, torch.baddbmm], (1, 2)),
}
# The names of the arguments up to the second factor, where a product is called with keywords.
_NAMES: Mapping[Callable[..., object], tuple[str, ...]] = {
    torch.nn.functional.linear: ("input", "weight"),
    **dict.fromkeys([torch.mm, Tensor.mm, torch.bmm, Tensor.bmm], ("input", "mat2")),
    **dict.fromkeys([torch.matmul, Tensor.matmul], ("input", "other")),
    torch.addmm: ("input", "mat1", "mat2"),
    torch.baddbmm: ("input", "batch1", "batch2"),
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

    A weight that is used in any other way (in part, transposed, converted, in `torch.einsum`) raises a PruningError, as
    its inputs could not be told.

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
        keywords = dict(kwargs or {})
        args = [*args, *(keywords.pop(name) for name in _NAMES.get(func, ())[len(args) :] if name in keywords)]
        product = self._product(func, args)
        inputs = args[product.place] if product else None
        if product is None or not isinstance(inputs, Tensor):
            result = func(*args, **keywords)
            self._check_view(func, args, result)
            return result
        if self._before and (replaced := self._call_before(product, inputs)) is not None:
            args = [*args[: product.place], replaced, *args[product.place + 1 :]]
        outputs = func(*args, **keywords)
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
            # The matrices as [out in], whatever the product.
            matrices = (
                weight if is_left or func is torch.nn.functional.linear else weight.mT if weight.ndim > 1 else weight
            )
            if weight.ndim == 3 and not is_left:
                watched = [self._found(matrix) for matrix in matrices.unbind(0)]
                if any(watched):
                    return _Product(place, watched, is_stack=True)
            elif found := self._found(matrices):
                return _Product(place, [found], is_left=is_left)
        return None

    def _found(self, matrix: Tensor) -> Sequence[Linear]:
        """Return the Linears whose stored matrix this is, [out in].

        Raises:
            PruningError: it begins like one, and is a part of it or its transpose.
        """
        found = self._watched.get(_address(matrix), [])
        for linear in found:
            stored = linear.operand.T if linear.transposed else linear.operand
            if matrix.shape != stored.shape or matrix.stride() != stored.stride():
                raise _hidden(linear, "a part or the transpose of it is multiplied")
        return found

    def _check_view(self, func: Callable[..., object], args: Sequence[object], result: object) -> None:
        """Check that a function that is not a product made nothing new of a watched weight."""
        name = getattr(func, "__name__", "")
        if not isinstance(result, Tensor) or name.endswith("_like") or name.startswith("new_"):
            return
        for value in (value for value in args if isinstance(value, Tensor)):
            for linear in self._watched.get(_address(value), ()):
                if value.untyped_storage().data_ptr() != result.untyped_storage().data_ptr():
                    raise _hidden(linear, f"it enters {name}")


def _address(tensor: Tensor) -> int:
    """Return the data pointer of a tensor, -1 where it has none: inside `torch.vmap`, as in transformers' masks."""
    try:
        return tensor.data_ptr()
    except (NotImplementedError, RuntimeError):
        return -1


def _hidden(linear: Linear, use: str) -> PruningError:
    return PruningError(
        f"the inputs of {linear.name} cannot be observed, because {use}: use method=magnitude with an allocation that "
        "reads weights"
    )
