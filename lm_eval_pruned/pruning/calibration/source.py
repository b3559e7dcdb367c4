"""Calibration data: which text `calib` names, and the windows of token ids [samples seqlen] cut out of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, MissingDataError
from lm_eval_pruned.paths import is_there
from lm_eval_pruned.pruning.calibration.readers import read_hub, read_jsonl, read_token_ids
from lm_eval_pruned.pruning.calibration.windows import Encode, sample_chunks, sample_windows

logger = logging.getLogger(__name__)

LOCAL_CHOICES = "Local choices: a .jsonl file whose rows have a 'text', or a .npy of token ids [samples, seqlen]"
TRACES = "traces"

# Part of a data set is downloaded, so its splits cannot be what its card says; `datasets` before 5 would refuse that.
_PART = {"verification_mode": "no_checks"}
_HUB: Mapping[str, Mapping[str, object]] = {
    "c4": {
        "path": "allenai/c4",
        "data_files": {"train": "en/c4-train.00000-of-01024.json.gz"},
        "split": "train",
        **_PART,
    },
    # The copy in parquet: deepmind/pg19 is a script, which `datasets` from 4 on does not run.
    "pg19": {
        "path": "emozilla/pg19",
        "data_files": {"validation": "data/validation-*"},
        "split": "validation",
        **_PART,
    },
}


def load_windows(
    config: PruneConfig, encode: Encode, *, vocabulary: int, context: int, bundled: Path | None = None
) -> Int[Tensor, "samples seqlen"]:
    """Return the calibration windows that `config` names.

    Args:
        config: `calib`, `calib_samples`, `calib_seqlen` (tokens) and `calib_seed` are read.
        encode: the tokenizer, text to token ids.
        vocabulary: number of token ids the model knows.
        context: the longest sequence of the model, in tokens; longer windows are shortened to it.
        bundled: windows that come with the model, used when `calib` is not given.

    Raises:
        ArgumentError: `calib` names traces, which only the loaded model can write.
        MissingDataError: the file or the hub cannot be reached.
        DataError: the file holds no text, or is no matrix of token ids of this model.
    """
    source = config.calib or (str(bundled) if bundled else "c4")
    check_source(source)
    if is_traces(source):
        raise ArgumentError(
            f"calib={source} is written by the dense model itself: make these windows with "
            f"lm_eval_pruned.models.traces.trace_windows, or give a text. {LOCAL_CHOICES}"
        )
    if source.endswith(".npy"):
        return read_token_ids(Path(source), vocabulary=vocabulary, context=context)
    seqlen = capped_seqlen(config.calib_seqlen, context)
    return sample_windows(
        _read_texts(source), encode, samples=config.calib_samples, seqlen=seqlen, seed=config.calib_seed
    )


def load_chunks(config: PruneConfig, encode: Encode, *, context: int) -> list[Int[Tensor, " tokens"]]:
    """Return the texts that ShortGPT was calibrated on in the paper's code: chunks of PG-19, of different lengths.

    `calib` (a text; PG-19 unless given), `calib_samples` and `calib_seed` of `config` are read; `context` is in tokens.

    Raises:
        MissingDataError: the file or the hub cannot be reached.
        DataError: the file holds no text.
    """
    source = config.calib or "pg19"
    check_source(source)
    texts = _read_texts(source)
    return sample_chunks(texts, encode, samples=config.calib_samples, seed=config.calib_seed, context=context)


def is_traces(calib: str | None) -> bool:
    """Tell whether `calib` asks for the model's own chains of thought.

    Example:
        >>> [is_traces(calib) for calib in ("traces", "traces:questions.jsonl", "traces.jsonl", None)]
        [True, True, False, False]
    """
    return calib == TRACES or (calib or "").startswith(f"{TRACES}:")


def capped_seqlen(seqlen: int, context: int) -> int:
    """Return the length of a window that fits the model's context, both in tokens, and say so where it is shorter."""
    if seqlen > context:
        logger.warning("calib_seqlen=%d is beyond the model's context: using %d", seqlen, context)
    return min(seqlen, context)


def check_source(calib: str | None) -> None:
    """Raise, before any weight is loaded, where a local calibration file does not exist.

    Raises:
        ArgumentError: the name is neither a local file nor a data set.
        MissingDataError: the file does not exist.
    """
    if calib is None or calib in _HUB or calib == TRACES:
        return
    if is_traces(calib) and not calib.endswith(".jsonl"):
        raise ArgumentError(f"calib={calib} names no questions: give {TRACES}, or {TRACES}:FILE.jsonl")
    if calib.endswith((".jsonl", ".npy")):
        if not is_there(Path(calib.removeprefix(f"{TRACES}:")).expanduser()):
            raise MissingDataError(f"calib={calib} does not exist: check the path. {LOCAL_CHOICES}")
    elif calib.startswith((".", "/", "~")) or "/" not in calib:
        known = ", ".join([*_HUB, TRACES])
        raise ArgumentError(f"calib={calib!r} is not known. {LOCAL_CHOICES}; or {known}, or a hub data set id")


def _read_texts(source: str) -> Sequence[str]:
    if source.endswith(".jsonl"):
        return read_jsonl(Path(source).expanduser())
    return read_hub(source, _HUB.get(source, {"path": source, "split": "train"}), column="text", local=LOCAL_CHOICES)
