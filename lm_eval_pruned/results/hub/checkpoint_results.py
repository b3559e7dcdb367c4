"""Find the results of one pruned checkpoint among those of many runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.errors import MissingDataError
from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.eee.record import read_content
from lm_eval_pruned.results.eee.scores import source_data
from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine, build_entries
from lm_eval_pruned.results.measurement import measure
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.run_settings import section


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointResult:
    """A line of the leaderboard, where its questions are from, and the time of its newest run in Unix seconds."""

    line: LeaderboardLine
    source: Mapping[str, object]
    date: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointResults:
    """The results of a checkpoint, compared with those of its dense model, and what could not be read."""

    results: Sequence[CheckpointResult]
    problems: Sequence[str]


def checkpoint_results(places: Sequence[Path], fingerprint: str) -> CheckpointResults:
    """Return the results of the model with this fingerprint.

    Args:
        places: folders with results of lm_eval, or results files; of the dense model as well, to be compared with.
        fingerprint: of the pruning report, which `pruned-hf` and `pruned-vllm` write into the results of a checkpoint.

    Raises:
        MissingDataError: no run is of this model.
        PrunedEvalError: nothing can be read.
    """
    records, problems = read_records(places)
    own = [record for record in records if record.fingerprint == fingerprint]
    if not own:
        raise MissingDataError(
            f"none of the {len(records)} runs is of this checkpoint (fingerprint {fingerprint[:8]}): run lm_eval with "
            "--model pruned-hf --model_args pretrained=CHECKPOINT, which reads its pruning_report.json"
        )
    newest = {result.task: record for record in own for result in record.results}
    contents = {record.path: read_content(record) for record in newest.values()}
    keys = measure(own).keys()
    found = []
    for entry in build_entries(records):
        if entry.key in keys and not entry.key.metric.startswith(AREA):
            record = newest[entry.line.task]
            content = contents[record.path]
            source = source_data(section(section(content, "configs"), entry.line.task), entry.line.task, content)
            found.append(CheckpointResult(line=entry.line, source=source, date=record.date))
    return CheckpointResults(results=found, problems=problems)
