"""Build the page's data, for JSON: runs, their lines, and the questions that changed against the dense run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from lm_eval_pruned import __version__
from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.divergence.summary import MEANING
from lm_eval_pruned.results.leaderboard.entries import ALPHA, Entry, LeaderboardLine
from lm_eval_pruned.results.leaderboard.page.changes import Change, Changes, find_changes
from lm_eval_pruned.results.leaderboard.page.texts import Extract, Text, newest_runs, read_texts
from lm_eval_pruned.results.leaderboard.scales import is_share
from lm_eval_pruned.results.limits import MAX_CHARACTERS
from lm_eval_pruned.results.measurement import Key
from lm_eval_pruned.results.records.configuration import Words
from lm_eval_pruned.results.records.divergences import FoundMap
from lm_eval_pruned.results.records.record import Record

# Fields of a run; its lines do not repeat them.
_SHARED = ("model", "run", "settings", "source")
# Significant digits of numbers on the page; CSV and JSON have all digits.
_DIGITS = 6


class _Identity(NamedTuple):
    """What identifies a run on the page."""

    model: str
    label: str
    settings: str
    source: str


class _SharedValues(NamedTuple):
    """Values stored once and referred to by index."""

    indices: dict[Hashable, int]

    def index_of(self, value: Hashable) -> int:
        return self.indices.setdefault(value, len(self.indices))


def page_content(
    entries: Sequence[Entry], records: Sequence[Record], extract: Extract, maps: Sequence[FoundMap] = ()
) -> dict[str, object]:
    """Return `runs`, their `lines` as rows of `columns`, the `changes` shown by line number, and `maps`.

    A change is [index in `questions`, new, old, index in `responses` for the run, and for the dense run], -1 where the
    samples file lacks it. A question is [text, gold], a response [text, answer]; `extract` finds the answer.

    Raises:
        DataError: a samples file has changed since it was read.
    """
    newest = newest_runs(records)
    runs: dict[_Identity, dict[str, object]] = {}
    for entry in entries:
        runs.setdefault(_identity(entry.line), _run(entry, newest))
    run_indices = {identity: index for index, identity in enumerate(runs)}
    names = [field.name for field in fields(LeaderboardLine) if field.name not in _SHARED]
    changes = find_changes(entries)
    texts = {
        key: read_texts(newest[key], key, questions, extract) for key, questions in _questions(entries, changes).items()
    }
    questions, responses = _SharedValues({}), _SharedValues({})
    rows = {
        index: [_change(change, entry, texts, questions, responses) for change in shown]
        for index, entry in enumerate(entries)
        if (shown := _shown(entry, changes))
    }
    return {
        "version": __version__,
        "alpha": ALPHA,
        "characters": MAX_CHARACTERS,
        "runs": list(runs.values()),
        "columns": ["run", *names, "area", "share", "lost", "won"],
        "lines": [
            [
                run_indices[_identity(entry.line)],
                *(_rounded(getattr(entry.line, name)) for name in names),
                entry.line.metric.startswith(AREA),
                is_share(entry.line),
                *((one.lost, one.won) if entry.key and (one := changes.get(entry.key)) else (None, None)),
            ]
            for entry in entries
        ],
        "changes": rows,
        "meaning": MEANING,
        "maps": [
            {
                "model": one.model,
                "method": one.method,
                "cells": [[_rounded(value) for value in cell] for cell in one.cells],
            }
            for one in maps
        ],
        "questions": list(questions.indices),
        "responses": list(responses.indices),
    }


def _identity(line: LeaderboardLine) -> _Identity:
    return _Identity(line.model, line.run, line.settings, line.source)


def _run(entry: Entry, newest: Mapping[Key, Record]) -> dict[str, object]:
    record = None if entry.key is None else newest.get(entry.key)
    return {
        **_identity(entry.line)._asdict(),
        **(_published(entry.line.run) if entry.key is None else entry.key.configuration.words)._asdict(),
        "published": entry.key is None,
        "blocks": [] if record is None else [[_rounded(value) for value in block] for block in record.blocks],
    }


def _published(label: str) -> Words:
    """Split the label of a published figure into method, allocation and sparsity; the last two are optional."""
    method, *rest = label.split() or [""]
    amount = rest.pop() if rest and rest[-1].replace(".", "", 1).isdecimal() else ""
    return Words(method, " ".join(rest), amount, "")


def _shown(entry: Entry, changes: Mapping[Key, Changes]) -> list[Change]:
    return changes[entry.key].shown if entry.key is not None and entry.key in changes else []


def _questions(entries: Sequence[Entry], changes: Mapping[Key, Changes]) -> dict[Key, set[int]]:
    """Return the questions whose texts are shown, of pruned runs and of the dense ones they are compared with."""
    wanted: dict[Key, set[int]] = {}
    for entry in entries:
        for key in (entry.key, entry.reference.dense) if entry.reference else ():
            if key is not None and (questions := {change.question for change in _shown(entry, changes)}):
                wanted.setdefault(key, set()).update(questions)
    return wanted


def _change(
    change: Change,
    entry: Entry,
    texts: Mapping[Key, Mapping[int, Text]],
    questions: _SharedValues,
    responses: _SharedValues,
) -> list[object]:
    keys = (entry.key, entry.reference.dense if entry.reference else None)
    both = [texts[key].get(change.question) if key is not None and key in texts else None for key in keys]
    asked = next((text for text in both if text), None)
    return [
        questions.index_of((asked.question, asked.gold) if asked else ("", "")),
        _rounded(change.new),
        _rounded(change.old),
        *(responses.index_of((text.response, text.answer)) if text else -1 for text in both),
    ]


def _rounded(value: object) -> object:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
