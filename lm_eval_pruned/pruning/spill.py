"""Spilling: what an artifact keeps moves to the disk block by block, until the artifact as a whole is written."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile

from safetensors.torch import load_file, save_file
from torch import Tensor


def spill(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return the same tensors, mapped from a file in `folder` that nobody sees and that ends with the last of them."""
    with NamedTemporaryFile(dir=folder, suffix=".spill") as file:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file.name)
        return load_file(file.name)
