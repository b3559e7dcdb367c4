"""Scales of metrics: shares are shown as fractions and their differences in points, all others in their own unit."""

from __future__ import annotations

import re

from lm_eval_pruned.results.area import AREA
from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine

# Shares of questions, or means of values from 0 to 1. Some tasks give the same names to percentages.
_SHARE = re.compile(
    r"(?:\w+_)?acc(?:_\w+)?|accuracy|exact_match|exact|em|(?:\w+_)?f1|precision|recall|mc[12]|math_verify|"
    r"(?:pass|maj)(?:@|_at_)\w+|pct_\w+"
)


def is_share(line: LeaderboardLine) -> bool:
    """Whether the metric of a line is a share: known by its name, and between 0 and 1 where it is known."""
    return is_share_metric(line.metric, line.acc)


def is_share_metric(metric: str, value: float | None) -> bool:
    """Whether a metric with this value, or None where it is not known, is a share.

    Example:
        >>> is_share_metric("acc", 0.5), is_share_metric("acc", 50.0), is_share_metric("perplexity", 0.5)
        (True, False, False)
    """
    return _SHARE.fullmatch(metric.removeprefix(AREA)) is not None and (value is None or 0 <= value <= 1)


def plain_number(value: float, sign: str = "") -> str:
    """Format a metric of any size with four to six digits; `sign` is "+" to show that of positive numbers too.

    Example:
        >>> plain_number(12.34567), plain_number(48_213.7), plain_number(-3.2e9), plain_number(0.25, "+")
        ('12.346', '48213.7', '-3.200e+09', '+0.2500')
    """
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        layout = ".3e"
    else:
        layout = ".1f" if size >= 1000 else ".2f" if size >= 100 else ".3f" if size >= 1 else ".4f"
    return format(value, sign + layout)


def direction_words(line: LeaderboardLine) -> str:
    """Say where a better value of a line's metric lies, if it is not upwards; "" where it is.

    The direction of a published figure is that of the lines it is shown with.
    """
    return {True: "", False: "↓", None: "direction unknown"}[line.higher_is_better]
