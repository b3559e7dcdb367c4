"""A fingerprint names everything that determines which weights are zero."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lm_eval_pruned import __version__


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and values of all parameters, in the order of their names."""
    parts = [f"{name} {tensor_digest(value)}" for name, value in sorted(model.named_parameters())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def fingerprint(config: Mapping[str, object], *, weights: str, windows: Tensor | None) -> str:
    """Return the SHA-256, in hex, of the settings, the dense weights, the calibration windows and our version."""
    content = {
        "config": config,
        "weights": weights,
        "windows": None if windows is None else tensor_digest(windows),
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
