"""Check measurements against a baseline for regressions, changed sparsities, and missing runs or questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.area import with_areas
from lm_eval_pruned.results.differences import NAMED, changes, contradictions, in_words
from lm_eval_pruned.results.gate.findings import FAILING, Finding, Match
from lm_eval_pruned.results.gate.judge import judge
from lm_eval_pruned.results.gate.rules import Rules
from lm_eval_pruned.results.gate.sequential import judge_sequentially
from lm_eval_pruned.results.labels import find_run, line_names, run_labels
from lm_eval_pruned.results.measurement import Key, Measurement
from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.samples import Outcomes, isin

__all__ = ["FAILING", "Finding", "Rules", "check", "check_against"]

# Sparsities are ratios of counts, so the same pruning gives the same value.
SPARSITY_TOLERANCE = 1e-6


def check(baseline: Mapping[Key, Measurement], measured: Mapping[Key, Measurement], rules: Rules) -> list[Finding]:
    """Compare measurements, and the areas under their curves, with those of a baseline that have their configuration.

    Args:
        baseline: accepted measurements.
        measured: new ones; those that the baseline lacks are ignored.
        rules: a change for the worse is a regression if it is significant at the level `alpha` in a one-sided paired
            test, corrected by Holm over all comparisons.

    Raises:
        DataError: nothing was measured.
    """
    old, new = _with_areas(baseline, measured)
    names, found = line_names(old), _same(old, new)
    matches = [Match(names[key], old[key], new[other]) for key, other in found.items()]
    return [
        *_changed([(baseline[key], new[other]) for key, other in found.items() if key in baseline]),
        *_missing(baseline, new, found, names, is_partial=rules.sequential),
        *(judge_sequentially(matches, rules, lines=len(old)) if rules.sequential else judge(matches, rules)),
    ]


def check_against(
    baseline: Mapping[Key, Measurement],
    measured: Mapping[Key, Measurement],
    label: str,
    rules: Rules,
) -> list[Finding]:
    """Compare every new run with the one run of a baseline that has this label, whatever their models and settings.

    Args:
        baseline: accepted measurements.
        measured: new ones.
        label: label of a run of the baseline, or a part of it that no other label has.
        rules: as in `check`.

    Raises:
        DataError: nothing was measured.
        UnknownNameError, ArgumentError: no run of the baseline has the label, or several have.
    """
    old, new = _with_areas(baseline, measured)
    chosen = {_point(key): key for key in find_run(old, label)}
    names, runs = line_names(new), run_labels(new)
    tasks = line_names(chosen.values())
    by_run: dict[str, dict[object, Key]] = {}
    for key in new:
        by_run.setdefault(runs[key], {})[_point(key)] = key
    matches = [
        Match(names[other], old[key], new[other])
        for points in by_run.values()
        for point, key in chosen.items()
        if (other := points.get(point)) is not None
    ]
    missing = [
        Finding(status="missing", name=run, message=f"it lacks what was chosen to compare with: {tasks[key]}")
        for run, points in by_run.items()
        for point, key in chosen.items()
        if key in baseline and point not in points
    ]
    lost = [finding for match in matches for finding in _lost_questions(match, is_partial=rules.sequential)]
    judged = judge_sequentially(matches, rules, lines=len(matches)) if rules.sequential else judge(matches, rules)
    return [*missing, *lost, *judged]


def _with_areas(
    baseline: Mapping[Key, Measurement], measured: Mapping[Key, Measurement]
) -> tuple[dict[Key, Measurement], dict[Key, Measurement]]:
    if not measured:
        raise DataError("these runs hold no result of any task")
    return with_areas(baseline), with_areas(measured)


def _point(key: Key) -> object:
    return key.task, key.filter, key.metric, key.budget


def _same(old: Mapping[Key, Measurement], new: Mapping[Key, Measurement]) -> dict[Key, Key]:
    """Return the new measurement for each of the baseline that has one; models are found again by their names.

    Among several models of one name it is the one whose weights the baseline names, or else the newest.
    """
    by_name: dict[Key, list[Key]] = {}
    for key in new:
        by_name.setdefault(_named(key), []).append(key)
    found = {}
    for key in old:
        if candidates := by_name.get(_named(key)):
            same = [one for one in candidates if not contradictions(key.configuration, one.configuration)]
            found[key] = (same or candidates)[-1]
    return found


def _named(key: Key) -> Key:
    return replace(key, configuration=replace(key.configuration, evidence=()))


def _lost(new: Outcomes, old: Outcomes) -> list[str]:
    return [f"{question:016x}" for question in old.questions[~isin(old.questions, new.questions)].tolist()]


def _changed(pairs: Sequence[tuple[Measurement, Measurement]]) -> Iterator[Finding]:
    """Yield a finding for each configuration whose achieved sparsity differs from the baseline's."""
    seen = set()
    for old, new in pairs:
        one = old.configuration
        if (change := (one.model, one.label, new.sparsity)) in seen:
            continue
        seen.add(change)
        if (old.sparsity is None) != (new.sparsity is None) or (
            old.sparsity is not None
            and new.sparsity is not None
            and abs(old.sparsity - new.sparsity) > SPARSITY_TOLERANCE
        ):
            message = f"the achieved sparsity is {_fraction(new.sparsity)}, in the baseline {_fraction(old.sparsity)}"
            yield Finding(status="sparsity", name=f"{one.model} · {one.label}", message=message)


