"""Format the leaderboard as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from types import MappingProxyType

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.divergence.summary import MEANING
from lm_eval_pruned.results.leaderboard.entries import ALPHA, LeaderboardLine
from lm_eval_pruned.results.leaderboard.scales import direction_words, is_share, plain_number

_NONE = "-"
# Columns with text from other people's files.
_NAMES = ("model", "run", "settings", "metric", "reference", "limit", "source", "note")
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", **{character: f"\\{character}" for character in "\\|[]`*~$"}})
# An underscore inside a word is not markup, and names are full of them.
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# A spreadsheet evaluates text that begins with one of these; numbers are written as numbers, whatever their sign.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LEGEND = (
    "acc: mean, with its 95 % interval over questions and ± the deviation over seeds; of metrics that are not shares, "
    "value. ↓: lower is better. vs dense: difference to the unpruned run on the same questions, in points for shares, "
    f"* where p < {ALPHA} after Holm's correction over this table; a number in brackets names the reason why there is "
    "none. detectable: the least change for the worse that would have been found 4 times in 5. thinking: mean tokens. "
    "cut, unclosed, answer cut, empty, looping: shares of thinking cut by the budget, of thinking ended by an "
    "end-of-sequence token, of answers cut at their limit, of responses without an answer, of degenerate repetition. "
    "onset: share of a response before its loop, 1 without one. rep-2, rep-3: shares of pairs and triples of words "
    "that are repetitions. harmful, beneficial, churn: shares of the questions that became worse, became better, and "
    "are wrong in both runs with different answers. finished: share of responses that were not cut and give an answer; "
    "acc finished: the accuracy among these. zero: share of the prunable weights that is zero. shots: few-shot "
    "examples. limit: the first questions, or the share of them, that was asked. -: not known, or not applicable."
)
_STOPPED = (
    " stopped at 20 of 200: a sweep asked no more questions, as the verdict on the curve was certain. The mean over "
    "them is not that of all, so only intervals are given, which are confidence sequences and hold whenever one stops; "
    "so do the p-values, and all p-values of the table are doubled, since each line may be tested twice. thinking and "
    "the shares after it are of the questions that were asked."
)
_DIVERGENCE = (
    " KL: KL(dense || pruned) in nats a token along the dense model's responses, and survive: the share of those "
    f"responses in which no argmax changed, both with their 95 % intervals by question: {MEANING}."
)


def markdown(lines: Sequence[LeaderboardLine]) -> str:
    """Return one table per benchmark, after a legend."""
    legend = _LEGEND + (_STOPPED if any(line.stopped_at is not None for line in lines) else "")
    legend += _DIVERGENCE if any(line.kl is not None for line in lines) else ""
    parts = [f"# Leaderboard\n\n{legend}\n"]
    for benchmark in dict.fromkeys(line.benchmark for line in lines):
        shown = [line for line in lines if line.benchmark == benchmark]
        reasons = {reason: place for place, reason in enumerate(_reasons(shown), start=1)}
        rows = [_cells(line, reasons) for line in shown]
        # A column that is empty in every line is left out.
        names = [name for name in rows[0] if any(row[name] != _NONE for row in rows)]
        table = [_titles(names, shown), ["---"] * len(names), *([row[name] for name in names] for row in rows)]
        parts.append(f"## {_plain(benchmark)}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table))
        if reasons:
            notes = (f"({place}) {_plain(reason)}." for reason, place in reasons.items())
            parts.append("Not compared: " + " ".join(notes) + "\n")
    return "\n".join(parts)


def as_csv(lines: Sequence[LeaderboardLine]) -> str:
    """Return one row per line with every field; unknown values are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(LeaderboardLine)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in asdict(line).items()} for line in lines)
    return out.getvalue()


def as_json(lines: Sequence[LeaderboardLine]) -> str:
    """Return an object whose `lines` have every field; unknown values are null."""
    return json.dumps({"schema_version": 1, "lines": [asdict(line) for line in lines]}, indent=1) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[LeaderboardLine]], str]] = MappingProxyType(
    {".md": markdown, ".csv": as_csv, ".json": as_json}
)


def _titles(names: Sequence[str], lines: Sequence[LeaderboardLine]) -> list[str]:
    """Return the heads of columns: not every metric is an accuracy, and not every reference run dense."""
    titles = {}
    if not all(map(is_share, lines)):
        titles["acc"] = "value"
    if any(line.reference and not _is_dense(line) for line in lines):
        titles["vs dense"] = "vs reference"
    return [titles.get(name, name) for name in names]


def _is_dense(line: LeaderboardLine) -> bool:
    return "dense" in line.reference.split(" · ")


