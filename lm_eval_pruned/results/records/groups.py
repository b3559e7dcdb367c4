"""Groups of tasks, such as mmlu: the outcomes of all their questions together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import numpy as np

from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.results.records.configuration import VERSION, task_shots, task_version
from lm_eval_pruned.results.records.metrics import is_same, stated_direction
from lm_eval_pruned.results.records.run_settings import Settings, as_settings, section
from lm_eval_pruned.results.records.samples import DIGITS, Outcomes
from lm_eval_pruned.results.records.task_result import TaskResult, chosen_metric, task_values


def group_results(content: Mapping[str, object], group: str, results: Sequence[TaskResult]) -> Iterator[TaskResult]:
    """Yield the result of a group under each filter, with the outcomes of its tasks if they give its metric.

    There is none for a group without a metric, if the file does not name its tasks, or if a sweep stopped one early.
    The harness averages rates over tasks by their numbers of documents, which is not the rate of all documents.
    """
    if not (tasks := group_tasks(content, group)):
        return
    for name, values in task_values(section(section(content, "results"), group)).items():
        try:
            metric = chosen_metric(values)
        except ValueError:
            # Reported as a problem of its tasks.
            continue
        members = {one.task: one for one in results if one.task in tasks and (one.filter, one.metric) == (name, metric)}
        outcomes = {task: one.outcomes for task, one in members.items() if one.outcomes is not None}
        if any(one.stopped is not None for one in members.values()):
            continue
        is_rate = any(one.weights is not None for one in outcomes.values())
        known = pooled(outcomes) if outcomes and len(outcomes) == len(tasks) and not is_rate else None
        # Some groups are means over tasks and not over questions.
        if known is not None and not is_same(values.metrics[metric], known.mean):
            known = None
        version = task_version(content, group)
        counts = [one.questions for one in members.values()]
        yield TaskResult(
            task=group,
            filter=name,
            benchmark=group,
            budget=None,
            metric=metric,
            higher_is_better=stated_direction(content, group, metric),
            settings=as_settings({**dict(shared([one.settings for one in members.values()])), VERSION: version}),
            seeds=shared([one.seeds for one in members.values()]),
            metrics=values.metrics,
            errors=values.errors,
            outcomes=known,
            questions=sum(count or 0 for count in counts) if len(counts) == len(tasks) and None not in counts else None,
            # Older versions write 0 for every group.
            shots=_only([one.shots for one in members.values()]) if members else task_shots(content, group),
            is_group=True,
        )


def _only(values: Sequence[str]) -> str:
    """Return the value that all have, "" if they differ."""
    return values[0] if len(set(values)) == 1 else ""


def group_tasks(content: Mapping[str, object], group: str) -> list[str]:
    """Return the names of the tasks in a group and in the groups in it; [] where the file does not name them.

    Example:
        >>> subtasks = {"mmlu": ["mmlu_stem", "mmlu_other"], "mmlu_stem": ["algebra", "physics"], "mmlu_other": ["law"]}
        >>> group_tasks({"group_subtasks": subtasks}, "mmlu"), group_tasks({}, "mmlu")
        (['algebra', 'physics', 'law'], [])
    """
    listed = section(content, "group_subtasks")
    return list(dict.fromkeys(_leaves(listed, group, frozenset())))


def pooled(outcomes: Mapping[str, Outcomes]) -> Outcomes:
    """Return the outcomes of several tasks, by their names, as those of one; questions get keys of their own.

    Example:
        >>> one = Outcomes(questions=np.array([1, 2], dtype=np.uint64), correct=np.array([1.0, 0.0]))
        >>> both = pooled({"algebra": one, "physics": one})
        >>> len(set(both.questions.tolist())), both.mean
        (4, 0.5)
    """
    # Where there are no hashes of documents, all tasks number them from 0.
    keys = [one.questions ^ np.uint64(int(sha256_of_json(task)[:DIGITS], 16)) for task, one in outcomes.items()]
    questions = np.concatenate(keys)
    order = np.argsort(questions)
    correct = np.concatenate([one.correct for one in outcomes.values()])
    return Outcomes(questions=questions[order], correct=correct[order])


def shared(settings: Sequence[Settings]) -> Settings:
    """Return the settings that all tasks have, in their order.

    Example:
        >>> shared([(("num_fewshot", "5"), ("until", "."))] + [(("num_fewshot", "5"),)])
        (('num_fewshot', '5'),)
    """
    if not settings:
        return ()
    common = reduce(set.intersection, map(set, settings))
    return tuple(one for one in settings[0] if one in common)


def _leaves(listed: Mapping[str, object], name: str, above: frozenset[str]) -> Iterator[str]:
    members = listed.get(name)
    for member in members if isinstance(members, list) else ():
        if not isinstance(member, str) or member in above:
            continue
        inside = listed.get(member)
        if isinstance(inside, list) and inside:
            yield from _leaves(listed, member, above | {name})
        else:
            yield member
