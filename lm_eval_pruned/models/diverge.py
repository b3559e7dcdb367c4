"""Diverge: a checkpoint before and after pruning, along traces that the dense model wrote."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.config import RunConfig
from lm_eval_pruned.divergence.head import TwoParts, divide
from lm_eval_pruned.divergence.measure import DenseTraces, Divergences, dense_traces, diverge
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.models.prune_checkpoint import CheckedCheckpoint, check_pretrained
from lm_eval_pruned.models.trace_files import read_traces
from lm_eval_pruned.models.trace_tokens import tokenize_traces
from lm_eval_pruned.models.traces import thinking_format
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.artifacts.fingerprint import config_digest, fingerprint, weights_digest
from lm_eval_pruned.pruning.artifacts.report import PruneReport, software_versions
from lm_eval_pruned.pruning.artifacts.store import Artifact, Store, artifacts_folder
from lm_eval_pruned.pruning.calibration.source import DEFAULT_CONTEXT, stated_context
from lm_eval_pruned.pruning.checkpoint.load import Checkpoint
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, load_tokenizer, read_config
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.pruning.recipe import Recipe

logger = logging.getLogger(__name__)

# Folder inside that of the artifact cache.
CACHE = "dense_traces"
STATES = "states"
# Tokens on which a model in two parts is compared with the whole.
PROBE_TOKENS = 64
# Sampled chains of thought have about half a nat a token under the model that wrote them.
UNLIKELY_NATS = 2.0


class ReadTraces(NamedTuple):
    """Traces as token ids, the fingerprint of the model that wrote each where it is known, and all budgets of them."""

    traces: list[TokenTrace]
    models: list[str | None]
    budgets: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A loaded dense model, in two parts, with what it computes along traces."""

    checked: CheckedCheckpoint
    checkpoint: Checkpoint
    model: TwoParts
    along: DenseTraces


class Diverged(NamedTuple):
    """What pruning changed at each token of some traces, the pruning report, and the tokenizer."""

    traces: Sequence[TokenTrace]
    divergences: Divergences
    budgets: Sequence[int]
    report: PruneReport
    tokenizer: PreTrainedTokenizerBase


def diverge_pretrained(
    pretrained: str, recipe: Recipe, run: RunConfig, options: LoadOptions, places: Sequence[Path]
) -> Diverged:
    """Run the dense model along traces, unless that is cached, prune it in memory, and run it along them once more.

    Args:
        pretrained: hub id, folder, or the bundled model.
        recipe: how it is pruned.
        run: thinking format, and the artifact cache, which also keeps what the dense model computes.
        options: how it is loaded.
        places: where the traces are.

    Raises:
        PrunedEvalError: something is wrong with the settings, the traces, the model or the calibration data.
    """
    checked = check_pretrained(pretrained, recipe, options)
    read = read_for(checked, run, places)
    windows = checked.windows()
    dense = run_dense(checked, run, read)
    checkpoint = dense.checkpoint
    windows = windows or checked.windows_of_model(checkpoint, thinking=run.thinking)
    report = prune_model(checkpoint.model, recipe, windows, artifacts=artifacts_folder(run.artifacts))
    divergences = measure(dense, name=recipe.config.method)
    warn_if_unlikely(divergences)
    return Diverged(dense.along.traces, divergences, read.budgets, report, checkpoint.tokenizer)


def read_for(checked: CheckedCheckpoint, run: RunConfig, places: Sequence[Path]) -> ReadTraces:
    """Read and tokenize traces for a checkpoint, before any weight is loaded.

    Raises:
        MissingDataError, DataError: there are none, or they are malformed or of another tokenizer.
    """
    config: PretrainedConfig = read_config(checked.source, checked.options).get_text_config()
    tokenizer = load_tokenizer(checked.source, checked.options)
    texts = read_traces(places, thinking_format(run.thinking, tokenizer))
    context = stated_context(config) or DEFAULT_CONTEXT
    pairs = tokenize_traces(texts.traces, tokenizer, context=context, vocabulary=config.vocab_size)
    traces = [ids for _, ids in pairs]
    longest = max(trace.thinking for trace in traces)
    # Without budgets of their own, powers of two up to the longest thinking.
    powers = [2**power for power in range(4, max(4, (longest - 1).bit_length()) + 1)]
    return ReadTraces(traces, [text.model for text, _ in pairs], texts.budgets or powers)


