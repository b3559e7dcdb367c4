"""Calibration sources: what the argument `calib` means, decided once from the settings and the checkpoint.

A source is checked before any weight is loaded, tells `lm-eval-pruned plan` how much data it has, and makes the windows
of token ids [samples seqlen].
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lm_eval_pruned.config import TRACES, CalibTokens, PruneConfig, is_traces
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.paths import bundled_folder, is_there
from lm_eval_pruned.pruning.artifacts.fingerprint import windows_digest
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.counted import counted_tokens
from lm_eval_pruned.pruning.calibration.readers import read_array, read_jsonl, read_token_ids
from lm_eval_pruned.pruning.calibration.windows import CHUNK_CHARACTERS, Encode, sample_chunks, sample_windows
from lm_eval_pruned.pruning.model.shapes import WindowShape

logger = logging.getLogger(__name__)

LOCAL_CHOICES = "Local choices: a .jsonl file whose rows have a 'text', or a .npy of token ids [samples, seqlen]"
# Fields of a row that can hold a question, in order of preference.
QUESTION_FIELDS = ("question", "problem", "text")

# The context of a model whose config does not state one, in tokens.
DEFAULT_CONTEXT = 2048
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


class Calibration(NamedTuple):
    """Calibration windows that may not exist yet: a digest that identifies them, and a function that makes them."""

    identity: str
    windows: Callable[[], Windows]

    @classmethod
    def of(cls, windows: Windows) -> Calibration:
        """Wrap windows that exist."""
        counted = [one for one in counted_tokens(windows) if one is not None]
        return cls(windows_digest([*windows, *counted]), lambda: windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a calibration source needs to know of a checkpoint.

    Attributes:
        vocabulary: number of token ids.
        context: longest sequence, in tokens; longer windows are shortened to it.
        encode: the tokenizer, text to token ids; None where only `shape` is asked for.
        generate_traces: generates chains of thought with the loaded dense model; None before it is loaded.
    """

    vocabulary: int
    context: int
    encode: Encode | None = None
    generate_traces: Callable[[Traces], Calibration] | None = None

    @classmethod
    def of(
        cls,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase | None = None,
        generate_traces: Callable[[Traces], Calibration] | None = None,
    ) -> CheckpointInfo:
        """Read the sizes from the config of a model."""
        text_config = config.get_text_config()

        def encode(text: str) -> Sequence[int]:
            assert tokenizer is not None
            ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
            return ids

        return cls(
            vocabulary=text_config.vocab_size,
            context=stated_context(text_config) or DEFAULT_CONTEXT,
            encode=encode if tokenizer is not None else None,
            generate_traces=generate_traces,
        )

    def required_encode(self) -> Encode:
        """Return the tokenizer."""
        assert self.encode is not None, "windows of text are only asked for with a tokenizer"
        return self.encode


