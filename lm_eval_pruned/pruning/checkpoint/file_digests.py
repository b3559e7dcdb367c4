"""Digests of the tensors of a checkpoint, hashed from its files beside the loading of the model.

A parameter has the digest of its stored tensor if every byte of it is equal. Comparing takes a tenth of the time of
hashing, and what transformers converts, renames or changes while it loads is hashed after loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.pruning.artifacts.fingerprint import parts_digest
from lm_eval_pruned.pruning.checkpoint.reader import SAFE, Shards

WORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigests:
    """Digests of stored tensors, some of which are still being hashed.

    Attributes:
        shards: the checkpoint.
        stored: its tensors on the meta device, by name.
        digests: the digests of some of them, by name.
    """

    shards: Shards
    stored: Mapping[str, Tensor]
    digests: Mapping[str, Future[str]]

    def of(self, name: str, value: Tensor) -> str | None:
        """Return the digest of a parameter; None if it is not what is stored, or its turn has not come yet."""
        hashed, stored = self.digests.get(name), self.stored.get(name)
        # The caller would only wait for a tensor that is still queued: it hashes that one itself.
        if hashed is None or stored is None or hashed.cancel():
            return None
        if (stored.dtype, stored.shape) != (value.dtype, value.shape):
            return None
        try:
            parts = self.shards.slices(name, [*value.shape])
            return hashed.result() if all(_same_bytes(value[rows], part) for rows, part in parts) else None
        except DataError:
            return None


@contextmanager
def hashed_beside(shards: Shards, dtype: str) -> Iterator[FileDigests]:
    """Hash the tensors of a checkpoint in the background of a `with` block, in which they are loaded.

    Args:
        shards: the tensors; those of other files than safetensors are left out.
        dtype: the dtype in which they are loaded, or `auto`; tensors that would be converted are left out.
    """
    own = Shards(files={name: path for name, path in shards.files.items() if path.suffix == SAFE})
    stored = own.on_meta()
    # Codes of quantised weights are never loaded as they are.
    names = [
        name
        for name, tensor in stored.items()
        if dtype in ("auto", str(tensor.dtype).removeprefix("torch.")) and tensor.element_size() > 1
    ]

    def hashed(name: str) -> str:
        shape = stored[name].shape
        return parts_digest(stored[name].dtype, shape, (part for _, part in own.slices(name, [*shape])))

    # Loading takes a core of its own; hashlib releases the GIL.
    with ThreadPoolExecutor(max(1, torch.get_num_threads() - 1)) as pool:
        try:
            yield FileDigests(shards=own, stored=stored, digests={name: pool.submit(hashed, name) for name in names})
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _same_bytes(value: Tensor, stored: Tensor) -> bool:
    """Compare a weight with what is stored, on the device of the weight."""
    pair = [one.detach().contiguous().view(-1).view(torch.uint8) for one in (value, stored.to(value.device))]
    if all(len(one) % WORD == 0 and one.data_ptr() % WORD == 0 for one in pair):
        # Words of eight bytes are compared ten times as fast as single ones.
        pair = [one.view(torch.int64) for one in pair]
    return torch.equal(*pair)
