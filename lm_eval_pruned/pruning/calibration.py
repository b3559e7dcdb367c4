"""Calibration data: windows of token ids [samples seqlen] cut out of real text."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, NotBuiltError

logger = logging.getLogger(__name__)

LOCAL_CHOICES = "Local choices: a .jsonl file whose rows have a 'text', or a .npy of token ids [samples, seqlen]"
_C4 = {"path": "allenai/c4", "data_files": {"train": "en/c4-train.00000-of-01024.json.gz"}, "split": "train"}

Encode = Callable[[str], Sequence[int]]


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
        MissingDataError: the file or the hub cannot be reached.
        DataError: the file holds no text, or is no matrix of token ids of this model.
    """
    seqlen = min(config.calib_seqlen, context)
    if seqlen < config.calib_seqlen:
        logger.warning("calib_seqlen=%d is beyond the model's context: using %d", config.calib_seqlen, seqlen)
    source = config.calib or (str(bundled) if bundled else "c4")
    if source.endswith(".npy"):
        return read_token_ids(Path(source), vocabulary=vocabulary, context=context)
    texts = _read_texts(source)
    return sample_windows(texts, encode, samples=config.calib_samples, seqlen=seqlen, seed=config.calib_seed)


def check_source(calib: str | None) -> None:
    """Raise, before any weight is loaded, where a local calibration file does not exist or a source is not built yet.

    Raises:
        ArgumentError: the name is neither a local file nor a data set.
        MissingDataError: the file does not exist.
        NotBuiltError: a documented source that this version does not offer.
    """
    if calib is None or calib == "c4":
        return
    if calib in ("pg19", "traces"):
        raise NotBuiltError(f"calib={calib} is not built in this version. {LOCAL_CHOICES}; or c4, or a hub data set id")
    if calib.endswith((".jsonl", ".npy")):
        if not Path(calib).expanduser().is_file():
            raise MissingDataError(f"calib={calib} does not exist: check the path. {LOCAL_CHOICES}")
    elif calib.startswith((".", "/", "~")) or "/" not in calib:
        raise ArgumentError(f"calib={calib!r} is not known. {LOCAL_CHOICES}; or c4, or a hub data set id")


def read_token_ids(path: Path, *, vocabulary: int, context: int) -> Int[Tensor, "samples seqlen"]:
    """Read a `.npy` matrix of token ids, used verbatim.

    Raises:
        DataError: not a matrix of whole numbers, empty, wider than the context, or ids outside the vocabulary.
    """
    try:
        array = np.load(path.expanduser(), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"calib={path} is not a .npy array of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
        shape = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"calib={path} holds {shape}: give whole numbers of shape [samples, seqlen]")
    if array.shape[1] > context:
        raise DataError(f"calib={path} has windows of {array.shape[1]} tokens, but the model's context is {context}")
    if int(array.min()) < 0 or int(array.max()) >= vocabulary:
        raise DataError(
            f"calib={path} has token ids from {array.min()} to {array.max()}, but the model knows 0 to "
            f"{vocabulary - 1}: was it made with another tokenizer?"
        )
    return torch.from_numpy(array.astype(np.int64))


def sample_windows(
    texts: Sequence[str], encode: Encode, *, samples: int, seqlen: int, seed: int
) -> Int[Tensor, "samples seqlen"]:
    """Cut `samples` windows of `seqlen` tokens at random places of random documents longer than a window.

    Documents may repeat. Where no document is long enough, all are laid end to end and cut into windows that do not
    overlap, of which `samples` are taken, or as many as there are; a stream shorter than one window is the only window.

    Raises:
        DataError: there is no text.

    Example:
        >>> windows = sample_windows(["abcdefgh"], lambda text: [ord(c) for c in text], samples=2, seqlen=3, seed=0)
        >>> ["".join(map(chr, row)) for row in windows.tolist()]
        ['def', 'cde']

    Reference: the sampler of arXiv 2306.11695 (C4, seed 0): same draws from Python's generator.
    Differs: the reference loops for ever where no document is long enough.
    """
    rng = random.Random(seed)
    short: dict[int, Sequence[int]] = {}
    windows: list[Sequence[int]] = []
    while len(windows) < samples and len(short) < len(texts):
        index = rng.randint(0, len(texts) - 1)
        if index in short:
            continue
        ids = encode(texts[index])
        if len(ids) <= seqlen:
            short[index] = ids
            continue
        offset = rng.randint(0, len(ids) - seqlen - 1)
        windows.append(ids[offset : offset + seqlen])
    if not windows:
        windows = _cut_stream([token for index in sorted(short) for token in short[index]], samples, seqlen, rng)
    return torch.tensor(windows, dtype=torch.int64)


def _cut_stream(stream: list[int], samples: int, seqlen: int, rng: random.Random) -> list[Sequence[int]]:
    if not stream:
        raise DataError(f"the calibration data holds no text. {LOCAL_CHOICES}")
    if len(stream) <= seqlen:
        logger.warning("the calibration text has only %d tokens: one window instead of %d", len(stream), samples)
        return [stream]
    starts = range(0, len(stream) - seqlen + 1, seqlen)
    chosen = rng.sample(starts, samples) if len(starts) > samples else starts
    logger.warning(
        "no calibration document is longer than %d tokens: using %d windows across documents, %d were asked for",
        seqlen,
        len(chosen),
        samples,
    )
    return [stream[start : start + seqlen] for start in chosen]


def _read_texts(source: str) -> Sequence[str]:
    if source.endswith(".jsonl"):
        return read_jsonl(Path(source).expanduser())
    arguments = _C4 if source == "c4" else {"path": source, "split": "train"}
    try:
        rows = datasets.load_dataset(**arguments)
    except (OSError, ValueError, RuntimeError) as error:
        # What `datasets` raises without a network changes from release to release; all of it means "not reachable".
        raise MissingDataError(
            f"calib={source} cannot be loaded from the hub ({type(error).__name__}). {LOCAL_CHOICES}"
        ) from error
    if "text" not in rows.column_names:
        raise DataError(f"calib={source} has no column 'text', only {', '.join(rows.column_names)}")
    return _Column(rows)


class _Column(Sequence[str]):
    """The texts of a data set, read row by row: C4's shard would fill gigabytes as a list."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return str(self._rows[index]["text"])


def read_jsonl(path: Path) -> list[str]:
    """Read the `text` of every row.

    Raises:
        DataError: no rows, or a row that is no JSON object with a text; the message names the line.
    """
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"calib={path} line {number} is not JSON: {error}") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DataError(f'calib={path} line {number} has no \'text\': each row must be like {{"text": "..."}}')
        texts.append(row["text"])
    if not texts:
        raise DataError(f'calib={path} is empty: each row must be like {{"text": "..."}}')
    return texts
