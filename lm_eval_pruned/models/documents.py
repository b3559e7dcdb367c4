"""Load benchmark questions from a local folder, from the bundled data or from the hub, with the same fields."""

from __future__ import annotations

import hashlib
import json
import os
import random
import zipfile
import zlib
from pathlib import Path

import datasets

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.files import NOT_JSON
from lm_eval_pruned.models.generated import GENERATED, check_options, generate
from lm_eval_pruned.paths import BUNDLED, bundled_folder
from lm_eval_pruned.pruning.calibration.hub import NO_CODE

# Besides malformed JSON: archives that are truncated, encrypted (a RuntimeError) or compressed in an unknown way, and
# fields of different types in different rows, for which Arrow raises one of these.
_ROW_ERRORS = (
    *NOT_JSON,
    *(OSError, TypeError, LookupError, RuntimeError, OverflowError, EOFError, zipfile.BadZipFile, zlib.error),
)

DATA_VARIABLE = "LM_EVAL_PRUNED_DATA"


def load_documents(
    path: str, name: str | None, *, split: str, local: str | None, **options: object
) -> datasets.Dataset:
    """Return the questions of a benchmark.

    Args:
        path: hub id of the data set, `tiny-reasoner` for the bundled questions, or a name in `GENERATED`.
        name: configuration of the hub data set.
        split: split of the hub data set.
        local: stem of the file in the folder that LM_EVAL_PRUNED_DATA names; it is used where that variable is set.
        options: those of generated questions, `examples` and `form`.

    Raises:
        MissingDataError: the folder lacks the file, or the hub cannot be reached.
        DataError: a local file is not readable as JSON rows.
        ArgumentError: an option is out of range, or the questions are not generated.
    """
    if path in GENERATED:
        return datasets.Dataset.from_list(generate(path, **options))
    check_options(path, **options)
    if path == BUNDLED:
        return read_rows(bundled_folder() / "questions.jsonl")
    folder = os.environ.get(DATA_VARIABLE)
    if folder and local:
        return read_rows(_find(Path(folder).expanduser(), local))
    try:
        return datasets.load_dataset(path, name, split=split, **NO_CODE)
    except (OSError, ValueError, RuntimeError) as error:
        # The type that `datasets` raises without a network or without access differs between releases.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        file = f"the file DIR/{local}.jsonl" if local else "a file that the task names in metadata: local_data"
        raise MissingDataError(
            f"the data set {path} cannot be loaded from the hub: go online, accept its terms if it is gated, or set "
            f"{DATA_VARIABLE}=DIR with {file} ({reason:.300})"
        ) from error


def _find(folder: Path, local: str) -> Path:
    candidates = [folder / f"{local}.jsonl", folder / f"{local}.zip"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise MissingDataError(
        f"{DATA_VARIABLE}={folder} has neither {local}.jsonl nor {local}.zip: put one there or unset it"
    )


def read_rows(path: Path) -> datasets.Dataset:
    """Read a JSON-lines file, or the only file of a zip archive.

    Raises:
        DataError: it does not hold JSON objects, one per line, or is empty.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                text = archive.read(archive.infolist()[0]).decode("utf-8-sig")
        else:
            text = path.read_text(encoding="utf-8-sig")
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise DataError("a line is not an object")
        if rows:
            return datasets.Dataset.from_list(rows)
    except _ROW_ERRORS as error:
        raise DataError(f"{path} does not hold one JSON object a line, all of one form: {error}") from None
    raise DataError(f"{path} is empty")


def shuffle_choices(documents: datasets.Dataset) -> datasets.Dataset:
    """Add choices and the right letter to GPQA questions; the order depends on nothing but the question."""
    # The cache of `map` knows a function by its name, and would keep what an older version of it wrote.
    return documents.map(_with_choices, load_from_cache_file=False)


def _with_choices(document: dict[str, str]) -> dict[str, str]:
    right = document["Correct Answer"].strip()
    choices = [right, *(document[f"Incorrect Answer {number}"].strip() for number in (1, 2, 3))]
    seed = hashlib.sha256(document["Question"].encode()).hexdigest()
    random.Random(seed).shuffle(choices)
    fields = {f"choice{number}": choice for number, choice in enumerate(choices, start=1)}
    return {**fields, "answer": "ABCD"[choices.index(right)]}
