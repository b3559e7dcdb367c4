"""Find how the MLPs of a model are narrowed: the field of its config that counts channels, and the tensors that follow.

The model is built, without weights, from its old and its new config, and the two are compared. The narrowed model is
run on stand-in weights before anything is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.narrowing import Narrowing, Slices, is_read, tensor_of
from lm_eval_pruned.pruning.model.rebuild import (
    MISFITS,
    differing_attributes,
    first_difference,
    named_tensors,
    one_line,
)
from lm_eval_pruned.pruning.model.shorter_config import with_fields
from lm_eval_pruned.pruning.model.stand_in import build_empty, fill, outputs_of

# Names of config fields that count the channels of an MLP.
_COUNTS = re.compile(r"intermediate|ffn|inner|d_?ff$|dim_ff|hidden_dim$")
# Channels of the model that is tried, and how many it keeps: enough to tell, and little to multiply.
_TRIED = (48, 32)


def find_narrowing(decoder: Decoder, sparsity: float) -> Narrowing:
    """Find what changes when the fraction `sparsity` of the channels is removed; weights may be on the meta device.

    Raises:
        ArgumentError: no channel would be removed.
        PruningError: the blocks cannot be narrowed alike, or would compute something else.
    """
    model, name = decoder.model, type(decoder.model).__name__
    if not isinstance(model, PreTrainedModel):
        raise PruningError(f"{name} has no config of transformers to count its channels: use another method")
    if any(linear.routed for linear in decoder.linears):
        raise PruningError(f"{name} has experts, and method=width narrows one MLP a block: use another method")
    if decoder.shares_weights:
        raise PruningError(f"the blocks of {name} share weights and cannot be narrowed one by one: use another method")
    return _Search(model, decoder, sparsity).find()


class _Compared(NamedTuple):
    """The config of a model before it is narrowed, and what changes."""

    config: PretrainedConfig
    narrowing: Narrowing


@dataclass(slots=True)
class _Search:
    """Finds the field that counts channels by trying those whose names say so.

    Attributes:
        model: the dense model.
        decoder: its blocks.
        sparsity: the fraction of channels that is removed.
        refusal: why the last field did not do.
    """

    model: PreTrainedModel
    decoder: Decoder
    sparsity: float
    refusal: str = "its config has no field that counts them"

    def find(self) -> Narrowing:
        """Return the narrowing; raises as `find_narrowing`."""
        for name, channels in self._counts():
            if not self._is_width(name, channels):
                continue
            full = self._compare(name, channels, channels - self._removed(channels))
            if full is None:
                continue
            small = self._compare(name, *_TRIED)
            alike = small is not None and small.narrowing.slices == full.narrowing.slices
            if self._computes_the_same(small if small is not None and alike else full):
                return full.narrowing
        raise PruningError(
            f"the MLPs of {type(self.model).__name__} cannot be narrowed alike, as {self.refusal}: use another method"
        )

    def _counts(self) -> Iterator[tuple[str, int]]:
        """Yield the fields that may count channels, with the number that their model has."""
        columns = {one.weight.shape[1] for one in self.decoder.linears if one.sublayer == "mlp"}
        for name, value in self.model.config.get_text_config().to_dict().items():
            if _COUNTS.search(name):
                values = {*value} if isinstance(value, list) and all(isinstance(one, int) for one in value) else {value}
                # GPT-2 has four times its width where nothing is said.
                yield from ((name, one) for one in sorted(columns) if values in ({one}, {None}))

    def _is_width(self, name: str, channels: int) -> bool:
        """Return whether the config with this number of channels builds the model."""
        try:
            built = build_empty(type(self.model), self._with(name, channels))
        except MISFITS:
            return False
        sizes = ({key: value.shape for key, value in named_tensors(one)} for one in (built, self.model))
        return next(sizes) == next(sizes)

    def _removed(self, channels: int) -> int:
        # 0.3 * 10 is slightly below 3 in floating point.
        removed = int(self.sparsity * channels + 1e-9)
        if removed < 1:
            raise ArgumentError(
                f"sparsity={self.sparsity} removes none of the {channels} channels of an MLP: give at least "
                f"{1 / channels:.4f}"
            )
        return removed

    def _compare(self, name: str, channels: int, left: int) -> _Compared | None:
        """Compare the models with `channels` and with `left` channels; None where something else differs."""
        try:
            wide, narrow = self._with(name, channels), self._with(name, left)
            before, after = build_empty(type(self.model), wide), build_empty(type(self.model), narrow)
        except MISFITS as error:
            self.refusal = f"its config does not take another {name} ({one_line(error)})"
            return None
        slices = self._slices(before, after, channels, left)
        if slices is None:
            return None
        old, new = dict(before.named_modules()), dict(after.named_modules())
        if old.keys() != new.keys() or not all(self._narrows_one_mlp(block, slices) for block in self.decoder.blocks):
            self.refusal = f"{name} in its config is not the width of one MLP in each block"
            return None
        attributes = {key: dict(differing_attributes(old[key], new[key])) for key in old}
        narrowing = Narrowing(
            channels=channels,
            left=left,
            config=narrow,
            slices=slices,
            attributes={key: differing for key, differing in attributes.items() if differing},
            removed=sum(dict(named_tensors(before))[key].numel() // channels * (channels - left) for key in slices),
        )
        return _Compared(wide, narrowing)

    def _with(self, name: str, channels: int) -> PretrainedConfig:
        fields = self.model.config.get_text_config().to_dict()
        value = fields[name]
        return with_fields(
            self.model.config, {**fields, name: [channels] * len(value) if isinstance(value, list) else channels}
        )

    def _slices(
        self, before: PreTrainedModel, after: PreTrainedModel, channels: int, left: int
    ) -> dict[str, Slices] | None:
        """Return the slices of each tensor that is shorter afterwards, None where one changes in another way."""
        shapes = {name: value.shape for name, value in named_tensors(after)}
        found: dict[str, Slices] = {}
        for name, value in named_tensors(before):
            shape = shapes.get(name, value.shape)
            axes = [axis for axis, size in enumerate(shape) if size != value.shape[axis]]
            if not axes:
                continue
            groups, rest = divmod(value.shape[axes[0]], channels)
            if len(axes) > 1 or rest or shape[axes[0]] != groups * left:
                self.refusal = f"{name} has other sizes than its channels"
                return None
            found[name] = Slices(axes[0], groups)
        return found

    def _narrows_one_mlp(self, block: Block, slices: Mapping[str, Slices]) -> bool:
        """Return whether the tensors with slices are the Linears of one MLP, with one that reads, and their biases."""
        outside = [name for name in slices if not name.startswith(tuple(f"{one.name}." for one in self.decoder.blocks))]
        linears = {tensor_of(one): one for one in block.linears}
        names = [name for name in slices if name.startswith(f"{block.name}.")]
        found = [linears[name] for name in names if name in linears]
        modules = {one.name for one in found}
        return (
            not outside
            and sum(is_read(one, slices[tensor_of(one)]) for one in found) == 1 < len(found)
            and all(one.sublayer == "mlp" for one in found)
            and all(name.rpartition(".")[0] in modules for name in names)
        )

    def _computes_the_same(self, compared: _Compared) -> bool:
        """Run the dense model whose channels are not read, the rebuilt one and the changed one, and compare outputs."""
        narrowing, names = compared.narrowing, [block.name for block in self.decoder.blocks]
        model_class = type(self.model)
        kept = torch.randperm(narrowing.channels, generator=torch.Generator().manual_seed(0))[: narrowing.left]
        kept = kept.sort().values
        of_all = dict.fromkeys(names, kept)
        readers = {tensor_of(narrowing.reader(block)) for block in self.decoder.blocks}
        before, after = build_empty(model_class, compared.config), build_empty(model_class, narrowing.config)
        values = fill(before)
        # All blocks have the same stand-ins where there are slices, of which one copy is in memory then.
        shared: dict[tuple[str, str], Tensor] = {}
        unread: dict[str, Tensor] = {}
        left: dict[str, Tensor] = {}
        for name in values.keys() & narrowing.slices.keys():
            relative = name.removeprefix(next(one for one in names if name.startswith(f"{one}.")))
            own, removed = narrowing.slices[name], torch.ones(narrowing.channels, dtype=torch.bool)
            removed[kept] = False
            values[name] = shared.setdefault(("whole", relative), values[name].clone())
            left[name] = shared.setdefault(("left", relative), own.of(values[name], kept))
            if name in readers:
                zeros = values[name].index_fill(own.axis, removed.nonzero()[:, 0], 0)
                unread[name] = shared.setdefault(("unread", relative), zeros)
        fill(before, {**values, **unread})
        fill(after, {**values, **left})

        def run(model: PreTrainedModel, *, cached: bool) -> list[Tensor]:
            return outputs_of(model, [model.get_submodule(name) for name in names], cached=cached)

        cached = True
        try:
            try:
                expected = run(before, cached=True)
            except MISFITS:
                cached = False
                expected = run(before, cached=False)
            rebuilt = run(after, cached=cached)
            # The stand-in's own config, whose attention windows are short.
            replace(narrowing, config=after.config).apply(before, of_all)
            changed = run(before, cached=cached)
        except MISFITS as error:
            self.refusal = f"it does not run on a few tokens once it is narrowed ({one_line(error)})"
            return False
        if all(first_difference(expected, found) is None for found in (rebuilt, changed)):
            return True
        self.refusal = "what is left would compute something else than the dense model without these channels"
        return False
