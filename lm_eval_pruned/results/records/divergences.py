"""Read what `diverge` and `map` wrote: divergences of runs, found by the fingerprint of the pruned model, and maps."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.results.records.divergence import Divergence
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.statistics.intervals import mean_interval

DIVERGENCE_FILE, MAP_FILE = "divergence.json", "map.json"


class MapCell(NamedTuple):
    """KL in nats a token of pruning one part of one block alone."""

    block: int
    part: str
    sparsity: float
    kl: float


@dataclass(frozen=True, slots=True)
class FoundMap:
    """A map of `lm-eval-pruned map`: the model, the method and the cells."""

    model: str
    method: str
    cells: tuple[MapCell, ...]


class Attached(NamedTuple):
    """Runs with their divergences, and a sentence for each file that was skipped."""

    records: list[Record]
    problems: list[str]


def with_divergences(records: Sequence[Record], places: Iterable[Path]) -> Attached:
    """Give each run the divergence of its pruned model, found in and below `places` and in the folders around the run.

    Both files have the fingerprint of the pruned model. Of several, along other traces, the one nearest to the run is
    taken: in its folder, in the folder above or the one above that; else the newest.
    """
    folders = {parent for record in records for parent in _around(record)}
    files = {path.resolve(): path for path in (*_named(places, DIVERGENCE_FILE), *_inside(folders))}
    by_model: dict[str, list[Divergence]] = {}
    problems = []
    for path in sorted(files.values(), key=lambda path: path.stat().st_mtime):
        try:
            found = read_divergence(path)
        except (OSError, *MALFORMED) as problem:
            problems.append(f"{path} is not what lm-eval-pruned diverge writes ({problem!r:.100})")
        else:
            by_model.setdefault(found.fingerprint, []).append(found)
    attached = [
        replace(record, divergence=_nearest(record, by_model[record.fingerprint]))
        if record.fingerprint in by_model
        else record
        for record in records
    ]
    return Attached(attached, problems)


def read_divergence(path: Path) -> Divergence:
    """Read a divergence; the share of surviving traces gets its interval by question.

    Raises:
        OSError, LookupError, TypeError, ValueError: it cannot be read, or is of another kind.
    """
    content = json.loads(path.read_bytes())
    survived: dict[str, list[bool]] = {}
    for trace in content["questions"]:
        survived.setdefault(str(trace["doc_hash"]), []).append(trace["first_flip"] is None)
    interval = mean_interval(np.array([float(np.mean(traces)) for traces in survived.values()]))
    low, high = content["kl_low"], content["kl_high"]
    return Divergence(
        path=path,
        fingerprint=str(content["fingerprint"]),
        kl=_finite(content["kl"]),
        kl_low=None if low is None else _finite(low),
        kl_high=None if high is None else _finite(high),
        survive=_finite(content["survive"]),
        survive_low=None if interval is None else interval.low,
        survive_high=None if interval is None else interval.high,
        approximation=str(content.get("approximation", "")),
    )


def read_maps(places: Iterable[Path]) -> list[FoundMap]:
    """Return the maps in and below some folders; a file of that name that is something else is passed over."""
    found: dict[Path, FoundMap] = {}
    for path in _named(places, MAP_FILE):
        try:
            found[path.resolve()] = _map(json.loads(path.read_bytes()))
        except (OSError, *MALFORMED):
            continue
    return list(found.values())


def _map(content: Mapping[str, Any]) -> FoundMap:
    cells = tuple(
        MapCell(int(cell["block"]), str(cell["part"]), _finite(cell["sparsity"]), _finite(cell["kl"]))
        for cell in content["cells"]
    )
    if not cells:
        raise ValueError("it has no cells")
    return FoundMap(str(content["config"]["pretrained"]), str(content["config"]["method"]), cells)


def _nearest(record: Record, found: Sequence[Divergence]) -> Divergence:
    near = [one for folder in _around(record) for one in found if one.path.resolve().parent == folder]
    return next(iter(near), found[-1])


def _around(record: Record) -> tuple[Path, ...]:
    """Return the folder of a run and the two above: of a model in the harness's output, and of a cell of a sweep."""
    folder = record.path.resolve().parent
    return (folder, *folder.parents[:2])


def _inside(folders: Iterable[Path]) -> Iterator[Path]:
    yield from (path for folder in folders if (path := folder / DIVERGENCE_FILE).is_file())


def _named(places: Iterable[Path], name: str) -> Iterator[Path]:
    for place in places:
        for parent, _, names in os.walk(place):
            if name in names:
                yield Path(parent, name)


def _finite(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError(f"{given!r:.50} is not a number")
    return float(given)
