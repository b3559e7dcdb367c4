"""Files of `.eval_results`, from which the hub makes the leaderboards of benchmarks: one for each task and budget.

Format: https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

import yaml

from lm_eval_pruned.results.hub.checkpoint_results import CheckpointResult
from lm_eval_pruned.results.leaderboard.scales import is_share
from lm_eval_pruned.results.records.run_settings import section

FOLDER = ".eval_results"
# The first line of a file of ours, which may be written again.
MARK = "# Written by lm-eval-pruned card.\n"
# What data sets call their tasks, by configuration; others go by the name of the configuration.
TASK_IDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "Idavidrein/gpqa": {"gpqa_diamond": "diamond", "gpqa_main": "main", "gpqa_extended": "extended"},
        "openai/gsm8k": {"main": "gsm8k"},
        "TIGER-Lab/MMLU-Pro": {"": "mmlu_pro"},
    }
)
_NO_PART_OF_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class EvalResultFiles(NamedTuple):
    """Contents of files by name, and what is left out and why, each in a sentence."""

    files: dict[str, str]
    problems: list[str]


def eval_result_files(results: Sequence[CheckpointResult]) -> EvalResultFiles:
    """Return the files for some results: shares as percentages, as the hub's leaderboards have them.

    Left out are questions that are on no hub, and runs with `limit` or stopped early, which asked only some of them;
    and all of them if the installed huggingface_hub does not know the format.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:
        upgrade = "pip install --upgrade huggingface_hub"
        return EvalResultFiles({}, [f"{FOLDER}, which needs huggingface_hub 1.4: {upgrade}"])
    entries: dict[str, list[EvalResultEntry]] = {}
    problems = []
    for result in results:
        line, repository = result.line, str(result.source.get("hf_repo") or "")
        if not repository:
            problems.append(f"{line.task}: its questions are not a data set of the hub")
        elif line.acc is None:
            problems.append(f"{line.task}: stopped after {line.stopped_at} of {line.stopped_of} questions")
        elif line.limit:
            problems.append(f"{line.task}: only a part of its questions was asked (limit {line.limit})")
        else:
            entry = EvalResultEntry(
                dataset_id=repository,
                task_id=_task_id(repository, result.source),
                value=round(100 * line.acc, 4) if is_share(line) else line.acc,
                date=datetime.fromtimestamp(result.date, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                notes=_notes(result),
            )
            entries.setdefault(_file_name(result), []).append(entry)
    files = {
        name: MARK + yaml.safe_dump(eval_result_entries_to_yaml(some), sort_keys=False, width=1000)
        for name, some in entries.items()
    }
    return EvalResultFiles(files, problems)


def _task_id(repository: str, source: Mapping[str, object]) -> str:
    configuration = str(section(source, "additional_details").get("config") or "")
    return TASK_IDS.get(repository, {}).get(configuration, configuration or "default")


def _file_name(result: CheckpointResult) -> str:
    line = result.line
    parts = (line.task, "" if line.filter == "none" else line.filter)
    return _NO_PART_OF_A_NAME.sub("-", "-".join(part for part in parts if part)) + ".yaml"


def _notes(result: CheckpointResult) -> str:
    """Say in one line under which conditions a result was reached."""
    line = result.line
    interval = "" if line.low is None or line.high is None else f"95 % {100 * line.low:.1f} to {100 * line.high:.1f}"
    parts = (
        f"thinking budget {line.budget} tokens" if line.budget is not None else "",
        f"pruned: {line.run}",
        f"{line.metric}{f', {line.filter}' if line.filter != 'none' else ''}",
        interval if is_share(line) else "",
        f"{line.seeds} seeds" if (line.seeds or 1) > 1 else "",
        line.settings,
    )
    return "; ".join(part for part in parts if part)
