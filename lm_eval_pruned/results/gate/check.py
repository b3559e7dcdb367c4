"""Check measurements against a baseline for regressions, changed sparsities, and missing runs or questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.area import with_areas
from lm_eval_pruned.results.comparison import Comparison, Pair, compare
from lm_eval_pruned.results.labels import line_names
from lm_eval_pruned.results.measurement import Key, Measurement
from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.run_settings import Settings
from lm_eval_pruned.results.records.samples import Outcomes, isin

Status = Literal["regression", "sparsity", "missing", "undetectable", "fine"]
FAILING: frozenset[Status] = frozenset({"regression", "sparsity", "missing"})

# Sparsities are ratios of counts, so the same pruning gives the same value.
SPARSITY_TOLERANCE = 1e-6
# Messages name at most this many questions or differences.
_NAMED = 3
# Differences this close to the margin are equal to it up to rounding.
_TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report: `status` is the verdict on `name`, `message` a sentence with the figures."""

    status: Status
    name: str
    message: str


def check(
    baseline: Mapping[Key, Measurement], measured: Mapping[Key, Measurement], *, alpha: float, margin: float
) -> list[Finding]:
    """Compare measurements, and the areas under their curves, with a baseline.

    Args:
        baseline: accepted measurements.
        measured: new ones; those that the baseline lacks are ignored.
        alpha: a drop is a regression if it is significant at this level in a one-sided paired test, corrected by Holm
            over all comparisons.
        margin: drop that is tolerated, a fraction (0.02 is two points).

    Raises:
        DataError: nothing was measured.
    """
    if not measured:
        raise DataError("these runs hold no result of any task")
    old, new = with_areas(baseline), with_areas(measured)
    names = line_names(old)
    pairs = {key: pair for key in old if key in new and (pair := _pair(new[key], old[key])) is not None}
    comparisons = compare(list(pairs.values()), alpha=alpha, alternative="less", margin=margin)
    return [
        *_changed(baseline, measured),
        *_missing(baseline, measured, names),
        *(_judge(names[key], comparison, alpha, margin) for key, comparison in zip(pairs, comparisons, strict=True)),
    ]


def _judge(name: str, comparison: Comparison, alpha: float, margin: float) -> Finding:
    beyond = f" beyond the margin of {_points(margin)}" if margin else ""
    figures = (
        f"{100 * comparison.difference:+.1f} points [{100 * comparison.low:+.1f}, {100 * comparison.high:+.1f}] on "
        f"{comparison.questions} questions, p = {comparison.p:.2g}, {comparison.p_holm:.2g} corrected "
        f"({comparison.test})"
    )
    reach = (
        f"no drop at all can be found on {comparison.questions} questions"
        if comparison.detectable is None
        else f"a drop is found 4 times in 5 from {_points(comparison.detectable)}"
    )
    if comparison.p_holm <= alpha:
        return Finding(status="regression", name=name, message=f"{figures}: a significant drop{beyond}")
    if comparison.difference < -margin - _TIE:
        message = f"{figures}: undetectable, so small a drop cannot be told from noise here; {reach}"
        return Finding(status="undetectable", name=name, message=message)
    return Finding(status="fine", name=name, message=f"{figures}; {reach}")


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f} points"


def _pair(new: Measurement, old: Measurement) -> Pair | None:
    if new.outcomes is None or old.outcomes is None:
        return None
    return (
        Pair(new.outcomes, old.outcomes)
        if len(_lost(new.outcomes, old.outcomes)) < len(old.outcomes.questions)
        else None
    )


def _lost(new: Outcomes, old: Outcomes) -> list[str]:
    return [f"{question:016x}" for question in old.questions[~isin(old.questions, new.questions)].tolist()]


def _changed(baseline: Mapping[Key, Measurement], measured: Mapping[Key, Measurement]) -> Iterator[Finding]:
    """Yield a finding for each configuration whose achieved sparsity differs from the baseline's."""
    seen = set()
    for key, old in baseline.items():
        new = measured.get(key)
        if new is None or (change := (key.configuration.model, key.configuration.label, new.sparsity)) in seen:
            continue
        seen.add(change)
        if (old.sparsity is None) != (new.sparsity is None) or (
            old.sparsity is not None
            and new.sparsity is not None
            and abs(old.sparsity - new.sparsity) > SPARSITY_TOLERANCE
        ):
            name = f"{key.configuration.model} · {key.configuration.label}"
            message = f"the achieved sparsity is {_fraction(new.sparsity)}, in the baseline {_fraction(old.sparsity)}"
            yield Finding(status="sparsity", name=name, message=message)


def _fraction(sparsity: float | None) -> str:
    return "unknown" if sparsity is None else f"{sparsity:.6f}"


def _missing(
    baseline: Mapping[Key, Measurement], measured: Mapping[Key, Measurement], names: Mapping[Key, str]
) -> Iterator[Finding]:
    """Yield a finding for each configuration, task or set of questions in the baseline that the runs lack."""
    configurations = list(dict.fromkeys(key.configuration for key in measured))
    reported = set()
    for key, old in baseline.items():
        if key.configuration not in configurations:
            if key.configuration not in reported:
                reported.add(key.configuration)
                name = f"{key.configuration.model} · {key.configuration.label}"
                message = f"no run has this configuration; {_nearest(key.configuration, configurations)}"
                yield Finding(status="missing", name=name, message=message)
        elif key not in measured:
            yield Finding(
                status="missing", name=names[key], message=f"the task was not run, or not scored by {key.metric}"
            )
        elif (new := measured[key].outcomes) is None:
            message = "nothing is known of its questions: run lm_eval with --log_samples"
            yield Finding(status="missing", name=names[key], message=message)
        elif old.outcomes is not None and (lost := _lost(new, old.outcomes)):
            named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
            message = f"{len(lost)} of {len(old.outcomes.questions)} questions are missing: {named}"
            yield Finding(status="missing", name=names[key], message=message)


def _nearest(wanted: Configuration, configurations: Sequence[Configuration]) -> str:
    """Describe how the most similar configuration differs from the wanted one."""
    changes = min((_changes(wanted, one) for one in configurations), key=len)
    more = f" and {len(changes) - _NAMED} more differences" if len(changes) > _NAMED else ""
    return f"the nearest has {', '.join(changes[:_NAMED])}{more}"


def _changes(wanted: Configuration, other: Configuration) -> list[str]:
    old, new = (dict(_all_settings(one)) for one in (wanted, other))
    return [
        f"{name} {new.get(name, 'unset')} instead of {old.get(name, 'unset')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _all_settings(configuration: Configuration) -> Settings:
    return (("model", configuration.model), *configuration.pruning, *configuration.settings)
