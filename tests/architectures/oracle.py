"""What each weight of a model does, observed in a forward pass: which products, convolutions and choices it enters.

Written against PyTorch alone, so that it can judge what the package finds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_F = torch.nn.functional
# Products, with the position of the operand that may be a weight and whether it is stored [in out].
_PRODUCTS = {
    _F.linear: (0, 1, False),
    torch.matmul: (0, 1, True),
    Tensor.matmul: (0, 1, True),
    Tensor.__matmul__: (0, 1, True),
    torch.bmm: (0, 1, True),
    Tensor.bmm: (0, 1, True),
    torch.mm: (0, 1, True),
    torch.addmm: (1, 2, True),
}
_CHOICES = {torch.topk, Tensor.topk, torch.argmax, Tensor.argmax, torch.max, Tensor.max, torch.sort, Tensor.sort}


@dataclass(slots=True)
class Inputs:
    """The inputs that one matrix was multiplied with: their squares by feature, and whether it chose anything."""

    squares: Tensor | None = None
    transposed: bool = False
    chooses: bool = False
    rows: int = 0

    def add(self, inputs: Tensor) -> None:
        total = inputs.detach().float().square().flatten(0, -2).sum(dim=0)
        self.squares = total if self.squares is None else self.squares + total


@dataclass
class Observed(TorchFunctionMode):
    """Records, for every parameter of a model, the products it enters, whatever module computes them.

    `inputs[name, offset]` holds the inputs of the matrix that begins `offset` elements into the parameter `name`.
    """

    model: nn.Module
    inputs: dict[tuple[str, int], Inputs] = field(default_factory=lambda: defaultdict(Inputs))
    _origin: dict[int, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    _alive: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._storages = {
            parameter.untyped_storage().data_ptr(): name for name, parameter in self.model.named_parameters()
        }

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            first, second, transposed = _PRODUCTS[func]
            if len(args) > second:
                self._product(args[first], args[second], transposed=transposed, result=result)
        elif func in _CHOICES and args and isinstance(args[0], Tensor):
            for key in self._origin.get(id(args[0]), ()):
                self.inputs[key].chooses = True
        else:
            self._follow(args, result)
        return result

    def _product(self, left: object, right: object, *, transposed: bool, result: object) -> None:
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return
        name = self._storages.get(right.untyped_storage().data_ptr())
        if name is None and left.ndim == 2 and left.untyped_storage().data_ptr() in self._storages:
            # W x^T is (x W^T)^T.
            self._product(right.transpose(-1, -2), left.T, transposed=transposed, result=None)
        if name is None or right.ndim > 3:
            return
        for offset, inputs in self._members(left, right):
            record = self.inputs[name, offset]
            # A view of the weight can be its transpose.
            record.transposed = transposed == (right.stride(-1) == 1)
            record.rows = right.shape[-1 if transposed else -2]
            record.add(inputs)
            if isinstance(result, Tensor):
                self._alive.append(result)
                self._origin[id(result)].add((name, offset))

    def _members(self, left: Tensor, right: Tensor) -> list[tuple[int, Tensor]]:
        """Return the matrices of an operand by their offsets: one, or one for each entry of a batched product."""
        if right.ndim == 2:
            return [(right.storage_offset(), left)]
        return [(right.storage_offset() + index * right.stride(0), left[index]) for index in range(len(right))]

    def _follow(self, args: Sequence[object], result: object) -> None:
        """Carry on what chose a tensor, through functions that keep its number of elements for each token."""
        if not isinstance(result, Tensor):
            return
        for argument in args:
            if isinstance(argument, Tensor) and id(argument) in self._origin and argument.numel() == result.numel():
                self._alive.append(result)
                self._origin[id(result)] |= self._origin[id(argument)]


@torch.no_grad()
def observe(model: PreTrainedModel, windows: Sequence[Tensor]) -> dict[tuple[str, int], Inputs]:
    """Run windows through a model, experts one by one, and return what every matrix was multiplied with."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "eager"
    inputs: dict[tuple[str, int], Inputs] = defaultdict(Inputs)
    for window in windows:
        watch = Observed(model, inputs=inputs)
        with watch:
            model(input_ids=window[None], use_cache=False)
    return dict(inputs)


def routers(inputs: Mapping[tuple[str, int], Inputs]) -> set[str]:
    """Return the parameters whose product chooses something by its entries."""
    return {name for (name, _), record in inputs.items() if record.chooses}


def linear_weights(model: nn.Module) -> set[str]:
    """Return the names of the weights of all `nn.Linear` and `Conv1D` modules."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