@runtime_checkable
class CalibrationSource(Protocol):
    """Where calibration windows come from."""

    @property
    def needs_model(self) -> bool:
        """Whether the loaded dense model writes the windows itself."""

    def check(self) -> None:
        """Check before any weight is loaded.

        Raises:
            ArgumentError: the name is neither a local file nor a data set, or there are fewer windows than are needed.
            MissingDataError: a local file does not exist.
            DataError: a local file cannot be used.
        """

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return how many windows of how many tokens there will be, at most, for cost estimates.

        Raises:
            DataError: a local file holds no text, or is not a matrix of token ids of this model.
        """

    def windows(self, checkpoint: CheckpointInfo) -> Calibration | None:
        """Return the calibration windows; None if the recipe needs none.

        Raises:
            MissingDataError: the hub cannot be reached.
            DataError: as `shape`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCalibration:
    """Calibration source of a recipe that needs none; the source that was named is checked all the same."""

    unused: CalibrationSource

    @property
    def needs_model(self) -> bool:
        """False."""
        return False

    def check(self) -> None:
        """Check the source that was named."""
        self.unused.check()

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return zeros."""
        del checkpoint
        return WindowShape(0, 0)

    def windows(self, checkpoint: CheckpointInfo) -> None:
        """Return None."""
        del checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """Calibration windows from a `.npy` of token ids [samples seqlen], used verbatim."""

    calib: str
    least: int = 1
    needs_model: bool = False

    def check(self) -> None:
        """Check that the file exists and has enough rows."""
        _check_exists(self.calib, Path(self.calib))
        if self.least > 1:
            array = read_array(Path(self.calib), f"calib={self.calib}")
            _check_enough(f"calib={self.calib}", len(array) if array.ndim else 0, self.least)

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
        _check_enough(f"calib_samples={self.samples}", self.samples, self.least)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """The model's own chains of thought about questions, from a `.jsonl` file or the default ones."""

    calib: str
    samples: int
    seqlen: int
    seed: int
    is_bundled: bool
    tokens: CalibTokens = "all"
    least: int = 1
    needs_model: bool = True

    def check(self) -> None:
        """Check a named file of questions, and that enough windows are written."""
        _check_enough(f"calib_samples={self.samples}", self.samples, self.least)
        self.read_file()

    def read_file(self) -> list[str] | None:
        """Return the questions of the named file; None if the default questions are asked.

        Raises:
            ArgumentError: the name is not that of a `.jsonl` file.
            MissingDataError: the file does not exist.
            DataError: it holds no question.
        """
        if self.calib == TRACES:
            return None
        if not self.calib.endswith(".jsonl"):
            raise ArgumentError(f"calib={self.calib} names no questions: give {TRACES}, or {TRACES}:FILE.jsonl")
        path = Path(self.calib.removeprefix(f"{TRACES}:")).expanduser()
        _check_exists(self.calib, path)
        return self.without_empty(read_jsonl(path, names=QUESTION_FIELDS))

    def without_empty(self, questions: Sequence[str]) -> list[str]:
        """Return the questions that are not empty.

        Raises:
            DataError: all are.
        """
        asked = [question for question in questions if question.strip()]
        if not asked:
            raise DataError(f"calib={self.calib} holds only empty questions")
        return asked

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return the windows that were asked for, all of which are filled."""
        return WindowShape(self.samples, min(self.seqlen, checkpoint.context))

    def windows(self, checkpoint: CheckpointInfo) -> Calibration:
        """Return windows that the loaded model generates when they are needed.

        Raises:
            ArgumentError: the model is not loaded.
        """
        if checkpoint.generate_traces is None:
            raise ArgumentError(
                f"calib={self.calib} is written by the dense model itself: make these windows with "
                f"lm_eval_pruned.models.traces.trace_windows, or give a text. {LOCAL_CHOICES}"
            )
        return checkpoint.generate_traces(self)


def choose_source(
    config: PruneConfig, pretrained: str, *, is_needed: bool, paper_chunks: bool, least: int
) -> CalibrationSource:
    """Return what `calib` means for a checkpoint.

    Args:
        config: the settings, with the preset applied.
        pretrained: folder or hub id of the checkpoint; a bundled model brings its own windows.
        is_needed: whether the method or the allocation reads calibration data.
        paper_chunks: whether texts are cut into chunks as the code of the paper did for ShortGPT.
        least: fewest windows that method and allocation can use.
    """
    source = _named_source(config, pretrained, paper_chunks=paper_chunks, least=least if is_needed else 1)
    return source if is_needed else NoCalibration(unused=source)


def _named_source(config: PruneConfig, pretrained: str, *, paper_chunks: bool, least: int) -> CalibrationSource:
    bundled = bundled_windows(pretrained)
    samples, seqlen, seed = config.calib_samples, config.calib_seqlen, config.calib_seed
    calib = config.calib or "c4"
    if is_traces(calib):
        return Traces(
            calib=calib,
            samples=samples,
            seqlen=seqlen,
            seed=seed,
            is_bundled=bundled is not None,
            tokens=config.calib_tokens,
            least=least,
        )
    if calib.endswith(".npy"):
        return TokenIds(calib=calib, least=least)
    if paper_chunks:
        return PaperChunks(calib=calib, samples=samples, seed=seed)
    if config.calib is None and bundled is not None:
        return TokenIds(calib=str(bundled), least=least)
    return Texts(calib=calib, samples=samples, seqlen=seqlen, seed=seed, least=least)


def bundled_windows(pretrained: str) -> Path | None:
    """Return the calibration windows that are stored next to a bundled model; None for every other checkpoint."""
    folder = bundled_folder()
    return folder / "calibration.npy" if Path(pretrained) == folder else None


def stated_context(config: PretrainedConfig) -> int | None:
    """Return the context that a config states; None or a negative number stand for none, as in XLNet's."""
    stated = getattr(config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else None


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
        _check_exists(calib, Path(calib))
    elif calib.startswith((".", "/", "~")) or "/" not in calib:
        known = ", ".join([*_HUB, TRACES])
        raise ArgumentError(f"calib={calib!r} is not known. {LOCAL_CHOICES}; or {known}, or a hub data set id")


def _check_exists(calib: str, path: Path) -> None:
    if not is_there(path.expanduser()):
        raise MissingDataError(f"calib={calib} does not exist: check the path. {LOCAL_CHOICES}")


def _check_enough(given: str, windows: int, least: int) -> None:
    if windows < least:
        raise ArgumentError(
            f"{given} gives too few calibration windows ({windows}): this allocation holds some of them out, and needs "
            f"at least {least}"
        )


def _read_if_local(calib: str) -> None:
    if calib.endswith(".jsonl"):
        read_jsonl(Path(calib).expanduser())


def _read_texts(calib: str) -> Sequence[str]:
    if calib.endswith(".jsonl"):
        return read_jsonl(Path(calib).expanduser())
    # Only here: `datasets` is not needed for anything else, and is slow to import.
    from lm_eval_pruned.pruning.calibration.hub import read_hub

    return read_hub(calib, _HUB.get(calib, {"path": calib, "split": "train"}), column="text", local=LOCAL_CHOICES)
