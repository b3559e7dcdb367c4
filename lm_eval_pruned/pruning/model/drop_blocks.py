"""Drop decoder blocks from a model, so that the blocks that are left compute what they computed.

What depends on the number of blocks or on the index of one is found by building the model from its old and its new
config, without weights, and comparing the two: attributes of modules (slots in the cache), lists beside the blocks,
tensors with a slice for each block. Both are run on stand-in weights before anything is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.model.shorter_config import Fields, Kept, alternatives, replace_fields, shorten, with_fields
from lm_eval_pruned.pruning.model.stand_in import build_empty, fill, outputs_of

# Relative to the largest output; two orders of summation differ by less, two constants by more.
_TOLERANCE = 1e-5
# Attributes that every module has.
_OF_ALL_MODULES = frozenset({*vars(nn.Module()), "config", "generation_config", "name_or_path"})
# What building or running a model raises if its config or its stand-in weights do not fit.
_MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    StrictDataclassError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What changes in a model when blocks are dropped, besides the blocks.

    Attributes:
        kept: the blocks that are left.
        lists: names of the lists with one module per block.
        config: the new config, None for a model without one.
        attributes: new values by name of module, once the lists are shortened, and name of attribute.
        sliced: names of the tensors outside the blocks that have a slice for each block, and the axis of the slices.
    """

    kept: Kept
    lists: Sequence[str]
    config: PretrainedConfig | None
    attributes: Mapping[str, Mapping[str, object]]
    sliced: Mapping[str, int]

    def apply(self, model: nn.Module) -> None:
        """Change the model, in place."""
        for name in self.lists:
            blocks: nn.Module = model.get_submodule(name)
            assert isinstance(blocks, nn.ModuleList)
            removed = [index for index in range(self.kept.blocks) if index not in self.kept.indices]
            for index in reversed(removed):
                del blocks[index]
        for name, values in self.attributes.items():
            for attribute, value in values.items():
                setattr(model.get_submodule(name), attribute, value)
        for name, axis in self.sliced.items():
            prefix, _, own = name.rpartition(".")
            module = model.get_submodule(prefix)
            value = self.kept.slice(getattr(module, own), axis)
            is_parameter = own in module._parameters
            setattr(module, own, nn.Parameter(value, value.requires_grad) if is_parameter else value)
        if self.config is not None:
            assert isinstance(model.config, PretrainedConfig)
            replace_fields(model.config, self.config.get_text_config())

    def renamed(self, name: str) -> str | None:
        """Return the new name of a tensor or module, None if it is dropped."""
        for prefix in self.lists:
            index, _, rest = name.removeprefix(f"{prefix}.").partition(".")
            if name.startswith(f"{prefix}.") and index.isdecimal():
                if int(index) not in self.kept.indices:
                    return None
                return ".".join(filter(None, (prefix, str(self.kept.indices.index(int(index))), rest)))
        return name


def drop_blocks(decoder: Decoder, removed: Collection[int]) -> Decoder:
    """Remove blocks from the model, in place, and renumber the rest; remaining blocks keep their names and indices.

    Raises:
        PruningError: the remaining blocks would compute something else, in memory or once they are written and read.
    """
    if not removed:
        return decoder
    work_out(decoder, removed).apply(decoder.model)
    return replace(decoder, blocks=tuple(block for block in decoder.blocks if block.index not in removed))


