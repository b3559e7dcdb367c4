"""Offloaded weights: a model whose weights stay in its checkpoint and are read module by module when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.model.decoder import Decoder, Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A parameter or buffer of a module, and the tensors of the checkpoint that it is read from.

    Attributes:
        module: the module that holds it.
        name: its name in the module.
        meta: the tensor on the meta device that stands there while it is offloaded.
        stored: names of its tensors in the checkpoint. A fused parameter is stored as one tensor per Linear; any other
            one is a single tensor, which maps to None.
    """

    module: nn.Module
    name: str
    meta: Tensor
    stored: Mapping[str, Linear | None]

    @property
    def is_onloaded(self) -> bool:
        """Whether real memory stands in the module."""
        return getattr(self.module, self.name) is not self.meta

    def destination(self, stored: str) -> Tensor:
        """Return the memory that a tensor of the checkpoint is copied to, once the slot is onloaded."""
        linear = self.stored[stored]
        value: Tensor = getattr(self.module, self.name)
        return value if linear is None else linear.weight


@dataclass(slots=True, kw_only=True)
class Offloaded:
    """The residency of a model whose parameters are on the meta device unless they are onloaded.

    Attributes:
        shards: the checkpoint.
        slots: parameters and buffers by module: decoder blocks as a whole, and single modules outside the blocks.
        blocks: the modules of the decoder blocks.
        target: device that weights are onloaded to.
    """

    shards: Shards
    slots: Mapping[nn.Module, Sequence[Slot]]
    blocks: Sequence[nn.Module]
    target: torch.device

    @contextmanager
    def onload(self, module: nn.Module) -> Iterator[None]:
        """Keep the weights of a block, or of a module outside the blocks, in memory for a `with` block.

        Raises:
            DataError: a file of the checkpoint is truncated, or a tensor has another shape than in the model.
        """
        if all(slot.is_onloaded for slot in self.slots[module]):
            yield
            return
        try:
            self._read(module)
            yield
        finally:
            self._release(module)

    def onload_each(self, modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield modules one after another, each with its weights in memory; the next one is read in the background.

        Raises:
            DataError: as `onload`.
        """
        try:
            with ThreadPoolExecutor(max_workers=1) as reader:
                reads = [reader.submit(self._read, module) for module in modules[:1]]
                for module, following in zip_longest(modules, modules[1:]):
                    reads.pop().result()
                    if following is not None:
                        reads.append(reader.submit(self._read, following))
                    yield module
                    self._release(module)
        finally:
            for module in modules:
                self._release(module)

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Let the model run: blocks are onloaded one at a time, modules outside them stay once they were reached."""
        with ExitStack() as stack:

            def fetch(module: nn.Module, arguments: object) -> None:
                del arguments
                stack.enter_context(self.onload(module))

            hooks = [module.register_forward_pre_hook(fetch) for module in self.outside()]
            for hook in hooks:
                stack.callback(hook.remove)
            for block in self.blocks:
                # Patch (docs/harness-hook.md): a forward hook would not run if the forward pass is ended early.
                block.forward = self.onload(block)(block.forward)
                stack.callback(delattr, block, "forward")
            yield

    def device(self, model: nn.Module) -> torch.device:
        """Return the device that weights are onloaded to."""
        del model
        return self.target

    def modules(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return the blocks and the modules outside them that have weights."""
        del model
        return [*self.slots]

    def outside(self) -> list[nn.Module]:
        """Return the modules outside the blocks that have weights."""
        return [module for module in self.slots if module not in self.blocks]

    def contents(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of an onloaded module under their names in the checkpoint."""
        return {name: slot.destination(name) for slot in self.slots[module] for name in slot.stored}

    @torch.no_grad()
    def _read(self, module: nn.Module) -> None:
        for slot in self.slots[module]:
            memory = torch.empty_like(slot.meta, device=self.target, requires_grad=False)
            is_parameter = isinstance(slot.meta, nn.Parameter)
            setattr(slot.module, slot.name, nn.Parameter(memory, requires_grad=False) if is_parameter else memory)
        self.shards.copy_into(self.contents(module))

    def _release(self, module: nn.Module) -> None:
        for slot in self.slots[module]:
            setattr(slot.module, slot.name, slot.meta)


def offload_to_checkpoint(decoder: Decoder, shards: Shards, device: torch.device) -> Offloaded | None:
    """Return the residency of a model on the meta device; None if its checkpoint lacks tensors under its names.

    Buffers are moved to `device`.

    Args:
        decoder: the decoder of a model with its parameters on the meta device, in the dtype they are to have.
        shards: the tensors of the checkpoint.
        device: device that weights are onloaded to.
    """
    model = decoder.model
    # Some classes keep a few parameters in another dtype, which only their own loader knows.
    if getattr(model, "_keep_in_fp32_modules", None) or getattr(model, "_keep_in_fp32_modules_strict", None):
        return None
    names: dict[Tensor, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        names.setdefault(value, []).append(name)
    fused: dict[tuple[nn.Module, str], dict[str, Linear | None]] = {}
    for linear in (linear for linear in decoder.linears if linear.expert is not None):
        fused.setdefault((linear.module, linear.parameter), {})[f"{linear.name}.weight"] = linear
    blocks = [block.module for block in decoder.blocks]
    inside = {module for block in blocks for module in block.modules()}
    units = [module for module in model.modules() if module in blocks or module not in inside]

    def slot(module: nn.Module, name: str, value: Tensor) -> Slot:
        stored = _stored(names[value], fused.get((module, name), {}), shards)
        return Slot(module=module, name=name, meta=value, stored=stored)

    slots = {
        unit: [
            slot(module, name, value)
            for module in (unit.modules() if unit in blocks else [unit])
            for name, value in _own_tensors(module)
            if value in names
        ]
        for unit in units
    }
    if not all(slot.stored for own in slots.values() for slot in own):
        return None
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return Offloaded(
        shards=shards, slots={unit: own for unit, own in slots.items() if own}, blocks=blocks, target=device
    )


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _stored(names: Sequence[str], fused: dict[str, Linear | None], shards: Shards) -> Mapping[str, Linear | None]:
    """Return the tensors of the checkpoint that a parameter is read from, under any of its names; {} without any."""
    whole = next((name for name in names if name in shards.files), None)
    if whole is not None:
        return {whole: None}
    return fused if fused.keys() <= shards.files.keys() else {}
