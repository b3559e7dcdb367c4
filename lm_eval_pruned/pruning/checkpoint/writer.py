"""Write a checkpoint shard by shard, so that it never has to be in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

# Bytes per shard, which is in memory until it is written; a larger tensor gets a shard of its own.
SHARD_BYTES = 500_000_000


@dataclass(slots=True, kw_only=True)
class CheckpointWriter:
    """Collects tensors, writes a shard whenever there are enough, and the index at the end.

    A shard is written in the background while the next one is collected; at most one is waiting.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder, CheckpointWriter(folder=Path(folder), shard_bytes=8) as new:
        ...     new.add({"a": torch.zeros(2), "b": torch.ones(1), "c": torch.ones(1)})
        ...     new.finish()
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', 'model.safetensors.index.json']
    """

    folder: Path
    shard_bytes: int = SHARD_BYTES
    _pending: dict[str, Tensor] = field(default_factory=dict)
    _shards: list[list[str]] = field(default_factory=list)
    _total: int = 0
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))
    _writing: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the shard that is being written, so that no thread writes while an error is cleaned up."""
        self._thread.shutdown()

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Add named tensors, which must not change from now on; a name that was added before is tied, and skipped."""
        for name, tensor in tensors.items():
            if name in self._pending or any(name in names for names in self._shards):
                continue
            if self._pending and self._waiting() + tensor.nbytes > self.shard_bytes:
                self._flush()
            self._pending[name] = tensor.detach()
            self._total += tensor.nbytes
            if self._waiting() >= self.shard_bytes:
                self._flush()

    def finish(self) -> None:
        """Write the last shard and the index, and give the shards their final names."""
        if self._pending:
            self._flush()
        self._wait()
        count = len(self._shards)
        if count == 1:
            self._path(1).rename(self.folder / SAFE_WEIGHTS_NAME)
            return
        files = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
        for number, file in enumerate(files, start=1):
            self._path(number).rename(self.folder / file)
        weight_map = {name: file for names, file in zip(self._shards, files, strict=True) for name in names}
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(weight_map.items()))}
        (self.folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Remove what was written, when the checkpoint is written in another way."""
        self._pending.clear()
        self._thread.shutdown()
        for number in range(1, len(self._shards) + 1):
            self._path(number).unlink(missing_ok=True)

    def _waiting(self) -> int:
        return sum(tensor.nbytes for tensor in self._pending.values())

    def _flush(self) -> None:
        self._wait()
        self._shards.append([*self._pending])
        tensors = {name: _unshared(tensor) for name, tensor in self._pending.items()}
        self._pending.clear()
        self._writing = self._thread.submit(save_file, tensors, self._path(len(self._shards)), {"format": "pt"})

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _path(self, number: int) -> Path:
        return self.folder / f"model-{number:05}.safetensors"


def _unshared(tensor: Tensor) -> Tensor:
    """Return a tensor that does not share its storage: safetensors refuses slices of a fused one."""
    tensor = tensor.cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
