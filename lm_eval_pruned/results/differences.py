"""Differences between two configurations, in words: why runs are not compared."""

from __future__ import annotations

from collections.abc import Iterable

from lm_eval_pruned.results.records.configuration import Configuration
from lm_eval_pruned.results.records.run_settings import Settings

# A sentence names at most this many differences.
NAMED = 3
_CHARACTERS = 60


def changes(wanted: Configuration, other: Configuration, *, ignoring: Iterable[str] = ()) -> list[str]:
    """Return each setting of `other` that differs from the wanted one, as text."""
    old, new = dict(_all_settings(wanted)), dict(_all_settings(other))
    names = sorted({*old, *new} - {*ignoring})
    differing = [
        f"{name} {_short(new.get(name, 'unset'))} instead of {_short(old.get(name, 'unset'))}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    return differing + contradictions(wanted, other)


def contradictions(one: Configuration, other: Configuration) -> list[str]:
    """Return the evidence, as text, that two runs were of different models although their names may be equal.

    Example:
        >>> a, b = (Configuration(model="out", pruning=(), settings=(), evidence=(("weights", x),)) for x in "ab")
        >>> contradictions(a, b)
        ['weights b instead of a']
    """
    old, new = dict(one.evidence), dict(other.evidence)
    # The commit and the number of parameters say nothing that the weights do not.
    names = ["weights"] if "weights" in old and "weights" in new else [name for name in old if name in new]
    return [f"{name} {new[name]} instead of {old[name]}" for name in names if old[name] != new[name]]


def in_words(differing: list[str]) -> str:
    """Join the first of some differences, and count the rest."""
    more = f" and {len(differing) - NAMED} more differences" if len(differing) > NAMED else ""
    return f"{', '.join(differing[:NAMED])}{more}"


def _all_settings(configuration: Configuration) -> Settings:
    return (("model", configuration.model), *configuration.pruning, *configuration.settings)


def _short(value: str) -> str:
    return value if len(value) <= _CHARACTERS else f"{value[: _CHARACTERS - 1]}…"