def run_dense(checked: CheckedCheckpoint, run: RunConfig, read: ReadTraces) -> Dense:
    """Load a model and run it along traces, or read from the cache what an earlier run computed.

    Traces that other models wrote, such as the pruned ones of a response store, are left out if it wrote any itself.
    """
    checkpoint = checked.load()
    model = checkpoint.model
    weights = weights_digest(find_decoder(model))
    traces = written_by(read, fingerprint({"method": "none"}, find_decoder(model), weights=weights, windows=None))
    probe = torch.tensor([max(traces, key=lambda trace: len(trace.ids)).ids[:PROBE_TOKENS]], device=model.device)
    parts = divide(model, probe)
    folder = artifacts_folder(run.artifacts)
    along = cached_traces(parts, traces, identity(model, parts, weights), None if folder is None else folder / CACHE)
    return Dense(checked=checked, checkpoint=checkpoint, model=parts, along=along)


def written_by(read: ReadTraces, model: str) -> list[TokenTrace]:
    """Return the traces of a model, by its fingerprint; all, with a warning, if it wrote none of them."""
    own = [trace for trace, writer in zip(read.traces, read.models, strict=True) if writer in (model, None)]
    others = len(read.traces) - len(own)
    if others and own:
        logger.warning("%d of %d traces were written by another model and are left out", others, len(read.traces))
    elif others:
        logger.warning(
            "the traces were written by another model, or by this one in another dtype: they show what changed on text "
            "that the dense model itself might not write"
        )
    return own or read.traces


def identity(model: PreTrainedModel, parts: TwoParts, weights: str) -> dict[str, object]:
    """Return what decides the states of a dense model, as JSON values."""
    return {
        "weights": weights,
        "config": config_digest(model.config),
        "dtype": str(model.dtype),
        "device": model.device.type,
        "attention": str(getattr(model.config, "_attn_implementation", "")),
        "parts": type(parts).__name__,
        "software": software_versions(model.device, deterministic=True),
    }


def cached_traces(
    model: TwoParts, traces: Sequence[TokenTrace], known: Mapping[str, object], folder: Path | None
) -> DenseTraces:
    """Return the states of a dense model along traces: from the cache, or computed and stored there.

    They are in a file either way, since a trace of 8,192 tokens has as much as its hidden states.
    """
    if folder is None:
        return _computed(model, traces, Path(gettempdir()))
    key = sha256_of_json({"model": known, "traces": [[trace.ids, trace.start] for trace in traces]})
    with Store(folder=folder).reserve(key) as reservation:
        stored = reservation.artifact
        if stored is not None:
            logger.info("what the dense model computes along the traces is read from %s", folder / key)
            return DenseTraces(traces, stored.tensors[STATES])
        computed = _computed(model, traces, folder if folder.is_dir() else Path(gettempdir()))
        reservation.write(Artifact({"model": known, "traces": len(traces)}, {STATES: computed.states}))
    return computed


def _computed(model: TwoParts, traces: Sequence[TokenTrace], folder: Path) -> DenseTraces:
    with progress_bar(sum(trace.tokens for trace in traces), desc="dense", unit="token") as bar:
        return dense_traces(model, traces, partial(_mapped, folder), bar.update)


def _mapped(folder: Path, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a temporary file without a name, which lives as long as it is mapped."""
    size = shape.numel() * dtype.itemsize
    try:
        with NamedTemporaryFile(dir=folder, suffix=".states") as file:
            # A hole in the file would only be found to be without room when it is written, and kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_file(file.name, shared=True, size=shape.numel(), dtype=dtype).view(shape)
    except OSError as error:
        raise DataError(
            f"what the dense model computes along the traces takes {size / 1e9:.1f} GB, and {folder} has no room "
            f"for it ({error.strerror}): make room, or give fewer traces or another folder as --artifacts"
        ) from error


def measure(dense: Dense, *, name: str) -> Divergences:
    """Run the model, pruned in place since, along the traces; `name` is shown as the progress of it.

    Raises:
        PruningError: logits are not finite.
    """
    with progress_bar(len(dense.along.states), desc=name, unit="token") as bar:
        return diverge(dense.model, dense.along, bar.update)


def warn_if_unlikely(divergences: Divergences) -> None:
    """Warn if the dense model would hardly write the traces: they may be another model's."""
    nats = -float(divergences.logp.mean())
    if not nats <= UNLIKELY_NATS:
        logger.warning(
            "the dense model gives the tokens of the traces %.1f nats each on average, far more than text of its own "
            "has: are they another model's, or without its chat template?",
            nats,
        )


def perplexity(divergences: Divergences) -> float:
    """Return the perplexity of the traces under the dense model, which is low for text of its own."""
    return float(np.exp(-divergences.logp.mean()))
