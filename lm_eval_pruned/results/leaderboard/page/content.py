"""What the page shows, as JSON: runs, their lines, and the questions that changed against dense."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from lm_eval_pruned import __version__
from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.leaderboard.leaderboard import ALPHA, Entry, Line
from lm_eval_pruned.results.leaderboard.page.changes import Change, Changes, find_changes
from lm_eval_pruned.results.leaderboard.page.texts import MAX_CHARACTERS, Text, newest_runs, read_texts
from lm_eval_pruned.results.measurement import Key
from lm_eval_pruned.results.records.configuration import Words
from lm_eval_pruned.results.records.record import Record

# Fields of a run, which its lines do not repeat.
_SHARED = ("model", "run", "settings", "source")
# Significant digits of numbers on the page; CSV and JSON have them all.
_DIGITS = 6


class _Identity(NamedTuple):
    """By what runs are told apart on the page, as by people."""

    model: str
    label: str
    settings: str
    source: str


class _Pool(NamedTuple):
    """Values that many places share, each with its place."""

    places: dict[Hashable, int]

    def place(self, value: Hashable) -> int:
        return self.places.setdefault(value, len(self.places))


def page_content(entries: Sequence[Entry], records: Sequence[Record]) -> dict[str, object]:
    """Return `runs`; their `lines` by `columns`; by the number of a line the `changes` shown.

    A change is [place in `questions`, new, old, place in `responses` of the run, and of the dense run], -1 where the
    samples file lacks it. A question is [text, gold]; a response [text, answer].

    Raises:
        DataError: a samples file has changed since it was read.
    """
    newest = newest_runs(records)
    runs: dict[_Identity, dict[str, object]] = {}
    for entry in entries:
        runs.setdefault(_identity(entry.line), _run(entry, newest))
    places = {identity: place for place, identity in enumerate(runs)}
    names = [field.name for field in fields(Line) if field.name not in _SHARED]
    found = find_changes(entries)
    texts = _read(entries, found, newest)
    questions, responses = _Pool({}), _Pool({})
    changes = {
        place: [_change(change, entry, texts, questions, responses) for change in shown]
        for place, entry in enumerate(entries)
        if (shown := _shown(entry, found))
    }
    return {
        "version": __version__,
        "alpha": ALPHA,
        "characters": MAX_CHARACTERS,
        "runs": list(runs.values()),
        "columns": ["run", *names, "area", "lost", "won"],
        "lines": [
            [
                places[_identity(entry.line)],
                *(_rounded(getattr(entry.line, name)) for name in names),
                entry.line.metric.startswith(AREA),
                *((one.lost, one.won) if entry.key and (one := found.get(entry.key)) else (None, None)),
            ]
            for entry in entries
        ],
        "changes": changes,
        "questions": list(questions.places),
        "responses": list(responses.places),
    }


def _identity(line: Line) -> _Identity:
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
    """Take a published label apart, which has a method, and perhaps an allocation and a sparsity, in this order."""
    method, *rest = label.split() or [""]
    amount = rest.pop() if rest and rest[-1].replace(".", "", 1).isdecimal() else ""
    return Words(method, " ".join(rest), amount, "")


def _shown(entry: Entry, found: Mapping[Key, Changes]) -> list[Change]:
    return found[entry.key].shown if entry.key is not None and entry.key in found else []


def _read(
    entries: Sequence[Entry], found: Mapping[Key, Changes], newest: Mapping[Key, Record]
) -> dict[Key, dict[int, Text]]:
    """Read the texts of all changes shown, those of a dense run once for all that are held against it."""
    wanted: dict[Key, set[int]] = {}
    for entry in entries:
        for key in (entry.key, entry.against.dense) if entry.against else ():
            if key is not None and (questions := {change.question for change in _shown(entry, found)}):
                wanted.setdefault(key, set()).update(questions)
    return {key: read_texts(newest[key], key, questions) for key, questions in wanted.items()}


def _change(
    change: Change, entry: Entry, texts: Mapping[Key, Mapping[int, Text]], questions: _Pool, responses: _Pool
) -> list[object]:
    keys = (entry.key, entry.against.dense if entry.against else None)
    both = [texts[key].get(change.question) if key is not None and key in texts else None for key in keys]
    asked = next((text for text in both if text), None)
    return [
        questions.place((asked.question, asked.gold) if asked else ("", "")),
        _rounded(change.new),
        _rounded(change.old),
        *(responses.place((text.response, text.answer)) if text else -1 for text in both),
    ]


def _rounded(value: object) -> object:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
