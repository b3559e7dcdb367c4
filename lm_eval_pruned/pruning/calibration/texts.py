"""Calibration windows of token ids in a file, or cut out of texts: a file, C4, PG-19, or any data set with a `text`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from lm_eval_pruned.config import TRACES
from lm_eval_pruned.errors import ArgumentError, DataError
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.calibration.readers import read_array, read_jsonl, read_token_ids
from lm_eval_pruned.pruning.calibration.source import LOCAL_CHOICES, CheckpointInfo, check_enough, check_exists
from lm_eval_pruned.pruning.calibration.windows import CHUNK_CHARACTERS, sample_chunks, sample_windows
from lm_eval_pruned.pruning.model.shapes import WindowShape

logger = logging.getLogger(__name__)

# English prose, in the vocabularies of current models.
CHARACTERS_PER_TOKEN = 4

# Some files of a data set are downloaded, which does not match the splits on its card; before version 5, `datasets`
# would refuse that.
_PART = {"verification_mode": "no_checks"}
_HUB: Mapping[str, Mapping[str, object]] = {
    "c4": {
        "path": "allenai/c4",
        "data_files": {"train": "en/c4-train.00000-of-01024.json.gz"},
        "split": "train",
        **_PART,
    },
    # The copy in parquet: deepmind/pg19 is a script, which `datasets` does not run since version 4.
    "pg19": {
        "path": "emozilla/pg19",
        "data_files": {"validation": "data/validation-*"},
        "split": "validation",
        **_PART,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """Calibration windows from a `.npy` of token ids [samples seqlen], used verbatim."""

    calib: str
    least: int = 1
    needs_model: bool = False

    def check(self) -> None:
        """Check that the file exists and has enough rows."""
        check_exists(self.calib, Path(self.calib))
        if self.least > 1:
            array = read_array(Path(self.calib), f"calib={self.calib}")
            check_enough(f"calib={self.calib}", len(array) if array.ndim else 0, self.least)

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return the shape of the matrix."""
        return WindowShape(*self._read(checkpoint).shape)

    def windows(self, checkpoint: CheckpointInfo) -> Calibration:
        """Return the matrix."""
        return Calibration.of(self._read(checkpoint))

    def _read(self, checkpoint: CheckpointInfo) -> Int[Tensor, "samples seqlen"]:
        return read_token_ids(Path(self.calib), vocabulary=checkpoint.vocabulary, context=checkpoint.context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Windows of equal length cut at random out of a `.jsonl` file, C4, PG-19 or any data set with a `text` column."""

    calib: str
    samples: int
    seqlen: int
    seed: int
    least: int = 1
    needs_model: bool = False

    def check(self) -> None:
        """Check that the name can be a data set, or that the file exists, and that enough windows are cut."""
        check_enough(f"calib_samples={self.samples}", self.samples, self.least)
        _check_text_source(self.calib)

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return the windows that were asked for; short texts may give fewer."""
        _read_if_local(self.calib)
        return WindowShape(self.samples, min(self.seqlen, checkpoint.context))

    def windows(self, checkpoint: CheckpointInfo) -> Calibration:
        """Read the texts and cut the windows."""
        seqlen = capped_seqlen(self.seqlen, checkpoint.context)
        encode = checkpoint.required_encode()
        windows = sample_windows(_read_texts(self.calib), encode, samples=self.samples, seqlen=seqlen, seed=self.seed)
        return Calibration.of(_known(windows, self.calib, checkpoint.vocabulary))


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperChunks:
    """The texts on which the code of arXiv 2604.25098 calibrated ShortGPT: chunks of PG-19, of different lengths."""

    calib: str
    samples: int
    seed: int
    needs_model: bool = False

    def check(self) -> None:
        """Check that the name can be a data set, or that the file exists."""
        _check_text_source(self.calib)

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return the chunks that were asked for and the estimated length of the longest."""
        _read_if_local(self.calib)
        return WindowShape(self.samples, min(CHUNK_CHARACTERS // CHARACTERS_PER_TOKEN, checkpoint.context))

    def windows(self, checkpoint: CheckpointInfo) -> Calibration:
        """Read the texts and draw the chunks."""
        windows = sample_chunks(
            _read_texts(self.calib),
            checkpoint.required_encode(),
            samples=self.samples,
            seed=self.seed,
            context=checkpoint.context,
        )
        return Calibration.of(_known(windows, self.calib, checkpoint.vocabulary))


def capped_seqlen(seqlen: int, context: int) -> int:
    """Return a window length that fits the model's context, both in tokens, and warn where it is shorter."""
    if seqlen > context:
        logger.warning("calib_seqlen=%d is beyond the model's context: using %d", seqlen, context)
    return min(seqlen, context)


def _known(windows: Windows, calib: str, vocabulary: int) -> Windows:
    """Return the windows if the model has an embedding for each of their token ids."""
    largest = max(int(window.max()) for window in windows if len(window))
    if largest >= vocabulary:
        raise DataError(
            f"calib={calib}: the tokenizer writes token id {largest}, but the model knows 0 to {vocabulary - 1}: give "
            "the tokenizer that the model was trained with, or a text without these tokens"
        )
    return windows


def _check_text_source(calib: str) -> None:
    if calib in _HUB:
        return
    if calib.endswith(".jsonl"):
        check_exists(calib, Path(calib))
    elif calib.startswith((".", "/", "~")) or "/" not in calib:
        known = ", ".join([*_HUB, TRACES])
        raise ArgumentError(f"calib={calib!r} is not known. {LOCAL_CHOICES}; or {known}, or a hub data set id")


def _read_if_local(calib: str) -> None:
    if calib.endswith(".jsonl"):
        read_jsonl(Path(calib).expanduser())


def _read_texts(calib: str) -> Sequence[str]:
    if calib.endswith(".jsonl"):
        return read_jsonl(Path(calib).expanduser())
    # Only here: `datasets` is not needed for anything else, and is slow to import.
    from lm_eval_pruned.pruning.calibration.hub import read_hub

    return read_hub(calib, _HUB.get(calib, {"path": calib, "split": "train"}), column="text", local=LOCAL_CHOICES)
