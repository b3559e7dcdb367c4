"""Read tensors by name from the safetensors shards of a checkpoint, each when it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.pruning.checkpoint.resolve import find_file

# Tensors are mapped and copied in slices of at most this size, so that mapped pages do not add up.
SLICE_BYTES = 1 << 27


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """The file of every tensor of a checkpoint, by name."""

    files: Mapping[str, Path]

    @classmethod
    def open(cls, source: str, *, revision: str) -> Shards:
        """List the tensors of a folder or hub id, downloading its files; without safetensors the list is empty.

        Raises:
            DataError: a file is missing or truncated.
        """
        single = find_file(source, SAFE_WEIGHTS_NAME, revision=revision)
        if single is not None:
            with _opened(single) as file:
                return cls(files=dict.fromkeys(file.keys(), single))
        index = find_file(source, SAFE_WEIGHTS_INDEX_NAME, revision=revision)
        if index is None:
            return cls(files={})
        try:
            names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except MALFORMED as error:
            raise DataError(f"{index} is damaged ({error!r}): download the checkpoint again") from None
        found = {name: find_file(source, name, revision=revision) for name in sorted({*names.values()})}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise DataError(
                f"{source} lacks {', '.join(missing)}, which its index names: download the checkpoint again"
            )
        return cls(files={name: path for name, file in names.items() if (path := found[file])})

    def copy_into(self, destinations: Mapping[str, Tensor]) -> None:
        """Copy the named tensors to their destinations, which may have another dtype and device.

        Raises:
            DataError: a file is truncated or lacks a tensor, or a tensor has another shape than its destination.
        """
        for name, destination in sorted(destinations.items(), key=lambda item: self.files[item[0]]):
            path = self.files[name]
            with _opened(path) as file:
                shape = file.get_slice(name).get_shape()
            if shape != [*destination.shape]:
                raise DataError(
                    f"{name} in {path} has the shape {shape}, and not {[*destination.shape]} as the config says"
                )
            step = max(1, SLICE_BYTES // max(1, destination[:1].nbytes)) if shape else 1
            for start in range(0, shape[0] if shape else 1, step):
                rows = slice(start, start + step) if shape else ...
                # Mapped pages stay in memory until the file is closed.
                with _opened(path) as file:
                    destination[rows].copy_(file.get_slice(name)[rows])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is torn or cannot be read ({error}): download the checkpoint again") from None
