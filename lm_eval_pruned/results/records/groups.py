"""Groups of tasks, such as mmlu: the outcomes of all their questions together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import numpy as np

from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.results.records.run_settings import section
from lm_eval_pruned.results.records.samples import DIGITS, Outcomes


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


def shared(settings: Sequence[tuple[tuple[str, str], ...]]) -> tuple[tuple[str, str], ...]:
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
