"""Drop decoder blocks from a model, so that the blocks that are left compute what they computed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import nn
from transformers import PreTrainedModel

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.model.rebuild import OF_ALL_MODULES
from lm_eval_pruned.pruning.model.removal import Removal
from lm_eval_pruned.pruning.model.removal_search import RemovalSearch
from lm_eval_pruned.pruning.model.shorter_config import Kept

# Results by class, list of blocks, remaining blocks and config: a drop is checked before loading, and made after it.
_FOUND: dict[tuple[object, ...], Removal] = {}


def drop_blocks(decoder: Decoder, removed: Collection[int]) -> Decoder:
    """Remove blocks from the model, in place, and renumber the rest; remaining blocks keep their names and indices.

    A Linear that is part of several blocks goes with the last of them, as do the adapters of a dropped block in it.

    Raises:
        PruningError: the remaining blocks would compute something else, in memory or once they are written and read.
    """
    if not removed:
        return decoder
    owned = [(getattr(linear.module, linear.parameter), linear) for linear in decoder.linears]
    work_out(decoder, removed).apply(decoder.model)
    # What blocks share belongs to the first of them that is left.
    owners: dict[nn.Parameter, nn.Module] = {}
    blocks = []
    for block in (block for block in decoder.blocks if block.index not in removed):
        modules = {value: module for module in block.module.modules() for value in module.parameters(recurse=False)}
        own = {value: module for value, module in modules.items() if value not in owners}
        owners |= own
        linears = tuple(replace(linear, module=own[value]) for value, linear in owned if value in own)
        blocks.append(replace(block, linears=linears))
    return replace(decoder, blocks=tuple(blocks))


def check_droppable(decoder: Decoder, count: int, named: Collection[int] = ()) -> Removal | None:
    """Check that blocks can be dropped: the named ones, or at least one of three choices of `count` neighbours.

    Returns what changes when the named ones are dropped, None for neighbours.

    Raises:
        PruningError: as `drop_blocks`.
    """
    last = len(decoder.blocks) - 1 - count
    if named:
        return work_out(decoder, named)
    refusals = []
    for removed in (range(start, start + count) for start in sorted({0, last // 2, last})):
        try:
            work_out(decoder, removed)
        except PruningError as error:
            refusals.append(error)
        else:
            return None
    raise refusals[0]


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
        return Removal(kept=kept, lists=[container], entries={}, config=None, attributes=attributes, sliced={})
    config = model.config.to_dict()
    key = (type(model), container, *kept.indices, kept.blocks, repr({**config, "dtype": None}))
    if key not in _FOUND:
        _FOUND[key] = RemovalSearch(type(model), model.config, kept, container).find()
    return _FOUND[key]


def _own_indices(decoder: Decoder, kept: Kept, container: str) -> dict[str, dict[str, object]]:
    """Return new indices for a model without a config: numbers that are the index of their block in every block."""
    places = [
        {
            (name, attribute)
            for name, module in block.module.named_modules()
            for attribute, value in vars(module).items()
            if attribute not in OF_ALL_MODULES and value is not True and value is not False and value == block.index
        }
        for block in decoder.blocks
    ]
    attributes: dict[str, dict[str, object]] = {}
    for name, attribute in sorted(set.intersection(*places)):
        for index in range(len(kept.indices)):
            attributes.setdefault(".".join(filter(None, (container, str(index), name))), {})[attribute] = index
    return attributes
