"""The table of results in a model card."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine
from lm_eval_pruned.results.leaderboard.scales import is_share, plain_number

_MARKUP = str.maketrans({"|": "\\|", "<": "&lt;"})
_HEAD = ("task", "budget", "metric", "value", "95 %", "vs dense", "questions", "seeds", "settings")
_LEGEND = (
    "Values are means over questions and seeds, with their 95 % intervals; `vs dense` is the difference to the dense "
    "model on the same questions. Budgets are thinking tokens."
)


def results_table(lines: Sequence[LeaderboardLine]) -> str:
    """Return lines of one run as a Markdown table; a column that is empty in all of them is left out."""
    rows = [_cells(line) for line in lines]
    shown = [place for place in range(len(_HEAD)) if any(row[place] != "-" for row in rows)]
    table = [_HEAD, ("---",) * len(_HEAD), *rows]
    reasons = dict.fromkeys(line.why_not_compared for line in lines if line.why_not_compared)
    parts = [
        _LEGEND,
        "\n".join(f"| {' | '.join(row[place] for place in shown)} |" for row in table),
        *([f"Not compared: {'; '.join(map(_plain, reasons))}."] if reasons else []),
    ]
    return "\n\n".join(parts)


def _cells(line: LeaderboardLine) -> tuple[str, ...]:
    cells = (
        line.task,
        "-" if line.budget is None else str(line.budget),
        line.metric if line.filter == "none" else f"{line.metric}, {line.filter}",
        f"stopped at {line.stopped_at} of {line.stopped_of}" if line.acc is None else _number(line, line.acc),
        _range(line, line.low, line.high),
        _difference(line),
        "-" if line.questions is None else str(line.questions) + (f" (limit {line.limit})" if line.limit else ""),
        "-" if line.seeds is None else str(line.seeds),
        line.settings or "-",
    )
    return tuple(map(_plain, cells))


def _plain(text: str) -> str:
    """Return text of other people's files on one line, without what a table or HTML would be made of."""
    return " ".join(text.translate(_MARKUP).split())


def _number(line: LeaderboardLine, value: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if is_share(line) else plain_number(value, sign)


def _range(line: LeaderboardLine, low: float | None, high: float | None, sign: str = "") -> str:
    return "-" if low is None or high is None else f"{_number(line, low, sign)} to {_number(line, high, sign)}"


def _difference(line: LeaderboardLine) -> str:
    if line.difference is None:
        return "-"
    interval = _range(line, line.difference_low, line.difference_high, "+")
    return _number(line, line.difference, "+") + ("" if interval == "-" else f" ({interval})")
