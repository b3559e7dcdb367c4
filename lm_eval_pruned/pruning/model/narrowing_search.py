"""Find how the blocks of a model are narrowed: the field of its config that counts units, and the tensors that follow.

The model is built, without weights, from its old and its new config, and the two are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PretrainedConfig, PreTrainedModel

from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.model.decoder import Block, Decoder
from lm_eval_pruned.pruning.model.experts import takes_routes
from lm_eval_pruned.pruning.model.narrowing import Narrowing, Slices, Unit, is_read, mixture_of, tensor_of
from lm_eval_pruned.pruning.model.narrowing_trial import why_not_narrowed
from lm_eval_pruned.pruning.model.rebuild import (
    MISFITS,
    differing_attributes,
    named_tensors,
    one_line,
)
from lm_eval_pruned.pruning.model.shorter_config import with_fields
from lm_eval_pruned.pruning.model.stand_in import CHANNELS, FEW_CHANNELS, build_empty, few_channels, fewer_heads

# Names of config fields that count the channels of an MLP, or the experts of a mixture.
_COUNTS: Mapping[Unit, re.Pattern[str]] = {
    "channel": CHANNELS,
    "expert": re.compile(r"^(?!.*(per_tok|shared|top_?k)).*experts"),
}
# Names of config fields that say how many experts a token is routed to, and in how many groups experts are.
_CHOSEN = re.compile(r"experts_per_tok(en)?$|^(moe_)?top_?k(_experts)?$|^moe_k$")
_GROUPS = re.compile(r"^(n_groups?|num_expert_groups?|expert_groups?)$")
# Channels of the model that is tried, and how many it keeps: enough to tell, and little to multiply.
_TRIED = (FEW_CHANNELS, 32)


def find_narrowing(decoder: Decoder, unit: Unit, sparsity: float) -> Narrowing:
    """Find what changes when the fraction `sparsity` of the units is removed; weights may be on the meta device.

    Raises:
        ArgumentError: none would be removed, or too few experts would be left.
        PruningError: the blocks cannot be narrowed alike, or would compute something else.
    """
    model, name = decoder.model, type(decoder.model).__name__
    if not isinstance(model, PreTrainedModel):
        raise PruningError(f"{name} has no config of transformers to count its {unit}s: use another method")
    routed = [block for block in decoder.blocks if any(linear.routed for linear in block.linears)]
    if unit == "expert":
        _check_mixtures(name, routed)
    elif routed:
        raise PruningError(f"{name} has experts, and method=width narrows one MLP a block: use another method")
    if decoder.shares_weights:
        raise PruningError(f"the blocks of {name} share weights and cannot be narrowed one by one: use another method")
    return _Search(model, decoder, unit, sparsity).find()


def _check_mixtures(name: str, blocks: Sequence[Block]) -> None:
    if not blocks:
        raise PruningError(f"{name} has no experts, which method=reap removes: use another method")
    for block in blocks:
        routed = [linear for linear in block.linears if linear.routed]
        if any(linear.expert is None or linear.module is not mixture_of(block) for linear in routed):
            raise PruningError(
                f"{name} does not stack the experts of {block.name} in the tensors of one module, as transformers 5 "
                "does for most models, and method=reap removes slices of such tensors: use another method"
            )
        if not takes_routes(mixture_of(block)):
            raise PruningError(f"the experts of {name} do not take the gates of their tokens: use another method")


def _alike(one: Narrowing, other: Narrowing) -> bool:
    """Return whether two models change in the same tensors and axes, whatever the size of a unit."""
    axes = ({name: (slices.axis, slices.groups) for name, slices in each.slices.items()} for each in (one, other))
    return next(axes) == next(axes)


class _Compared(NamedTuple):
    """The config of a model before it is narrowed, and what changes."""

    config: PretrainedConfig
    narrowing: Narrowing


@dataclass(slots=True)
class _Search:
    """Finds the field that counts units by trying those whose names say so.

    Attributes:
        model: the dense model.
        decoder: its blocks.
        unit: what is removed.
        sparsity: the fraction that is removed.
        refusal: why the last field did not do.
    """

    model: PreTrainedModel
    decoder: Decoder
    unit: Unit
    sparsity: float
    refusal: str = "its config has no field that counts them"

    def find(self) -> Narrowing:
        """Return the narrowing; raises as `find_narrowing`."""
        for name, units in self._counts():
            if not self._is_count(name, units):
                continue
            full = self._compare({}, name, units, units - self._removed(units))
            if full is None:
                continue
            for tried in self._smaller(name, full):
                refusal = why_not_narrowed(type(self.model), self.decoder, tried.config, tried.narrowing)
                if refusal is None:
                    return full.narrowing
                self.refusal = refusal
        whole = "MLPs" if self.unit == "channel" else "mixtures"
        raise PruningError(
            f"the {whole} of {type(self.model).__name__} cannot be narrowed alike, as {self.refusal}: use another "
            "method"
        )

    def _counts(self) -> Iterator[tuple[str, int]]:
        """Yield the fields that may count units, with the number that their model has."""
        if self.unit == "channel":
            columns = {one.weight.shape[1] for one in self.decoder.linears if one.sublayer == "mlp"}
        else:
            columns = {one.members for one in self.decoder.linears if one.routed}
        for name, value in self.model.config.get_text_config().to_dict().items():
            if _COUNTS[self.unit].search(name):
                values = {*value} if isinstance(value, list) and all(isinstance(one, int) for one in value) else {value}
                # GPT-2 has four times its width where nothing is said.
                unsaid = [{None}] if self.unit == "channel" else []
                yield from ((name, one) for one in sorted(columns) if values in ({one}, *unsaid))

    def _is_count(self, name: str, units: int) -> bool:
        """Return whether the config with this number of units builds the model."""
        try:
            built = build_empty(type(self.model), self._with({name: units}))
        except MISFITS as error:
            self.refusal = f"no model can be built from its config with {name}={units} ({one_line(error)})"
            return False
        stated, own = ({key: value.shape for key, value in named_tensors(one)} for one in (built, self.model))
        other = next((key for key in {**own, **stated} if own.get(key) != stated.get(key)), None)
        if other is not None and self.model.config.get_text_config().to_dict()[name] is not None:
            self.refusal = f"its config describes another model, in which {other} is not the same"
        return other is None

    def _removed(self, units: int) -> int:
        whole = "an MLP" if self.unit == "channel" else "a mixture"
        # 0.3 * 10 is slightly below 3 in floating point.
        removed = int(self.sparsity * units + 1e-9)
        if removed < 1:
            raise ArgumentError(
                f"sparsity={self.sparsity} removes none of the {units} {self.unit}s of {whole}: give at least "
                f"{1 / units:.4f}"
            )
        if self.unit == "expert":
            self._check_routing(units, units - removed)
        return removed

    def _check_routing(self, units: int, left: int) -> None:
        """Check that a token finds as many experts as it is routed to, and that they are in no groups."""
        fields = self.model.config.get_text_config().to_dict()
        counts = {name: value for name, value in fields.items() if isinstance(value, int) and value > 1}
        chosen = max((value for name, value in counts.items() if _CHOSEN.search(name)), default=1)
        groups = max((value for name, value in counts.items() if _GROUPS.search(name)), default=1)
        if left < chosen:
            raise ArgumentError(
                f"sparsity={self.sparsity} leaves {left} of the {units} experts of a mixture, and a token is routed to "
                f"{chosen}: give at most {(units - chosen) / units:.4f}"
            )
        if groups > 1:
            raise PruningError(
                f"the experts of {type(self.model).__name__} are in {groups} groups, which would be other groups "
                "without the removed ones: use another method"
            )

    def _smaller(self, name: str, full: _Compared) -> Iterator[_Compared]:
        """Yield models to run: with few channels and heads, which cost less and differ in the same places.

        Not every model can be built with fewer heads, or runs with them.
        """
        units = _TRIED if self.unit == "channel" else (full.narrowing.units, full.narrowing.left)
        few = {} if self.unit == "channel" else few_channels(self.model.config)
        heads = fewer_heads(self.model.config)
        narrow = self._compare(few | heads, name, *units) if heads else None
        if narrow is not None and _alike(narrow.narrowing, full.narrowing):
            yield narrow
        small = self._compare(few, name, *units)
        yield small if small is not None and _alike(small.narrowing, full.narrowing) else full

    def _compare(self, others: Mapping[str, int], name: str, units: int, left: int) -> _Compared | None:
        """Compare the models with `units` and with `left` units, and `others` in place; None where they do not fit."""
        try:
            wide, narrow = self._with({**others, name: units}), self._with({**others, name: left})
            before, after = build_empty(type(self.model), wide), build_empty(type(self.model), narrow)
        except MISFITS as error:
            self.refusal = f"its config does not take another {name} ({one_line(error)})"
            return None
        slices = self._slices(before, after, units, left)
        if slices is None:
            return None
        old, new = dict(before.named_modules()), dict(after.named_modules())
        fits, what = (
            (self._narrows_one_mlp, "is not the width of one MLP")
            if self.unit == "channel"
            else (self._narrows_one_mixture, "is not the number of experts")
        )
        if old.keys() != new.keys() or not all(fits(block, slices) for block in self.decoder.blocks):
            self.refusal = f"{name} in its config {what} in each block"
            return None
        attributes = {key: dict(differing_attributes(old[key], new[key])) for key in old}
        narrowing = Narrowing(
            unit=self.unit,
            units=units,
            left=left,
            config=narrow,
            slices=slices,
            attributes={key: differing for key, differing in attributes.items() if differing},
            removed=sum(
                value.numel() // units * (units - left)
                for key, value in before.named_parameters(remove_duplicate=False)
                if key in slices
            ),
        )
        return _Compared(wide, narrowing)

    def _with(self, counts: Mapping[str, int]) -> PretrainedConfig:
        fields = self.model.config.get_text_config().to_dict()
        for name, count in counts.items():
            value = fields[name]
            fields[name] = [count] * len(value) if isinstance(value, list) else count
        return with_fields(self.model.config, fields)

    def _slices(
        self, before: PreTrainedModel, after: PreTrainedModel, units: int, left: int
    ) -> dict[str, Slices] | None:
        """Return the slices of each tensor that is shorter afterwards, None where one changes in another way."""
        shapes = {name: value.shape for name, value in named_tensors(after)}
        found: dict[str, Slices] = {}
        for name, value in named_tensors(before):
            shape = shapes.get(name, value.shape)
            axes = [axis for axis, size in enumerate(shape) if size != value.shape[axis]]
            if not axes:
                continue
            times, rest = divmod(value.shape[axes[0]], units)
            if len(axes) > 1 or rest or shape[axes[0]] != times * left:
                self.refusal = f"{name} has other sizes than its {self.unit}s"
                return None
            found[name] = Slices(axes[0], groups=times) if self.unit == "channel" else Slices(axes[0], width=times)
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

    def _narrows_one_mixture(self, block: Block, slices: Mapping[str, Slices]) -> bool:
        """Return whether all stacks of experts have slices, and nothing has where there are none."""
        names = {name for name in slices if name.startswith(f"{block.name}.")}
        routed = [one for one in block.linears if one.routed]
        if not routed:
            return not names
        prefix = routed[0].name.rpartition(f".{routed[0].expert}")[0]
        stacked = {f"{prefix}.{one.parameter}" for one in routed}
        inside = all(name.startswith(tuple(f"{one.name}." for one in self.decoder.blocks)) for name in slices)
        return inside and stacked < names and all(slices[name].axis == 0 for name in stacked)