def _reasons(lines: Sequence[LeaderboardLine]) -> list[str]:
    return list(dict.fromkeys(line.why_not_compared for line in lines if line.why_not_compared))


def _cells(line: LeaderboardLine, reasons: Mapping[str, int]) -> dict[str, str]:
    parts = [line.metric, "" if line.filter == "none" else line.filter, direction_words(line)]
    metric = ", ".join(part for part in parts if part)
    cells = {
        "budget": "area" if line.metric.startswith(AREA) else _number(line.budget, "d"),
        "model": line.model,
        "run": line.run,
        "settings": line.settings or _NONE,
        "metric": _NONE if metric in ("acc", AREA + "acc") else metric,
        "acc": _score(line),
        "95 %": _interval(line),
        "vs dense": _difference(line, reasons),
        "verdict": line.verdict or _NONE,
        # The dense run of the same model goes without saying.
        "reference": _NONE if line.reference in ("", f"{line.model} · dense") else line.reference,
        "p": _number(line.p_holm, ".2g"),
        "detectable": _detectable(line),
        "KL": _with_interval(line.kl, line.kl_low, line.kl_high, ".2g"),
        "survive": _with_interval(line.survive, line.survive_low, line.survive_high, ".3f"),
        "harmful": _number(line.harmful, ".3f"),
        "beneficial": _number(line.beneficial, ".3f"),
        "churn": _number(line.churn, ".3f"),
        "thinking": _number(line.thinking_tokens, ".0f"),
        "cut": _number(line.budget_hit, ".2f"),
        "unclosed": _number(line.thinking_eos, ".2f"),
        "answer cut": _number(line.answer_cut, ".2f"),
        "empty": _number(line.no_answer, ".2f"),
        "looping": _number(line.looping, ".2f"),
        "finished": _number(line.finished, ".2f"),
        "acc finished": _number(line.acc_finished, ".4f"),
        "onset": _number(line.loop_onset, ".2f"),
        "rep-2": _number(line.rep_2, ".2f"),
        "rep-3": _number(line.rep_3, ".2f"),
        "zero": _number(line.sparsity, ".4f"),
        "seeds": _number(line.seeds, "d"),
        "questions": _number(line.questions, "d"),
        "shots": line.shots or _NONE,
        "limit": line.limit or _NONE,
        "source": line.source or _NONE,
        "note": line.note or _NONE,
    }
    return {name: _plain(value) if name in _NAMES else value for name, value in cells.items()}


def _plain(text: str) -> str:
    r"""Escape a name so that Markdown shows it literally, on one line, inside a table cell.

    Example:
        >>> print(_plain("a|b <script> _c_d"))
        a\|b &lt;script> \_c_d
    """
    return _UNDERSCORE.sub(r"\\_", " ".join(text.splitlines()).translate(_MARKUP))


def _inert(value: object) -> object:
    """Prefix text that a spreadsheet would take for a formula with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _number(value: float | None, layout: str) -> str:
    return _NONE if value is None else format(value, layout)


def _with_interval(value: float | None, low: float | None, high: float | None, layout: str) -> str:
    if low is None or high is None:
        return _number(value, layout)
    return f"{_number(value, layout)} ({low:{layout}} to {high:{layout}})"


def _score(line: LeaderboardLine) -> str:
    if line.acc is None:
        return f"stopped at {line.stopped_at} of {line.stopped_of}"
    number = "{:.4f}".format if is_share(line) else plain_number
    return number(line.acc) + (f" ± {number(line.std)}" if line.std is not None else "")


def _interval(line: LeaderboardLine) -> str:
    if line.low is None or line.high is None:
        return _NONE
    low, high = ((f"{end:.3f}" if is_share(line) else plain_number(end)) for end in (line.low, line.high))
    return f"{low} to {high}"


def _difference(line: LeaderboardLine, reasons: Mapping[str, int]) -> str:
    if line.why_not_compared:
        return f"- ({reasons[line.why_not_compared]})"
    mark = "*" if line.p_holm is not None and line.p_holm < ALPHA else ""
    change = "" if line.difference is None else _change(line, line.difference) + mark
    if line.difference_low is None or line.difference_high is None:
        return change or _NONE
    ends = f"{_change(line, line.difference_low)} to {_change(line, line.difference_high)}"
    return f"{change} ({ends})" if change else ends + mark


def _change(line: LeaderboardLine, value: float) -> str:
    return f"{100 * value:+.1f}" if is_share(line) else plain_number(value, "+")


def _detectable(line: LeaderboardLine) -> str:
    if line.difference is None:
        return _NONE
    if line.detectable is None:
        return "none"
    return f"{100 * line.detectable:.1f}" if is_share(line) else plain_number(line.detectable)
