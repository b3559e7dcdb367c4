"""Prepare what vLLM loads: prune in a child process the first time, and reuse the result afterwards.

A note among the artifacts records what was made, under a digest of the job and of the checkpoint's files, so that a
later start reads no weights.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lm_eval_pruned import __version__, errors
from lm_eval_pruned.errors import PrunedEvalError, PruningError
from lm_eval_pruned.files import MALFORMED, sha256_of_json, write_atomically
from lm_eval_pruned.models.vllm.prepare_process import Job, Prepared
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.checkpoint.resolve import checkpoint_folder

logger = logging.getLogger(__name__)

# Folder of the notes, inside the folder of artifacts: each is a JSON file on what an earlier job made.
NOTES = "known"


def prepare(job: Job) -> Prepared:
    """Return the checkpoint or artifact that vLLM loads for `job`, and prune the model only if not done before.

    Raises:
        PrunedEvalError: something is wrong with the settings, the model or the data.
    """
    note = _note(job)
    known = _read(note) if note else None
    if known is not None:
        logger.info("what was pruned before is read from %s: nothing is calibrated", known.folder or note)
        return known
    prepared = _run_process(job)
    # Loading may have downloaded the checkpoint, whose files are part of the digest.
    note = _note(job)
    if note:
        _write(note, prepared)
    return prepared


def _note(job: Job) -> Path | None:
    """Return the path of the note on a job, named by a digest of all its inputs except the weights.

    A file counts as unchanged if its size and its times are, as in git; the time of its last status change cannot be
    set back by rsync or tar. Traces depend on too many inputs, so there is no note for them.
    """
    calib = job.recipe.config.calib
    if job.recipe.calibration_source(job.source).needs_model:
        return None
    content = {
        "job": {**job.as_dict(), "artifacts": None},
        "settings": job.recipe.determining(),
        "checkpoint": list(_state(checkpoint_folder(job.source, revision=job.options.revision))),
        "calibration": list(_state(Path(calib).expanduser())) if calib else None,
        "version": __version__,
    }
    return Path(job.artifacts) / NOTES / f"{sha256_of_json(content)}.json"


def _state(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """Yield path, size and times of a file, or of every file in a folder; nothing if there is none."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            status = file.stat()
            yield str(file.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(note: Path) -> Prepared | None:
    """Return what a note records if every byte of it is still there; a damaged note counts as missing."""
    try:
        known = Prepared(**json.loads(note.read_text()))
        PruneReport.from_dict(known.report)
        return known if known.is_intact() else None
    except (OSError, *MALFORMED):
        return None


def _write(note: Path, prepared: Prepared) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, json.dumps(prepared.as_dict()))
    except OSError as error:
        logger.warning("%s cannot be written (%s): the next load looks at the weights again", note, error)


def _run_process(job: Job) -> Prepared:
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
    return Prepared(**outcome)