def _fraction(sparsity: float | None) -> str:
    return "unknown" if sparsity is None else f"{sparsity:.6f}"


def _missing(
    baseline: Mapping[Key, Measurement],
    new: Mapping[Key, Measurement],
    found: Mapping[Key, Key],
    names: Mapping[Key, str],
    *,
    is_partial: bool,
) -> Iterator[Finding]:
    """Yield a finding for each configuration, task and set of questions that the runs lack."""
    configurations = dict.fromkeys(_named(key).configuration for key in new)
    reported = set()
    for key, old in baseline.items():
        wanted = _named(key).configuration
        if wanted not in configurations:
            message = (
                f"no run has this configuration; {_nearest(wanted, list(configurations))}; --against compares others"
            )
            lost = Finding(status="missing", name=f"{wanted.model} · {wanted.label}", message=message)
            # The tasks of a run that are asked in different ways have configurations of their own.
            if lost not in reported:
                reported.add(lost)
                yield lost
        elif key not in found:
            yield Finding(
                status="missing", name=names[key], message=f"the task was not run, or not scored by {key.metric}"
            )
        else:
            yield from _lost_questions(Match(names[key], old, new[found[key]]), is_partial=is_partial)


def _lost_questions(match: Match, *, is_partial: bool) -> Iterator[Finding]:
    """Yield a finding for the questions that a run lacks; if it `is_partial`, only where those asked are all others."""
    if match.new.outcomes is None:
        message = "nothing is known of its questions: run lm_eval with --log_samples"
        yield Finding(status="missing", name=match.name, message=message)
    elif match.old.outcomes is not None and (lost := _lost(match.new.outcomes, match.old.outcomes)):
        is_other = len(lost) == len(match.old.outcomes.questions)
        if is_partial and not is_other:
            return
        named = ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")
        message = f"{len(lost)} of {len(match.old.outcomes.questions)} questions are missing: {named}"
        if is_other:
            message += f"; the {len(match.new.outcomes.questions)} that were asked are others: its data have changed"
        if match.new.stopped is not None:
            message += f" (the sweep {match.new.stopped.words()}; --sequential judges what was asked, and the sweep "
            message += "without --stop early asks the rest)"
        yield Finding(status="missing", name=match.name, message=message)


def _nearest(wanted: Configuration, configurations: Sequence[Configuration]) -> str:
    """Describe how the most similar configuration differs from the wanted one."""
    return f"the nearest has {in_words(min((changes(wanted, one) for one in configurations), key=len))}"
