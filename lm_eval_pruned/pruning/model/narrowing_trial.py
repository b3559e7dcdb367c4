"""Try a narrowed model on stand-in weights, beside the dense one, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.model.narrowing import Narrowing, tensor_of
from lm_eval_pruned.pruning.model.rebuild import MISFITS, first_difference, one_line, run_dense
from lm_eval_pruned.pruning.model.stand_in import build_empty, fill, outputs_of


def why_not_narrowed(
    model_class: type[PreTrainedModel], decoder: Decoder, config: PretrainedConfig, narrowing: Narrowing
) -> str | None:
    """Run a dense model, the rebuilt one and the changed one on a few tokens, and return how they differ, or None.

    The dense one does not read channels that are removed. Of experts, the dense model has to compute the same if
    all are put in another order: the tensors with slices then hold all that distinguishes them.

    Args:
        model_class: the class of the model.
        decoder: its blocks.
        config: a config of the dense model, with `narrowing.units` units.
        narrowing: what changes.
    """
    names = [block.name for block in decoder.blocks]

    def blocks_of(model: PreTrainedModel) -> Sequence[nn.Module]:
        return [model.get_submodule(name) for name in names]

    order = torch.randperm(narrowing.units, generator=torch.Generator().manual_seed(0))
    kept = order[: narrowing.left].sort().values
    before, after = build_empty(model_class, config), build_empty(model_class, narrowing.config)
    values = fill(before)
    whole, unused, left = _stand_ins(values, decoder, narrowing, order, kept)
    values |= whole
    fill(before, {**values, **unused})
    fill(after, {**values, **left})
    try:
        expected, cached = run_dense(before, blocks_of(before))
        rebuilt = outputs_of(after, blocks_of(after), cached=cached)
        fill(before, values)
        reorders = narrowing.unit == "expert"
        dense = outputs_of(before, blocks_of(before), cached=cached) if reorders else rebuilt
        # The stand-in's own config, whose attention windows are short.
        replace(narrowing, config=after.config).apply(before, dict.fromkeys(names, kept))
        changed = outputs_of(before, blocks_of(before), cached=cached)
    except MISFITS as error:
        return f"it does not run on a few tokens once it is narrowed ({one_line(error)})"
    if first_difference(expected, dense) is None and first_difference(rebuilt, changed) is None:
        return None
    return f"what is left would compute something else than the dense model without these {narrowing.unit}s"


class _StandIns(NamedTuple):
    """Tensors with slices, by name: as they are, as if the removed units were unused, and what is left of them."""

    whole: dict[str, Tensor]
    unused: dict[str, Tensor]
    left: dict[str, Tensor]


def _stand_ins(
    values: dict[str, Tensor], decoder: Decoder, narrowing: Narrowing, order: Tensor, kept: Tensor
) -> _StandIns:
    """Return stand-ins that are the same in all blocks, of which one copy is in memory then."""
    names = [block.name for block in decoder.blocks]
    reorders = narrowing.unit == "expert"
    readers = set() if reorders else {tensor_of(narrowing.reader(block)) for block in decoder.blocks}
    removed = torch.ones(narrowing.units, dtype=torch.bool)
    removed[kept] = False
    shared: dict[tuple[str, str], Tensor] = {}
    found = _StandIns({}, {}, {})
    for name in values.keys() & narrowing.slices.keys():
        relative = name.removeprefix(next(one for one in names if name.startswith(f"{one}.")))
        own = narrowing.slices[name]
        whole = found.whole[name] = shared.setdefault(("whole", relative), values[name].clone())
        found.left[name] = shared.setdefault(("left", relative), own.of(whole, kept))
        if reorders:
            found.unused[name] = shared.setdefault(("reordered", relative), own.of(whole, order))
        elif name in readers:
            zeros = whole.index_fill(own.axis, removed.nonzero()[:, 0], 0)
            found.unused[name] = shared.setdefault(("unread", relative), zeros)
    return found
