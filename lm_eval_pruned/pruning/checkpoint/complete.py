"""Find tensors that a checkpoint lacks, or has in another shape: transformers would fill them with random numbers."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from lm_eval_pruned.errors import DataError

# Number of tensors that an error names.
SHOWN = 3


def check_loaded(pretrained: str, loading: Mapping[str, Any]) -> None:
    """Check the loading info of transformers: every weight of the model is from its checkpoint.

    Args:
        pretrained: name of the checkpoint.
        loading: what `from_pretrained(output_loading_info=True)` returns next to the model.

    Raises:
        DataError: a tensor is missing, or has another shape than in the model.

    Example:
        >>> check_loaded("mine", {"missing_keys": ["h.0.w"], "mismatched_keys": [("h.1.w", (2, 2), (3, 2))]})
        Traceback (most recent call last):
        lm_eval_pruned.errors.DataError: pretrained=mine lacks h.0.w, and has h.1.w as (2, 2) instead of (3, 2): ...
    """
    missing = sorted(map(str, loading.get("missing_keys", ())))
    mismatched = sorted(map(_mismatch, loading.get("mismatched_keys", ())))
    wrong = [f"{verb} {_shown(names)}" for verb, names in (("lacks", missing), ("has", mismatched)) if names]
    if wrong:
        raise DataError(
            f"pretrained={pretrained} {', and '.join(wrong)}: these weights would be random numbers. Check that its "
            "config.json belongs to its files, and that all of them were saved and downloaded"
        )


def check_complete(pretrained: str, model: PreTrainedModel, stored: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Check from names and shapes alone that a checkpoint has every weight of its model; no weight is read.

    transformers itself decides, by loading tensors on the meta device: it knows which are tied, renamed, fused or made
    when a model is built.

    Args:
        pretrained: name of the checkpoint.
        model: the model of its config, on the meta device.
        stored: the tensors of the checkpoint, on the meta device.
        dtype: dtype that the weights are loaded in.

    Raises:
        DataError: as `check_loaded`.
    """
    with _quietly():
        try:
            _, loading = cast("Any", type(model)).from_pretrained(
                None,
                config=model.config,
                state_dict={**stored},
                device_map={"": "meta"},
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except RuntimeError as error:
            if "meta" in str(error):
                # A class that computes while it loads; its loading info is checked when it is loaded.
                return
            if "conversion" not in str(error):
                raise
            lacking = sorted(_expected(model) - stored.keys())
            detail = f"lacks {_shown(lacking)}" if lacking else "has tensors that do not fit together"
            raise DataError(
                f"pretrained={pretrained} {detail}: its weights cannot be put together. Check that its config.json "
                "belongs to its files, and that all of them were saved and downloaded"
            ) from None
    check_loaded(pretrained, loading)


def _expected(model: PreTrainedModel) -> set[str]:
    """Return the names that the tensors of a model have in a checkpoint; none before transformers 5."""
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return set()
    return {*revert_weight_conversion(model, model.state_dict())}


def _mismatch(found: str | tuple[str, Sequence[int], Sequence[int]]) -> str:
    """Describe a tensor of another shape; before transformers 5, loading info has its name alone."""
    if isinstance(found, str):
        return f"{found} in another shape"
    name, stored, wanted = found
    return f"{name} as {tuple(stored)} instead of {tuple(wanted)}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence transformers, whose report on a load that is only tried would mislead."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _shown(names: Collection[str]) -> str:
    shown = ", ".join([*names][:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