def check_droppable(decoder: Decoder, count: int, named: Collection[int] = ()) -> None:
    """Check that blocks can be dropped: the named ones, or at least one of three choices of `count` neighbours.

    Raises:
        PruningError: as `drop_blocks`.
    """
    last = len(decoder.blocks) - 1 - count
    choices = [named] if named else [range(start, start + count) for start in sorted({0, last // 2, last})]
    refusals = []
    for removed in choices:
        try:
            work_out(decoder, removed)
        except PruningError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def fit_slices(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], kept: Kept) -> dict[str, Tensor]:
    """Return tensors outside the blocks as the model without the dropped blocks has them.

    Args:
        tensors: tensors of the dense model, by name.
        shapes: shapes of the tensors of the model without the dropped blocks.
        kept: the blocks that are left.
    """
    fitted = dict(tensors)
    for name, tensor in tensors.items():
        if (axis := _sliced_axis(tensor.shape, shapes.get(name, tensor.shape), kept)) is not None:
            fitted[name] = kept.slice(tensor, axis)
    return fitted


def work_out(decoder: Decoder, removed: Collection[int]) -> Removal:
    """Find what dropping blocks changes, and check that it changes nothing else; weights may be on the meta device.

    Raises:
        PruningError: as `drop_blocks`.
    """
    model = decoder.model
    kept = Kept([block.index for block in decoder.blocks if block.index not in removed], len(decoder.blocks))
    containers = {block.name.rpartition(".")[0] for block in decoder.blocks}
    if len(containers) > 1:
        raise PruningError(
            f"the blocks of {type(model).__name__} are in {len(containers)} stacks ({', '.join(sorted(containers))}), "
            "and a config counts those of one: use a method that removes weights"
        )
    (container,) = containers
    if not isinstance(model.get_submodule(container), nn.ModuleList):
        raise PruningError(
            f"the blocks of {type(model).__name__} are in {container}, which is not an nn.ModuleList, the only kind of "
            "list from which blocks can be dropped: use a method that removes weights"
        )
    if not isinstance(model, PreTrainedModel):
        attributes = _own_indices(decoder, kept, container)
        return Removal(kept=kept, lists=[container], config=None, attributes=attributes, sliced={})
    return _Search(model, kept, container).find()


@dataclass(slots=True)
class _Search:
    """Finds the config of the remaining blocks: where a field's form does not say what it counts, by trying.

    Attributes:
        model: the model with all its blocks.
        kept: the blocks that are left.
        container: name of the list of blocks.
        refusal: why the last config did not do.
        dense: the model of the old config, without weights.
    """

    model: PreTrainedModel
    kept: Kept
    container: str
    refusal: str = ""
    dense: PreTrainedModel | None = None

    def find(self) -> Removal:
        """Return the removal with which the remaining blocks compute what they computed.

        Raises:
            PruningError: there is none.
        """
        fields = shorten(self.model.config.get_text_config(), self.kept)
        found = self.attempt(fields)
        if found is not None and self.is_right(found.removal):
            return found.removal
        while better := self._improve(fields, found):
            fields, found = better
            if self.is_right(found.removal):
                return found.removal
        raise PruningError(f"{self.refusal}: drop other blocks, or use a method that removes weights")

    def _improve(self, fields: Fields, found: _Comparison | None) -> tuple[Fields, _Comparison] | None:
        """Return the change of one field that leaves the fewest differences, if that is fewer than now."""
        refusal = self.refusal
        least: tuple[Fields, _Comparison] | None = None
        others = [] if found is None else found.removal.attributes.values()
        is_scaled = any(isinstance(value, float) for values in others for value in values.values())
        for name, value in alternatives(fields, self.kept, constants=is_scaled):
            tried = self.attempt({**fields, name: value})
            limit = least[1] if least else found
            if tried is not None and (limit is None or tried.differences < limit.differences):
                least = {**fields, name: value}, tried
        self.refusal = refusal
        return least

    def attempt(self, fields: Fields) -> _Comparison | None:
        """Compare the model with one of these fields; None if there is none."""
        try:
            config = with_fields(self.model.config, fields)
            after = build_empty(type(self.model), config)
        except _MISFITS as error:
            self.refusal = f"no config of {type(self.model).__name__} describes the remaining blocks ({_line(error)})"
            return None
        if self.dense is None:
            self.dense = build_empty(type(self.model), self.model.config)
        comparison = _compare(self.dense, after, kept=self.kept, config=config, container=self.container)
        if comparison is None:
            self.refusal = f"the config of {type(self.model).__name__} does not say how many blocks are left"
        return comparison

    def is_right(self, removal: Removal) -> bool:
        """Run the dense model with bypassed blocks, the rebuilt one and the changed one, and compare their outputs.

        Raises:
            PruningError: the dense model does not run.
        """
        assert removal.config is not None
        model_class, indices, container = type(self.model), self.kept.indices, self.container
        before, after = build_empty(model_class, self.model.config), build_empty(model_class, removal.config)
        values = {now: value for old, value in fill(before).items() if (now := removal.renamed(old)) is not None}
        for sliced, axis in removal.sliced.items():
            if sliced in values:
                values[sliced] = self.kept.slice(values[sliced], axis)
        fill(after, values)
        blocks = before.get_submodule(container)
        assert isinstance(blocks, nn.ModuleList)
        remaining = [blocks[index] for index in indices]
        bypassed = [block for block in blocks if block not in remaining]
        cached = True
        try:
            try:
                expected = outputs_of(before, remaining, bypassed, cached=True)
            except _MISFITS:
                cached = False
                expected = outputs_of(before, remaining, bypassed, cached=False)
        except _MISFITS as error:
            raise PruningError(
                f"{model_class.__name__} does not run on a few tokens, so that no block can be dropped: {_line(error)}"
            ) from None
        try:
            rebuilt = outputs_of(after, [*after.get_submodule(container).children()], cached=cached)
            # The stand-in's own config, whose attention windows are short.
            replace(removal, config=after.config).apply(before)
            changed = outputs_of(before, [*before.get_submodule(container).children()], cached=cached)
        except _MISFITS as error:
            self.refusal = f"{model_class.__name__} does not run without the dropped blocks ({_line(error)})"
            return False
        places = [_first_difference(expected, found) for found in (rebuilt, changed)]
        place = next((place for place in places if place is not None), None)
        if place is not None:
            one = f"{container}.{indices[place]}" if place < len(indices) else "a block"
            self.refusal = (
                f"{one} of {model_class.__name__} would compute something else once blocks are dropped, as it depends "
                "on its index, on the number of blocks or on what a dropped block passes on, and no config says so"
            )
        return place is None


class _Comparison(NamedTuple):
    """What changes between two models, and the number of differences between their remaining blocks."""

    removal: Removal
    differences: int


def _compare(
    before: PreTrainedModel, after: PreTrainedModel, *, kept: Kept, config: PretrainedConfig, container: str
) -> _Comparison | None:
    """Compare a model with that of a new config; None if the latter has another number of blocks."""
    old, new = dict(before.named_modules()), dict(after.named_modules())
    lists = [name for name in old if _length(old[name]) == kept.blocks and _length(new.get(name)) == len(kept.indices)]
    if container not in lists:
        return None
    removal = Removal(kept=kept, lists=lists, config=config, attributes={}, sliced={})
    names = {now: name for name in old if (now := removal.renamed(name)) is not None}
    attributes = {
        now: differing
        for now, name in names.items()
        if now in new and (differing := dict(_differing(old[name], new[now])))
    }
    differences = sum(map(len, attributes.values())) + len(new.keys() ^ names.keys())
    differences += sum(type(new[now]) is not type(old[name]) for now, name in names.items() if now in new)
    sliced: dict[str, int] = {}
    shapes = {name: value.shape for name, value in _tensors(after)}
    for name, value in _tensors(before):
        now = removal.renamed(name)
        if now is not None and shapes.get(now) != value.shape:
            axis = _sliced_axis(value.shape, shapes.get(now, torch.Size()), kept)
            if axis is None or name.startswith(f"{container}."):
                differences += 1
            else:
                sliced[now] = axis
    return _Comparison(replace(removal, attributes=attributes, sliced=sliced), differences)


def _length(module: nn.Module | None) -> int | None:
    return len(module) if isinstance(module, nn.ModuleList) else None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _first_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> int | None:
    if len(expected) != len(found):
        return len(expected)
    for place, (one, other) in enumerate(zip(expected, found, strict=True)):
        atol = _TOLERANCE * float(one.abs().max())
        if one.shape != other.shape or not torch.allclose(one, other, rtol=0, atol=atol, equal_nan=True):
            return place
    return None


def _sliced_axis(before: Sequence[int], after: Sequence[int], kept: Kept) -> int | None:
    """Return the axis along which a tensor has a slice for each block, if only that explains its shapes."""
    if len(before) != len(after):
        return None
    differing = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    if len(differing) == 1 and before[differing[0]] * len(kept.indices) == after[differing[0]] * kept.blocks:
        return differing[0]
    return None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _differing(module: nn.Module, other: nn.Module) -> Iterator[tuple[str, object]]:
    """Yield the plain attributes of `other` that differ from those of `module`."""
    for name, value in vars(other).items():
        if name not in _OF_ALL_MODULES and _is_plain(value) and vars(module).get(name, value) != value:
            yield name, value


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple | set):
        return all(map(_is_plain, value))
    return isinstance(value, int | float | str | None)


def _own_indices(decoder: Decoder, kept: Kept, container: str) -> dict[str, dict[str, object]]:
    """Return new indices for a model without a config: numbers that are the index of their block in every block."""
    places = [
        {
            (name, attribute)
            for name, module in block.module.named_modules()
            for attribute, value in vars(module).items()
            if attribute not in _OF_ALL_MODULES and value is not True and value is not False and value == block.index
        }
        for block in decoder.blocks
    ]
    attributes: dict[str, dict[str, object]] = {}
    for name, attribute in sorted(set.intersection(*places)):
        for index in range(len(kept.indices)):
            attributes.setdefault(".".join(filter(None, (container, str(index), name))), {})[attribute] = index
    return attributes
