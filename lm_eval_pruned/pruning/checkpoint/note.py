"""The note that `lm-eval-pruned prune` leaves in a checkpoint: its report, its original, and digests of its weights.

A run on the checkpoint reports it as its own pruning, as long as the weights are those that the note was written for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from lm_eval_pruned.files import MALFORMED, NOTE_FILE, NOTE_WEIGHTS, weight_digests
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.checkpoint.resolve import find_file

logger = logging.getLogger(__name__)

# The key of the note, besides NOTE_WEIGHTS, that a report does not have.
ORIGINAL = "original"
# Model arguments with which the weights are not those of the checkpoint's own files.
_OTHER_WEIGHTS = ("peft", "delta", "lora_local_path", "gguf_file", "subfolder", "state_dict")


def write_note(report: PruneReport, folder: Path, *, original: str, revision: str) -> None:
    """Write the report into the folder of the checkpoint that it describes, with the name of the original model."""
    origin = {"pretrained": original, **({"revision": revision} if revision != "main" else {})}
    note = {**report.as_dict(), ORIGINAL: origin, NOTE_WEIGHTS: weight_digests(folder)}
    (folder / NOTE_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def read_note(source: str, arguments: Mapping[str, object]) -> dict[str, object] | None:
    """Return the note of a checkpoint, without digests; None if there is none or it describes other weights.

    Args:
        source: folder or hub id.
        arguments: model arguments, of which `revision` and those that change the weights are read.
    """
    if any(arguments.get(name) for name in _OTHER_WEIGHTS):
        return None
    path = find_file(source, NOTE_FILE, revision=str(arguments.get("revision") or "main"))
    if path is None:
        return None
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        files, origin = note.pop(NOTE_WEIGHTS, None), note.get(ORIGINAL)
        if not isinstance(files, dict) or not isinstance(origin, dict):
            # Of an older version, which kept no original.
            return None
        PruneReport.from_dict({name: value for name, value in note.items() if name != ORIGINAL})
        found = weight_digests(path.parent)
    except (OSError, *MALFORMED) as error:
        logger.warning("%s is not a pruning report (%s): it is ignored", path, error)
        return None
    if found != files:
        wrong = sorted(name for name in {*found, *files} if found.get(name) != files.get(name))
        logger.warning(
            "%s was written for other weights than lie beside it now (%s): this run is not reported as pruned by it",
            path,
            ", ".join(wrong),
        )
        return None
    return dict(note)


def reported(report: PruneReport, note: Mapping[str, object] | None) -> dict[str, object]:
    """Return what a run writes about its pruning: its report, or that of its checkpoint with the costs of this run."""
    own = report.as_dict()
    if note is None:
        return own
    return {**note, **{name: own[name] for name in ("seconds", "peak_memory_bytes", "software")}}
