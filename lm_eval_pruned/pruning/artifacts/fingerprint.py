"""Fingerprints: SHA-256 digests of everything that determines which weights are pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm_eval_pruned import __version__
from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.pruning.model.decoder import Decoder

_ORIGIN = ("_name_or_path", "transformers_version")


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().cpu().contiguous()
    digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class WeightsHash:
    """SHA-256 over the names and values of all parameters, in the order of their names, added module by module.

    Args:
        decoder: the model.
        pool: threads that hash; hashlib releases the GIL while it hashes large buffers.
    """

    def __init__(self, decoder: Decoder, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        model = decoder.model
        self._wanted = {name for name, _ in model.named_parameters()}
        # Of a module outside the blocks only its own parameters are in memory; those in it have their turn.
        self._whole = [model, *(block.module for block in decoder.blocks)]
        self._prefixes = {module: f"{name}." if name else "" for name, module in model.named_modules()}
        self._digests: dict[str, str] = {}

    @contextmanager
    def add(self, module: nn.Module) -> Iterator[None]:
        """Hash a block, another module with weights, or the whole model, beside what a `with` block does."""
        own = module.named_parameters(recurse=module in self._whole)
        named = {self._prefixes[module] + name: value for name, value in own}
        names = [name for name in named if name in self._wanted]
        digests = self._pool.map(tensor_digest, [named[name] for name in names])
        yield
        self._digests.update(zip(names, digests, strict=True))

    def digest(self) -> str:
        """Return the digest of all that was added."""
        return _digest_lines(sorted(f"{name} {digest}" for name, digest in self._digests.items()))


def weights_digest(decoder: Decoder) -> str:
    """SHA-256 over the names and values of all parameters, in the order of their names."""
    with ThreadPoolExecutor() as pool:
        weights = WeightsHash(decoder, pool)
        for module in decoder.residency.onload_each(decoder.residency.modules(decoder.model)):
            with weights.add(module):
                pass
        return weights.digest()


def windows_digest(windows: Iterable[Tensor]) -> str:
    """SHA-256 over calibration windows, the same for the rows of a matrix and for separate tensors."""
    return _digest_lines([tensor_digest(window) for window in windows])


def config_digest(config: PretrainedConfig) -> str:
    """SHA-256 over the fields of a config that describe the computation, without where it came from."""
    content = {name: value for name, value in config.to_dict().items() if name not in _ORIGIN}
    return sha256_of_json(content, default=str)


def fingerprint(settings: Mapping[str, object], decoder: Decoder, *, weights: str, windows: str | None) -> str:
    """Return the SHA-256, in hex, of settings, dense model, calibration windows and our version.

    Args:
        settings: those that decide which weights are removed.
        decoder: the dense model.
        weights: digest of its weights.
        windows: digest of the calibration windows, if there are any.
    """
    config = getattr(decoder.model, "config", None)
    content = {
        "settings": settings,
        "weights": weights,
        "model": config_digest(config) if isinstance(config, PretrainedConfig) else None,
        "windows": windows,
        "version": __version__,
    }
    return sha256_of_json(content)


def _digest_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
