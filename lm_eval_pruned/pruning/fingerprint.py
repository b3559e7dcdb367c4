"""A fingerprint names everything that determines which weights are zero."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm_eval_pruned import __version__

_ORIGIN = ("_name_or_path", "transformers_version")


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and values of all parameters, in the order of their names."""
    names, values = zip(*sorted(model.named_parameters()), strict=True)
    # hashlib lets other threads run while it works on large tensors.
    with ThreadPoolExecutor() as pool:
        parts = [f"{name} {digest}" for name, digest in zip(names, pool.map(tensor_digest, values), strict=True)]
    return _digest_lines(parts)


def windows_digest(windows: Iterable[Tensor]) -> str:
    """SHA-256 over calibration windows, whether they are rows of a matrix or apart."""
    return _digest_lines([tensor_digest(window) for window in windows])


def config_digest(config: PretrainedConfig) -> str:
    """SHA-256 over what a config says about the computation, and not where it came from."""
    content = {name: value for name, value in config.to_dict().items() if name not in _ORIGIN}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(settings: Mapping[str, object], model: nn.Module, *, windows: str | None) -> str:
    """Return the SHA-256, in hex, of settings, dense model, calibration windows (their digest) and our version."""
    config = getattr(model, "config", None)
    content = {
        "settings": settings,
        "weights": weights_digest(model),
        "model": config_digest(config) if isinstance(config, PretrainedConfig) else None,
        "windows": windows,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
