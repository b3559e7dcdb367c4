"""Calibration sources: where windows of token ids come from, and what a source needs to know of a checkpoint.

A source is checked before any weight is loaded, tells `lm-eval-pruned plan` how much data it has, and makes the windows
of token ids [samples seqlen].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lm_eval_pruned.config import TRACES, CalibTokens
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.paths import is_there
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.calibration.readers import read_jsonl
from lm_eval_pruned.pruning.calibration.windows import Encode
from lm_eval_pruned.pruning.model.shapes import WindowShape

LOCAL_CHOICES = "Local choices: a .jsonl file whose rows have a 'text', or a .npy of token ids [samples, seqlen]"
# Fields of a row that can hold a question, in order of preference.
QUESTION_FIELDS = ("question", "problem", "text")

# The context of a model whose config does not state one, in tokens.
DEFAULT_CONTEXT = 2048


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
        check_enough(f"calib_samples={self.samples}", self.samples, self.least)
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
        check_exists(self.calib, path)
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


def stated_context(config: PretrainedConfig) -> int | None:
    """Return the context that a config states; None or a negative number stand for none, as in XLNet's."""
    stated = getattr(config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else None


def check_exists(calib: str, path: Path) -> None:
    """Check that the file that `calib` names is there.

    Raises:
        MissingDataError: it is not.
    """
    if not is_there(path.expanduser()):
        raise MissingDataError(f"calib={calib} does not exist: check the path. {LOCAL_CHOICES}")


def check_enough(given: str, windows: int, least: int) -> None:
    """Check that an allocation that holds windows out gets enough of them; `given` is the setting that counts them.

    Raises:
        ArgumentError: there are too few.
    """
    if windows < least:
        raise ArgumentError(
            f"{given} gives too few calibration windows ({windows}): this allocation holds some of them out, and needs "
            f"at least {least}"
        )
