"""On disk: a model whose weights stay in its checkpoint and are read part by part, whenever a part is worked with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.model.decoder import Decoder, Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A parameter or buffer: where it belongs, what stands there without weights, and what it is in the checkpoint.

    A fused parameter is several tensors there, each that of a Linear; any other one is one, which has no Linear here.
    """

    module: nn.Module
    name: str
    absent: Tensor
    stored: Mapping[str, Linear | None]

    def place(self, stored: str) -> Tensor:
        """Return the memory, once there is any, of one tensor of the checkpoint."""
        linear = self.stored[stored]
        value: Tensor = getattr(self.module, self.name)
        return value if linear is None else linear.weight


@dataclass(slots=True, kw_only=True)
class OnDisk:
    """The presence of a model whose parameters are on the meta device while nobody works with them."""

    shards: Shards
    slots: Mapping[nn.Module, Sequence[Slot]]
    blocks: Sequence[nn.Module]
    on: torch.device

    @contextmanager
    def of(self, part: nn.Module) -> Iterator[None]:
        """Hold the weights of a block, or of a module outside the blocks, for the length of a `with` block.

        Raises:
            DataError: a file of the checkpoint is torn, or a tensor in it has another shape than the model's.
        """
        if all(getattr(slot.module, slot.name) is not slot.absent for slot in self.slots[part]):
            yield
            return
        try:
            self._load(part)
            yield
        finally:
            self._release(part)

    def each(self, parts: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield parts one after another, each with its weights while it is at hand; the next one is read meanwhile.

        Raises:
            DataError: as `of`.
        """
        try:
            with ThreadPoolExecutor(max_workers=1) as reader:
                coming = [reader.submit(self._load, part) for part in parts[:1]]
                for part, following in zip_longest(parts, parts[1:]):
                    coming.pop().result()
                    if following is not None:
                        coming.append(reader.submit(self._load, following))
                    yield part
                    self._release(part)
        finally:
            for part in parts:
                self._release(part)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the model run: blocks come one at a time, what is outside of them stays once it was needed."""
        with ExitStack() as stack:

            def fetch(module: nn.Module, arguments: object) -> None:
                del arguments
                stack.enter_context(self.of(module))

            hooks = [part.register_forward_pre_hook(fetch) for part in self.outside()]
            for hook in hooks:
                stack.callback(hook.remove)
            for block in self.blocks:
                # Patch (docs/harness-hook.md): a forward hook would not run if the forward pass is ended early.
                block.forward = self.of(block)(block.forward)
                stack.callback(delattr, block, "forward")
            yield

    def device(self, model: nn.Module) -> torch.device:
        """Return the device that weights are read to."""
        del model
        return self.on

    def parts(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return the blocks and the modules outside of them that have weights."""
        del model
        return [*self.slots]

    def outside(self) -> list[nn.Module]:
        """Return the modules outside the blocks that have weights."""
        return [part for part in self.slots if part not in self.blocks]

    def contents(self, part: nn.Module) -> dict[str, Tensor]:
        """Return the tensors of a part that is in memory, under their names in the checkpoint."""
        return {name: slot.place(name) for slot in self.slots[part] for name in slot.stored}

    @torch.no_grad()
    def _load(self, part: nn.Module) -> None:
        for slot in self.slots[part]:
            memory = torch.empty_like(slot.absent, device=self.on, requires_grad=False)
            is_parameter = isinstance(slot.absent, nn.Parameter)
            setattr(slot.module, slot.name, nn.Parameter(memory, requires_grad=False) if is_parameter else memory)
        self.shards.copy_into(self.contents(part))

    def _release(self, part: nn.Module) -> None:
        for slot in self.slots[part]:
            setattr(slot.module, slot.name, slot.absent)


def leave_on_disk(model: PreTrainedModel, decoder: Decoder, shards: Shards, device: torch.device) -> Decoder | None:
    """Let the weights of an outline be read part by part; None where its checkpoint does not hold them as it needs.

    Args:
        model: its parameters are on the meta device, in the dtype they are to have; its buffers are not.
        decoder: the decoder of `model`.
        shards: the tensors of the checkpoint.
        device: where weights are brought to.
    """
    # Some classes keep a few parameters in another dtype, which only their own loader knows.
    if getattr(model, "_keep_in_fp32_modules", None) or getattr(model, "_keep_in_fp32_modules_strict", None):
        return None
    names: dict[Tensor, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        names.setdefault(value, []).append(name)
    fused: dict[tuple[nn.Module, str], dict[str, Linear | None]] = {}
    for linear in (linear for block in decoder.blocks for linear in block.linears if linear.expert is not None):
        fused.setdefault((linear.module, linear.parameter), {})[f"{linear.name}.weight"] = linear
    blocks = [block.module for block in decoder.blocks]
    inside = {module for block in blocks for module in block.modules()}
    parts = [module for module in model.modules() if module in blocks or module not in inside]

    def slot(module: nn.Module, name: str, value: Tensor) -> Slot:
        stored = _stored(names[value], fused.get((module, name), {}), shards)
        return Slot(module=module, name=name, absent=value, stored=stored)

    slots = {
        part: [
            slot(module, name, value)
            for module in (part.modules() if part in blocks else [part])
            for name, value in _own(module)
            if value in names
        ]
        for part in parts
    }
    if not all(slot.stored for of_part in slots.values() for slot in of_part):
        return None
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    slots = {part: of_part for part, of_part in slots.items() if of_part}
    return replace(decoder, presence=OnDisk(shards=shards, slots=slots, blocks=blocks, on=device))


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _stored(names: Sequence[str], fused: dict[str, Linear | None], shards: Shards) -> Mapping[str, Linear | None]:
    """Return the tensors that a parameter is in a checkpoint, by any of the names it has in the model; {} if none."""
    whole = next((name for name in names if name in shards.files), None)
    if whole is not None:
        return {whole: None}
    return fused if fused.keys() <= shards.files.keys() else {}
