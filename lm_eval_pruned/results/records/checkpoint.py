"""Pruning reports of checkpoints that `lm-eval-pruned prune` wrote, for runs of other model types and tools.

Only our own models write into a results file how a model was pruned. For any other run, it is read from the note in the
folder that the model was loaded from, if that still exists. A hub id means the model as published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lm_eval_pruned.files import MALFORMED, NOTE_FILE, NOTE_WEIGHTS, is_file, weight_digests
from lm_eval_pruned.paths import BUNDLED, has_form_of_hub_id
from lm_eval_pruned.results.records.configuration import UNKNOWN
from lm_eval_pruned.results.records.run_settings import section

# The report of a model that may have been pruned or not.
NOTHING_KNOWN: Mapping[str, object] = MappingProxyType({"config": {"method": UNKNOWN}})
# Seconds by which a file system may round up the time at which a note was written.
_ROUNDED = 2.0


class Found(NamedTuple):
    """The pruning of a model, in the layout of a pruning report, and a sentence if a note was not used.

    The report is empty for a model as published, and has the method UNKNOWN if there is no note.
    """

    report: Mapping[str, object]
    problem: str = ""


def find_report(model: str, *, date: float, commit: object = None, other_weights: bool = False) -> Found:
    """Return how the model of a run was pruned, by the folder that it was loaded from.

    A note counts if it describes the weights that lie beside it, and was there when the run was.

    Args:
        model: path or hub id.
        date: of the run, in seconds since 1970.
        commit: of the hub, if the file has one. Without it a name without an owner may be that of a folder.
        other_weights: whether an adapter or the like was added to those of the folder.
    """
    folder = Path(model)
    if not is_file(folder / "config.json"):
        is_published = has_form_of_hub_id(model) and ("/" in model or bool(commit))
        return Found({} if model == BUNDLED or is_published else NOTHING_KNOWN)
    note = folder / NOTE_FILE
    if other_weights or not is_file(note):
        return Found(NOTHING_KNOWN)
    if note.stat().st_mtime > date + _ROUNDED:
        return Found(
            NOTHING_KNOWN, f"{note}, which is newer than the run, so that other weights may have been there then"
        )
    report = _described(note)
    return (
        Found(NOTHING_KNOWN, f"{note}, which does not describe the weights beside it")
        if report is None
        else Found(report)
    )


# Several runs of one checkpoint are read together, and its weights are large.
@lru_cache
def _described(note: Path) -> Mapping[str, object] | None:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        is_described = bool(section(content, "config")) and content[NOTE_WEIGHTS] == weight_digests(note.parent)
    except (OSError, *MALFORMED):
        return None
    return {name: value for name, value in content.items() if name != NOTE_WEIGHTS} if is_described else None
