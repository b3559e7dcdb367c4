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
from lm_eval_pruned.results.leaderboard.entries import ALPHA, LeaderboardLine

_NONE = "-"
# Columns with text from other people's files.
_NAMES = ("model", "run", "settings", "metric", "source", "note")
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", **{character: f"\\{character}" for character in "\\|[]`*~$"}})
# An underscore inside a word is not markup, and names are full of them.
_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# A spreadsheet evaluates text that begins with one of these; numbers are written as numbers, whatever their sign.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LEGEND = (
    "acc: mean, with its 95 % interval over questions and ± the deviation over seeds. vs dense: points of difference "
    f"to the unpruned run on the same questions, * where p < {ALPHA} after Holm's correction over this table. "
    "detectable: the least drop, in points, that would have been found 4 times in 5. thinking: mean tokens. cut, "
    "empty, looping: shares of thinking cut by the budget, of responses without an answer, of degenerate repetition. "
    "zero: share of the prunable weights that is zero."
)


def markdown(lines: Sequence[LeaderboardLine]) -> str:
    """Return one table per benchmark, after a legend."""
    parts = [f"# Leaderboard\n\n{_LEGEND}\n"]
    for benchmark in dict.fromkeys(line.benchmark for line in lines):
        rows = [_cells(line) for line in lines if line.benchmark == benchmark]
        # A column that is empty in every line is left out.
        names = [name for name in rows[0] if any(row[name] != _NONE for row in rows)]
        table = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
        parts.append(f"## {_plain(benchmark)}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table))
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


def _cells(line: LeaderboardLine) -> dict[str, str]:
    metric = line.metric if line.filter == "none" else f"{line.metric}, {line.filter}"
    cells = {
        "budget": "area" if line.metric.startswith(AREA) else _number(line.budget, "d"),
        "model": line.model,
        "run": line.run,
        "settings": line.settings or _NONE,
        "metric": _NONE if metric in ("acc", AREA + "acc") else metric,
        "acc": f"{line.acc:.4f}" + (f" ± {line.std:.4f}" if line.std is not None else ""),
        "95 %": _NONE if line.low is None or line.high is None else f"{line.low:.3f} to {line.high:.3f}",
        "vs dense": _difference(line),
        "p": _number(line.p_holm, ".2g"),
        "detectable": _detectable(line),
        "thinking": _number(line.thinking_tokens, ".0f"),
        "cut": _number(line.budget_hit, ".2f"),
        "empty": _number(line.no_answer, ".2f"),
        "looping": _number(line.looping, ".2f"),
        "zero": _number(line.sparsity, ".4f"),
        "seeds": _number(line.seeds, "d"),
        "questions": _number(line.questions, "d"),
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


def _difference(line: LeaderboardLine) -> str:
    if line.difference is None:
        return _NONE
    mark = "*" if line.p_holm is not None and line.p_holm < ALPHA else ""
    change = f"{100 * line.difference:+.1f}{mark}"
    if line.difference_low is None or line.difference_high is None:
        return change
    return f"{change} ({100 * line.difference_low:+.1f} to {100 * line.difference_high:+.1f})"


def _detectable(line: LeaderboardLine) -> str:
    if line.difference is None:
        return _NONE
    return "none" if line.detectable is None else f"{100 * line.detectable:.1f}"
