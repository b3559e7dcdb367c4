"""Read tensors by name from the files of a checkpoint, each when it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from huggingface_hub import get_safetensors_metadata
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_utils import load_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.pruning.checkpoint.resolve import find_file

# Tensors are mapped and copied in slices of at most this size, so that mapped pages do not add up.
SLICE_BYTES = 1 << 27
SAFE = ".safetensors"
# The dtypes that safetensors names; any other is one of bytes.
DTYPES = {
    "BOOL": torch.bool,
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """The file of every tensor of a checkpoint, by name."""

    files: Mapping[str, Path]

    @classmethod
    def open(cls, source: str, *, revision: str, subfolder: str = "") -> Shards:
        """List the tensors of a folder or hub id, downloading its files; without safetensors the list is empty.

        Raises:
            DataError: a file is missing or truncated.
        """
        names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
        return cls(files=_listed(Location(source, revision, subfolder), *names))

    @classmethod
    def open_any(cls, source: str, *, revision: str, subfolder: str = "") -> Shards:
        """List the tensors as `open` does, or those of `pytorch_model.bin` where there are no safetensors.

        Raises:
            DataError: a file is missing or truncated.
        """
        found = cls.open(source, revision=revision, subfolder=subfolder)
        pickled = Location(source, revision, subfolder)
        return found if found.files else cls(files=_listed(pickled, WEIGHTS_NAME, WEIGHTS_INDEX_NAME))

    def on_meta(self) -> dict[str, Tensor]:
        """Return all tensors on the meta device: their names, shapes and dtypes are read, and no weight.

        Raises:
            DataError: a file is truncated.
        """
        found: dict[str, Tensor] = {}
        for path in sorted({*self.files.values()}):
            found |= _shapes(path) if path.suffix == SAFE else _unpickled(path, device="meta")
        return {name: found[name] for name in self.files if name in found}

    def read_each(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the named tensors as they are stored, file by file.

        Raises:
            DataError: a file is truncated.
        """
        wanted = set(names)
        for path in sorted({*self.files.values()}):
            own = [name for name in self.files if name in wanted and self.files[name] == path]
            if path.suffix == SAFE:
                for name in own:
                    # Mapped pages stay in memory until the file is closed.
                    with _opened(path) as file:
                        yield name, file.get_tensor(name)
            elif own:
                tensors = _unpickled(path)
                yield from ((name, tensors[name]) for name in own)

    def copy_into(self, destinations: Mapping[str, Tensor]) -> None:
        """Copy the named tensors to their destinations, which may have another dtype and device.

        Raises:
            DataError: a file is truncated or lacks a tensor, or a tensor has another shape than its destination.
        """
        for name, destination in sorted(destinations.items(), key=lambda item: self.files[item[0]]):
            for rows, part in self.slices(name, [*destination.shape]):
                destination[rows].copy_(part)

    def slices(self, name: str, shape: list[int]) -> Iterator[tuple[slice | EllipsisType, Tensor]]:
        """Yield the rows of a tensor as it is stored, some at a time, with their place; one without axes as a whole.

        Args:
            name: the tensor.
            shape: the shape that it should have.

        Raises:
            DataError: a file is truncated or lacks the tensor, or the tensor has another shape.
        """
        path = self.files[name]
        with _opened(path) as file:
            stored = file.get_slice(name)
            found, size = stored.get_shape(), DTYPES.get(stored.get_dtype(), torch.uint8).itemsize
        if found != shape:
            raise DataError(f"{name} in {path} has the shape {found}, and not {shape} as the config says")
        if not shape:
            with _opened(path) as file:
                yield ..., file.get_tensor(name)
            return
        step = max(1, SLICE_BYTES // max(1, prod(shape[1:]) * size))
        for start in range(0, shape[0], step):
            rows = slice(start, start + step)
            # Mapped pages stay in memory until the file is closed.
            with _opened(path) as file:
                yield rows, file.get_slice(name)[rows]


def remote_headers(source: str, *, revision: str) -> dict[str, Tensor]:
    """Return the tensors of a model on the hub on the meta device, from the headers of its files; {} without them."""
    try:
        metadata = get_safetensors_metadata(source, revision=revision)
    except (OSError, ValueError, NotASafetensorsRepoError, SafetensorsParsingError):
        return {}
    return {
        name: torch.empty(tensor.shape, dtype=DTYPES.get(tensor.dtype, torch.uint8), device="meta")
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
    }


def has_own_head(model: PreTrainedModel, shards: Shards) -> bool:
    """Return whether the head of a checkpoint differs from the embeddings that its config ties it to."""
    names: dict[Tensor, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if name in shards.files:
            names.setdefault(value, []).append(name)
    for tied in (own for own in names.values() if len(own) > 1):
        first, *others = (tensor for _, tensor in shards.read_each(tied))
        if not all(torch.equal(first, other) for other in others):
            return True
    return False


class Location(NamedTuple):
    """Where the files of a checkpoint are: a folder or hub id, its revision, and a folder inside it."""

    source: str
    revision: str
    subfolder: str

    def find(self, name: str) -> Path | None:
        """Return the path of a file, downloaded if need be."""
        return find_file(self.source, name, revision=self.revision, subfolder=self.subfolder)


def _listed(location: Location, whole: str, index_name: str) -> dict[str, Path]:
    """Return the file of each tensor, from one whole file or from an index; {} where there is neither."""
    single = location.find(whole)
    if single is not None:
        return dict.fromkeys(_names(single), single)
    index = location.find(index_name)
    if index is None:
        return {}
    try:
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except MALFORMED as error:
        raise DataError(f"{index} is damaged ({error!r}): download the checkpoint again") from None
    found = {name: location.find(name) for name in sorted({*names.values()})}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DataError(
            f"{location.source} lacks {', '.join(missing)}, which its index names: download the checkpoint again"
        )
    return {name: path for name, file in names.items() if (path := found[file])}


def _names(path: Path) -> list[str]:
    if path.suffix != SAFE:
        return [*_unpickled(path, device="meta")]
    with _opened(path) as file:
        return [*file.keys()]


def _shapes(path: Path) -> dict[str, Tensor]:
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: torch.empty(one.get_shape(), dtype=DTYPES.get(one.get_dtype(), torch.uint8), device="meta")
            for name, one in slices.items()
        }


def _unpickled(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    try:
        # transformers unpickles nothing but tensors.
        content = load_state_dict(str(path), map_location=device)
    except Exception as error:
        # Unpickling a torn file raises errors of any kind.
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is torn or cannot be read ({reason}): download the checkpoint again") from None
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is torn or cannot be read ({error}): download the checkpoint again") from None
