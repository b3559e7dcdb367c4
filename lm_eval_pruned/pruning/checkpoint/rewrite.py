"""Write a pruned checkpoint from its source: every tensor as it was stored, unless it was pruned or its block dropped.

What the model class does not read (multi-token prediction, a head beside tied embeddings) is copied.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_pruned.pruning.checkpoint.names import Renumbering, block_prefix, of_first_expert, paired, stored_container
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.writer import SHARD_BYTES, CheckpointWriter

logger = logging.getLogger(__name__)

# Number of tensors that a log line names.
SHOWN = 3


@dataclass(slots=True, kw_only=True)
class Rewriter:
    """Adds tensors of a model to a new checkpoint, and in the end those of the source that no model has read.

    Attributes:
        source: the checkpoint that the model was read from.
        writer: writer of the new checkpoint.
        keeps_dtype: whether a tensor that did not change is written in the dtype of the source.
    """

    source: Shards
    writer: CheckpointWriter
    keeps_dtype: bool
    _done: set[str] = field(default_factory=set)
    _headers: Mapping[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Read the headers of the source."""
        self._headers = self.source.on_meta()

    def add(self, tensors: Mapping[str, Tensor], stored: Mapping[str, str]) -> None:
        """Add named tensors.

        Args:
            tensors: what the model holds, by its name in the new checkpoint.
            stored: name in the source of each of them that is there.
        """
        # What blocks share is written with the first of them.
        tensors = {name: tensor for name, tensor in tensors.items() if stored.get(name) not in self._done}
        self._done.update(stored.values())
        new = {stored[name]: name for name in tensors if name in stored} if self.keeps_dtype else {}
        # What has the dtype that it is stored with is right as it is, changed or not: nothing is read again.
        converted = {old for old, name in new.items() if self._is_other(old, tensors[name])}
        for old, original in self.source.read_each(converted):
            tensor = tensors[new[old]]
            self.writer.add({new[old]: original if is_unchanged(original, tensor) else tensor})
        written = {new[old] for old in converted}
        self.writer.add({name: tensor for name, tensor in tensors.items() if name not in written})

    def _is_other(self, name: str, tensor: Tensor) -> bool:
        original = self._headers[name]
        return (original.dtype, original.shape) != (tensor.dtype, tensor.shape)

    def leave_out(self, names: Collection[str]) -> None:
        """Leave out tensors of the source, by name."""
        self._done.update(names)

    def finish(self, renumbering: Renumbering) -> None:
        """Copy what is left of the source, log what the model did not read, and write the index."""
        left = [name for name in self.source.files if name not in self._done and renumbering.new_name(name)]
        if renumbering.drops_experts:
            left = [name for name in left if of_first_expert(name) not in self._done]
        quantised = left_quantised(self.source, left)
        copied = [name for name in left if name not in quantised]
        for name, tensor in self.source.read_each(copied):
            self.writer.add({renumbering.new_name(name) or name: tensor})
        self.writer.finish()
        if copied:
            logger.info("%d tensors that the model does not read are copied as they are: %s", *_shown(copied))
        # Scales of weights that were dequantised while the model was loaded are of no use any more.
        read = {name.rpartition(".")[0] for name in self._done}
        unread = [name for name in left if name in quantised and name.rpartition(".")[0] not in read]
        if unread:
            logger.warning(
                "%d tensors that the model does not read are left out, as they are quantised and the written ones are "
                "not: %s",
                *_shown(unread),
            )


def write_whole(
    model: PreTrainedModel,
    source: Shards,
    output: Path,
    *,
    dense: Collection[str],
    renumbering: Renumbering,
    keeps_dtype: bool,
) -> None:
    """Write the weights of a loaded model to `output` under the names that they have in its source.

    transformers renames and fuses tensors as it loads them and reverts that as it saves them; what differs from the
    source afterwards is found tensor by tensor.

    Args:
        model: the pruned model.
        source: the checkpoint that it was read from; without tensors, the model is saved as it is.
        output: folder of the new checkpoint.
        dense: names of its tensors before it was pruned.
        renumbering: which blocks are dropped, with the name that their list has in the model.
        keeps_dtype: whether a tensor that did not change is written in the dtype of the source.
    """
    with TemporaryDirectory(dir=output, prefix=".whole") as folder, CheckpointWriter(folder=output) as writer:
        model.save_pretrained(folder, max_shard_size=SHARD_BYTES)
        saved = Shards.open(folder, revision="main")
        blocks, left = renumbering.container, model.state_dict().keys()
        gone = {name for name in dense if (new_name := renumbering.new_name(name)) and new_name not in left}
        own = {name.removeprefix(f"{blocks}.0.") for name in left if name.startswith(f"{blocks}.0.")}
        renumbering = replace(renumbering, container=stored_container(source.files, blocks, own))
        new = {renumbered: name for name in source.files if (renumbered := renumbering.new_name(name))}
        pairs = paired(saved.files, new)
        rewriter = Rewriter(source=source, writer=writer, keeps_dtype=keeps_dtype)
        for path, names in _by_file(saved):
            for name, tensor in saved.read_each(names):
                written = pairs.get(name, name)
                rewriter.add({written: tensor}, {written: new[written]} if written in new else {})
            path.unlink()
        rewriter.leave_out(paired(gone, source.files).values())
        rewriter.finish(renumbering)


def is_unchanged(original: Tensor, tensor: Tensor) -> bool:
    """Return whether a tensor of a model is what was stored, but perhaps for its dtype.

    Codes of a quantised weight never are, even if they equal what they stand for.
    """
    if original.shape != tensor.shape or is_code(original):
        return False
    return torch.equal(original.to(tensor.dtype), tensor.to(original.device))


def is_code(tensor: Tensor) -> bool:
    """Return whether a tensor holds codes of a quantised weight: bytes that are not booleans."""
    return tensor.element_size() == 1 and tensor.dtype != torch.bool


def left_quantised(source: Shards, names: Iterable[str]) -> set[str]:
    """Return those of some tensors that stand in a block with codes among them, or are scales of codes elsewhere."""
    stored = source.on_meta()
    codes = {name for name, tensor in stored.items() if is_code(tensor)}
    names = set(names)
    blocks = {block_prefix(name) for name in names & codes}
    modules = {name.rpartition(".")[0] for name in codes}
    return {name for name in names if block_prefix(name) in blocks or name.rpartition(".")[0] in modules}


def _by_file(shards: Shards) -> Iterator[tuple[Path, list[str]]]:
    for path in sorted({*shards.files.values()}):
        yield path, [name for name, file in shards.files.items() if file == path]


def _shown(names: Collection[str]) -> tuple[int, str]:
    shown = ", ".join(sorted(names)[:SHOWN])
    return len(names), shown + (", ..." if len(names) > SHOWN else "")
