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
from lm_eval_pruned.pruning.model.residency import IN_MEMORY, Presence

_ORIGIN = ("_name_or_path", "transformers_version")


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(model: nn.Module, presence: Presence = IN_MEMORY) -> str:
    """SHA-256 over the names and values of all parameters, in the order of their names."""
    wanted = {name for name, _ in model.named_parameters()}
    prefixes = {module: f"{name}." if name else "" for name, module in model.named_modules()}
    lines: list[str] = []
    # hashlib lets other threads run while it works on large tensors.
    with ThreadPoolExecutor() as pool:
        for part in presence.each(presence.parts(model)):
            named = {prefixes[part] + name: value for name, value in part.named_parameters()}
            names = [name for name in named if name in wanted]
            digests = pool.map(tensor_digest, [named[name] for name in names])
            lines += [f"{name} {digest}" for name, digest in zip(names, digests, strict=True)]
    return _digest_lines(sorted(lines))


def windows_digest(windows: Iterable[Tensor]) -> str:
    """SHA-256 over calibration windows, whether they are rows of a matrix or apart."""
    return _digest_lines([tensor_digest(window) for window in windows])


def config_digest(config: PretrainedConfig) -> str:
    """SHA-256 over what a config says about the computation, and not where it came from."""
    content = {name: value for name, value in config.to_dict().items() if name not in _ORIGIN}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(
    settings: Mapping[str, object], model: nn.Module, *, windows: str | None, presence: Presence = IN_MEMORY
) -> str:
    """Return the SHA-256, in hex, of settings, dense model, calibration windows (their digest) and our version."""
    config = getattr(model, "config", None)
    content = {
        "settings": settings,
        "weights": weights_digest(model, presence),
        "model": config_digest(config) if isinstance(config, PretrainedConfig) else None,
        "windows": windows,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
