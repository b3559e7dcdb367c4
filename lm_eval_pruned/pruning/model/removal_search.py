"""Find what dropping blocks changes, by building the model from its old and its new config and comparing the two.

Attributes of modules (slots in the cache), lists beside the blocks and tensors with a slice a block are found so.
Both models are run on stand-in weights before anything is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.rebuild import (
    MISFITS,
    differing_attributes,
    first_difference,
    named_tensors,
    one_line,
    run_dense,
)
from lm_eval_pruned.pruning.model.removal import Removal, sliced_axis
from lm_eval_pruned.pruning.model.shorter_config import Fields, Kept, alternatives, shorten, with_fields
from lm_eval_pruned.pruning.model.stand_in import build_empty, few_channels, fewer_heads, fill, outputs_of


@dataclass(slots=True)
class RemovalSearch:
    """Finds the config of the remaining blocks: where a field's form does not say what it counts, by trying.

    Attributes:
        model_class: the class of the model.
        config: its config, with all blocks.
        kept: the blocks that are left.
        container: name of the list of blocks.
        refusal: why the last config did not do.
        dense: the model of the old config, without weights.
    """

    model_class: type[PreTrainedModel]
    config: PretrainedConfig
    kept: Kept
    container: str
    refusal: str = ""
    dense: PreTrainedModel | None = None

    def find(self) -> Removal:
        """Return the removal with which the remaining blocks compute what they computed.

        Raises:
            PruningError: there is none.
        """
        self._check_config()
        fields = shorten(self.config.get_text_config(), self.kept)
        found = self.attempt(fields)
        if found is not None and self.is_right(found.removal):
            return found.removal
        while better := self._improve(fields, found):
            fields, found = better
            if self.is_right(found.removal):
                return found.removal
        raise PruningError(f"{self.refusal}: drop other blocks, or use a method that removes weights")

    def _check_config(self) -> None:
        """Check that the config of the model describes as many blocks as it has."""
        name, own = self.model_class.__name__, self.kept.blocks
        try:
            self.dense = build_empty(self.model_class, self.config)
        except MISFITS as error:
            raise PruningError(f"{name} cannot be built from its own config: {one_line(error)}") from None
        stated = _length(dict(self.dense.named_modules()).get(self.container))
        if stated != own:
            raise PruningError(
                f"{name} has {own} blocks in {self.container}, and its config describes {stated or 'no such list'}: "
                "give it a config of its blocks, or start from the whole model and name the blocks to drop in blocks="
            )

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
            config = with_fields(self.config, fields)
            after = build_empty(self.model_class, config)
        except MISFITS as error:
            self.refusal = (
                f"no config of {self.model_class.__name__} describes the remaining blocks ({one_line(error)})"
            )
            return None
        assert self.dense is not None, "built before the first attempt"
        comparison = _compare(self.dense, after, kept=self.kept, config=config, container=self.container)
        if comparison is None:
            self.refusal = f"the config of {self.model_class.__name__} does not say how many blocks are left"
        return comparison

    def is_right(self, removal: Removal) -> bool:
        """Run the dense model with bypassed blocks, the rebuilt one and the changed one, and compare their outputs.

        All have the full number of blocks, and as few channels and heads as possible: whether outputs differ does not
        depend on the width.

        Raises:
            PruningError: the dense model does not run.
        """
        few = few_channels(self.config)
        for sizes in filter(None, (few | fewer_heads(self.config), few)):
            try:
                return self._agrees(removal, sizes)
            except (PruningError, *MISFITS):
                # Not every model can have such sizes.
                pass
        return self._agrees(removal, {})

    def _agrees(self, removal: Removal, sizes: Mapping[str, int]) -> bool:
        assert removal.config is not None
        model_class, indices, container = self.model_class, self.kept.indices, self.container
        before, after = (
            build_empty(model_class, with_fields(one, {**one.get_text_config().to_dict(), **sizes}))
            for one in (self.config, removal.config)
        )
        values = {now: value for old, value in fill(before).items() if (now := removal.renamed(old)) is not None}
        for sliced, axis in removal.sliced.items():
            if sliced in values:
                values[sliced] = self.kept.slice(values[sliced], axis)
        fill(after, values)
        blocks = before.get_submodule(container)
        assert isinstance(blocks, nn.ModuleList)
        remaining = [blocks[index] for index in indices]
        bypassed = [block for block in blocks if block not in remaining]
        try:
            expected, cached = run_dense(before, remaining, bypassed)
        except MISFITS as error:
            raise PruningError(
                f"{model_class.__name__} does not run on a few tokens, so that no block can be dropped: "
                f"{one_line(error)}"
            ) from None
        try:
            rebuilt = outputs_of(after, [*after.get_submodule(container).children()], cached=cached)
            # The stand-in's own config, whose attention windows are short.
            replace(removal, config=after.config).apply(before)
            changed = outputs_of(before, [*before.get_submodule(container).children()], cached=cached)
        except MISFITS as error:
            self.refusal = f"{model_class.__name__} does not run without the dropped blocks ({one_line(error)})"
            return False
        places = [first_difference(expected, found) for found in (rebuilt, changed)]
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
    entries = _entries_inside(before.get_submodule(container), after.get_submodule(container), kept)
    removal = Removal(kept=kept, lists=lists, entries=entries, config=config, attributes={}, sliced={})
    names = {now: name for name in old if (now := removal.renamed(name)) is not None}
    attributes = {
        now: differing
        for now, name in names.items()
        if now in new and (differing := dict(differing_attributes(old[name], new[now])))
    }
    differences = sum(map(len, attributes.values())) + len(new.keys() ^ names.keys())
    differences += sum(type(new[now]) is not type(old[name]) for now, name in names.items() if now in new)
    sliced: dict[str, int] = {}
    shapes = {name: value.shape for name, value in named_tensors(after)}
    for name, value in named_tensors(before):
        now = removal.renamed(name)
        if now is not None and shapes.get(now) != value.shape:
            axis = sliced_axis(value.shape, shapes.get(now, torch.Size()), kept)
            if axis is None or name.startswith(f"{container}."):
                differences += 1
            else:
                sliced[now] = axis
    return _Comparison(replace(removal, attributes=attributes, sliced=sliced), differences)


def _entries_inside(before: nn.Module, after: nn.Module, kept: Kept) -> dict[str, list[int]]:
    """Return the lists inside blocks that have an entry for each block with such a list, and the entries that stay."""
    old, new = ([dict(block.named_modules()) for block in blocks.children()] for blocks in (before, after))
    names = dict.fromkeys(name for modules in old for name, one in modules.items() if isinstance(one, nn.ModuleList))
    found = {}
    for name in names:
        owners = [index for index, modules in enumerate(old) if name in modules]
        stays = [entry for entry, index in enumerate(owners) if index in kept.indices]
        lengths = {_length(old[index][name]) for index in owners}
        shorter = {_length(modules[name]) for modules in new if name in modules}
        if len(stays) < len(owners) and lengths == {len(owners)} and shorter == {len(stays)}:
            found[name] = stays
    return found


def _length(module: nn.Module | None) -> int | None:
    return len(module) if isinstance(module, nn.ModuleList) else None
