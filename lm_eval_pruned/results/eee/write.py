"""Write runs as records: into one file, or into a folder that is laid out as the datastore of Every Eval Ever is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.errors import ArgumentError, DataError
from lm_eval_pruned.results.eee import FILE
from lm_eval_pruned.results.eee.model import UNKNOWN
from lm_eval_pruned.results.eee.record import SCHEMA_VERSION, EeeRecord, eee_record
from lm_eval_pruned.results.eee.samples import sample_lines
from lm_eval_pruned.results.output import make_folder, printable, write_text
from lm_eval_pruned.results.records.reading import is_of_lm_eval, read_records
from lm_eval_pruned.results.records.record import Record

_NO_PATH = re.compile(r'[<>:"\\|?*/\x00-\x1f]')


class WrittenRecords(NamedTuple):
    """Numbers of records and of those with samples, and a sentence for each file that was skipped."""

    records: int
    with_samples: int
    problems: list[str]


def write_records(
    places: Sequence[Path], output: Path, *, organization: str, with_samples: bool = False
) -> WrittenRecords:
    """Write a record for each run in some folders.

    Args:
        places: folders with results of lm_eval, or results files.
        output: ends in FILE or FOLDER. A file holds the record of a single run, and of several a list of records.
        organization: who evaluated.
        with_samples: whether a folder also gets every response.

    Raises:
        PrunedEvalError: nothing can be read or written.
    """
    found, problems = read_records(places)
    unfit = [why for record in found for why in _left_out(record)]
    scored = [record for record in found if _has_scores(record)]
    records = [eee_record(record, organization=organization) for record in scored]
    sampled = 0
    if not records:
        raise DataError(f"none of the {len(found)} runs can be written as a record; the first: {unfit[0]}")
    if output.name.endswith(FILE):
        contents = [one.content for one in records]
        write_text(output, as_json(contents[0] if len(contents) == 1 else contents))
    else:
        for record, one in zip(scored, records, strict=True):
            folder = place(one)
            make_folder(output / folder)
            detailed = _write_samples(record, one, output, folder) if with_samples else {}
            sampled += bool(detailed)
            write_text(output / folder / f"{one.uuid}.json", as_json({**one.content, **detailed}))
    return WrittenRecords(len(records), sampled, [*problems, *unfit])


def _left_out(record: Record) -> Iterator[str]:
    """Yield a sentence for each result of a run that is not written."""
    if not is_of_lm_eval(record.path):
        yield f"{record.path} is not of lm_eval: Every Eval Ever converts results of Inspect and lighteval itself"
        return
    for result in record.results:
        if result.stopped is not None:
            yield f"{record.path}: {result.task} was {result.stopped.words()}; its mean is not that of all questions"


def _has_scores(record: Record) -> bool:
    return is_of_lm_eval(record.path) and any(result.stopped is None for result in record.results)


def _write_samples(record: Record, written: EeeRecord, output: Path, folder: Path) -> dict[str, object]:
    """Write the responses of a run beside its record, and return the part of the record that names them."""
    path = folder / f"{written.uuid}_samples.jsonl"
    digest, rows = hashlib.sha256(), 0
    partial = (output / path).with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            for line in sample_lines(record, str(written.content["evaluation_id"]), written.model_id, SCHEMA_VERSION):
                text = printable(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
                digest.update(text)
                file.write(text)
                rows += 1
        if rows:
            partial.replace(output / path)
    except OSError as problem:
        raise ArgumentError(f"--output {output / path} cannot be written: {problem.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    if not rows:
        return {}
    return {
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": path.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": digest.hexdigest(),
            "total_rows": rows,
        }
    }


def place(record: EeeRecord) -> Path:
    """Return the folder of a record: data/COLLECTION/DEVELOPER/MODEL."""
    developer, _, name = record.model_id.rpartition("/")
    return Path("data", *(_NO_PATH.sub("_", part or UNKNOWN) for part in (record.collection, developer, name)))


def as_json(content: object) -> str:
    """Return strict JSON: NaN and infinity are errors."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
