"""Explain why a checkpoint cannot be loaded, in one sentence that names the damaged file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig
from transformers.utils import CONFIG_NAME

from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, MissingPackageError, PrunedEvalError
from lm_eval_pruned.files import NOT_JSON
from lm_eval_pruned.pruning.checkpoint.resolve import INVALID, REMOTE, checkpoint_folder, needs_code, unreachable

# The JSON files that loading a checkpoint reads.
JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")

# The endings of files with weights.
WEIGHTS = (".safetensors", ".bin", ".gguf")

# What transformers and its dependencies raise for truncated or mistaken files.
_ERRORS = (SafetensorError, ValueError, RuntimeError, *INVALID)


@contextmanager
def explained(pretrained: str, *, revision: str = "main") -> Iterator[None]:
    """Turn errors in a `with` block that loads a checkpoint into ours; errors without a damaged file pass through.

    Raises:
        MissingDataError: it cannot be reached, or a file of it is missing.
        DataError: a file of it is damaged.
        MissingPackageError: a package is missing that loading needs.
        ArgumentError: it needs code of its own, which was not allowed, or has no such implementation of attention.
    """
    try:
        yield
    except PrunedEvalError:
        raise
    except ImportError as error:
        raise MissingPackageError(
            f"pretrained={pretrained} cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    except (OSError, *_ERRORS) as error:
        if REMOTE in str(error):
            raise needs_code(pretrained) from error
        if "attn_implementation=" in str(error):
            raise ArgumentError(" ".join(str(error).split())) from error
        if isinstance(error, OSError):
            raise unreachable(pretrained, error) from error
        damage = _damage(pretrained, revision)
        if damage is None:
            raise
        raise DataError(
            f"pretrained={pretrained} cannot be loaded: {damage}. If a download was interrupted, remove the file and "
            "download it again"
        ) from error


def _damage(pretrained: str, revision: str) -> str | None:
    """Return which file of a checkpoint cannot be read and why, or else why its config is invalid."""
    try:
        folder = checkpoint_folder(pretrained, revision=revision)
    except MissingDataError:
        return None
    for path in (folder / name for name in JSON_FILES):
        try:
            if path.exists() and not isinstance(json.loads(path.read_bytes()), dict):
                return f"{path} does not hold a JSON object"
        except NOT_JSON as error:
            return f"{path} is not JSON ({error})"
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            return f"{path} is cut short or not a safetensors file ({error})"
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        return f"{folder} has no weights"
    if not (folder / CONFIG_NAME).exists():
        # A GGUF file holds its own config.
        return None
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, *INVALID) as error:
        return "its config.json is not valid: " + " ".join(str(error).split())
    return None
