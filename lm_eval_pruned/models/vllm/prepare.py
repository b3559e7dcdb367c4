"""Premade: what an engine is to load, made by a process of its own the first time and known by its files after that."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lm_eval_pruned import __version__, errors
from lm_eval_pruned.errors import PrunedEvalError, PruningError
from lm_eval_pruned.models.vllm.prepare_process import Job, Premade
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.calibration.source import is_traces
from lm_eval_pruned.pruning.checkpoint.resolve import checkpoint_folder
from lm_eval_pruned.pruning.recipe import resolve

logger = logging.getLogger(__name__)

# Notes on what was made are kept in this folder among the artifacts.
KNOWN = "known"


def premade(job: Job) -> Premade:
    """Return what an engine is to load for `job`; a model is loaded and pruned only where that was not done before.

    Raises:
        PrunedEvalError: whatever is wrong with the settings, the model or the data.
    """
    note = _note(job)
    known = _read(note) if note else None
    if known is not None:
        logger.info("what was pruned before is read from %s: nothing is calibrated", known.kept or note)
        return known
    made = _make(job)
    # Loading may have brought the files of the checkpoint here that the name of the note is made from.
    note = _note(job)
    if note:
        _write(note, made)
    return made


def _note(job: Job) -> Path | None:
    """Return the file of a note, named by what identifies every input of the job without reading any weight.

    A file is taken for unchanged if its size and its times are, as git does; that of its last change of any kind no
    program can set back, as rsync and tar do with the other. What a model writes about questions has too many inputs:
    it is always asked.
    """
    recipe = resolve(job.prune)
    calib = recipe.config.calib
    if recipe.needs_calibration and is_traces(calib):
        return None
    content = {
        "job": {**job.as_dict(), "artifacts": None},
        "settings": recipe.determining(),
        "checkpoint": list(_state(checkpoint_folder(job.source, revision=job.revision))),
        "calibration": list(_state(Path(calib).expanduser())) if calib else None,
        "version": __version__,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Path(job.artifacts) / KNOWN / f"{digest}.json"


def _state(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """Yield path, size and times of a file, or of every file in a folder; nothing for what is not there."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            found = file.stat()
            yield str(file.absolute()), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(note: Path) -> Premade | None:
    """Return what a note says if every byte of what it speaks of is there; a note that is none counts for nothing."""
    try:
        known = Premade(**json.loads(note.read_text()))
        PruneReport.from_dict(known.report)
        return known if known.is_intact() else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _write(note: Path, made: Premade) -> None:
    temporary = note.with_suffix(f".{os.getpid()}.tmp")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(made.as_dict()))
        temporary.replace(note)
    except OSError as error:
        logger.warning("%s cannot be written (%s): the next load looks at the weights again", note, error)


def _make(job: Job) -> Premade:
    with TemporaryDirectory() as folder:
        job_file, outcome_file = Path(folder, "job.json"), Path(folder, "outcome.json")
        job_file.write_text(json.dumps(job.as_dict()))
        command = [sys.executable, "-m", "lm_eval_pruned.models.vllm.prepare_process", str(job_file), str(outcome_file)]
        code = subprocess.run(command, check=False).returncode
        if not outcome_file.exists():
            reason = f"was killed by signal {-code}: most likely memory ran out" if code < 0 else f"ended with {code}"
            raise PruningError(f"the process that prunes the model {reason}; its own lines stand above")
        outcome = json.loads(outcome_file.read_text())
    if "error" in outcome:
        kind: type[PrunedEvalError] = getattr(errors, outcome["error"])
        raise kind(outcome["message"])
    return Premade(**outcome)
