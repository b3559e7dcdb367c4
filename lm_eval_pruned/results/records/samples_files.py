"""Samples of a task: in a file of their own, whatever version of the harness wrote it, or in the results file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import MALFORMED, is_file
from lm_eval_pruned.results.records.run_settings import section
from lm_eval_pruned.results.records.samples import find_listed_rows, find_rows


def samples_file(path: Path, task: str, arguments: str = "") -> Path:
    """Return the path of a task's samples file, next to the results file.

    Its name ends in the same date. Up to 0.4.2 it had none, and began with the model's arguments. lmms-eval, which has
    the same files, writes the date first.
    """
    # The name of a task may hold a slash.
    dated = path.parent / f"samples_{task}_{path.stem.rpartition('_')[2]}.jsonl"
    older = (
        dated.with_suffix(".json"),
        path.parent / f"{re.sub('[/=]', '__', arguments)}_{task}.jsonl",
        path.parent / f"{task}_write_out_info.json",
        path.parent / f"{path.stem.removesuffix('_results')}_samples_{task}.jsonl",
    )
    return next((file for file in (dated, *older) if is_file(file)), dated)


def find_task_rows(
    path: Path, task: str, questions: Collection[int], filter_name: str
) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (key, row) for the questions with these keys, from the samples of a task of a results file.

    Raises:
        DataError: they have changed since they were read, and cannot be read any more.
    """
    if is_file(file := samples_file(path, task)):
        yield from find_rows(file, questions, filter_name)
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        arguments = section(content, "config").get("model_args")
        if isinstance(arguments, str) and is_file(file := samples_file(path, task, arguments)):
            yield from find_rows(file, questions, filter_name)
        else:
            yield from find_listed_rows(content["samples"][task], questions, filter_name)
    except DataError:
        raise
    except MALFORMED as problem:
        raise DataError(f"{path} has no samples of {task} any more ({problem!r:.200})") from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None
