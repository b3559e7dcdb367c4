"""Readers of calibration data: token ids from `.npy`, texts from `.jsonl` files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import cast

import numpy as np
import torch
from jaxtyping import Int
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from torch import Tensor

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.files import NOT_JSON

# What numpy raises for a malformed header.
_ARRAY_ERRORS = (
    *(ValueError, TypeError, SyntaxError, ArithmeticError, LookupError, EOFError, RecursionError),
    TokenError,
)


def read_token_ids(path: Path, *, vocabulary: int, context: int) -> Int[Tensor, "samples seqlen"]:
    """Read a `.npy` matrix of token ids, used verbatim; `vocabulary` and `context` are those of the model.

    Raises:
        DataError: not a matrix of whole numbers, empty, wider than the context, or ids outside the vocabulary.
    """
    array = read_array(path, f"calib={path}")
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
        raise DataError(
            f"calib={path} holds {array.dtype} {list(array.shape)}: give whole numbers of shape [samples, seqlen]"
        )
    if array.shape[1] > context:
        raise DataError(f"calib={path} has windows of {array.shape[1]} tokens, but the model's context is {context}")
    if int(array.min()) < 0 or int(array.max()) >= vocabulary:
        raise DataError(
            f"calib={path} has token ids from {array.min()} to {array.max()}, but the model knows 0 to "
            f"{vocabulary - 1}: was it made with another tokenizer?"
        )
    return torch.from_numpy(array.astype(np.int64))


def read_array(path: Path, given: str) -> NDArray[np.generic]:
    """Memory-map a `.npy` of numbers; `given` names the argument in errors.

    Mapping keeps a header that promises more than the file holds from allocating memory.

    Raises:
        MissingDataError: there is no such file.
        DataError: it cannot be read, or is not such an array.
    """
    try:
        with path.expanduser().open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                raise DataError(f"{given} is not a .npy array of numbers")
        with warnings.catch_warnings(action="ignore"):
            # Warnings about the header do not concern the user as long as it can be read.
            array = np.load(path.expanduser(), mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingDataError(f"{given} does not exist: check the path") from None
    except OSError as error:
        raise DataError(f"{given} cannot be read: {error.strerror}") from None
    except _ARRAY_ERRORS as error:
        raise DataError(f"{given} is not a .npy array of numbers: {error}") from None
    return cast("NDArray[np.generic]", array)


def read_jsonl(path: Path, *, names: Sequence[str] = ("text",)) -> list[str]:
    """Read from every row the text in the first of the fields `names` that it has.

    Raises:
        DataError: there are no rows, or a row is not a JSON object with a text; the message names the line.
    """
    wanted = " or ".join(map(repr, names))
    example = f'each row must be like {{"{names[0]}": "..."}}'
    texts = []
    # Not `splitlines`: JSON strings may contain U+2028 and other line separators.
    for number, line in enumerate(_read_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except NOT_JSON as error:
            raise DataError(f"calib={path} line {number} is not JSON: {error}") from None
        strings = [row[name] for name in names if isinstance(row.get(name), str)] if isinstance(row, dict) else []
        if not strings:
            raise DataError(f"calib={path} line {number} has no {wanted}: {example}")
        try:
            strings[0].encode()
        except UnicodeEncodeError:
            # Valid JSON, but tokenizers reject it.
            raise DataError(f"calib={path} line {number} holds half of a surrogate pair, which is not text") from None
        texts.append(strings[0])
    if not texts:
        raise DataError(f"calib={path} is empty: {example}")
    return texts


def _read_utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"calib={path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise DataError(f"calib={path} cannot be read: {error.strerror}") from None
