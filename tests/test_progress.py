"""Progress without a terminal: whole lines, seldom, with what is done, how fast, and how long it will take."""

from __future__ import annotations

import time

import pytest
from tqdm import tqdm

from lm_eval_pruned.progress import ProgressLines, duration, progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_comes_every_five_percent_but_not_more_often_than_every_few_seconds(clock, capsys):
    with progress_bar(1000, desc="wanda", unit="window") as bar:
        for _ in range(1000):
            clock[0] += 0.5
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    # Five percent are 50 windows, 25 seconds.
    assert len(lines) == 20
    assert lines[0] == "wanda: 5 % (50 of 1.00k windows), 25 s, 2 a second, about 7 min 55 s left"
    assert lines[-1] == "wanda: 100 % (1.00k of 1.00k windows), 8 min 20 s, 2 a second"


def test_a_line_comes_every_minute_however_slow_the_work_is(clock, capsys):
    bar = progress_bar(1e6, desc="thinking", unit="token")
    for _ in range(180):
        clock[0] += 1
        bar.update(1)
    assert [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()] == ["thinking: 0 %"] * 3


def test_a_wait_without_any_progress_is_a_line_too(clock, capsys):
    bar = progress_bar(100, desc="thinking", unit="token")
    clock[0] += 61
    bar.update(0)
    assert capsys.readouterr().err == "thinking: 0 % (0 of 100 tokens), 1 min 01 s\n"


def test_a_short_phase_is_silent(clock, capsys):
    with progress_bar(3, desc="magnitude", unit="block") as bar:
        for _ in range(3):
            clock[0] += 1
            bar.update()
    assert capsys.readouterr() == ("", "")


def test_a_total_that_shrinks_and_a_postfix_are_followed(clock, capsys):
    bar = progress_bar(10_000, desc="thinking", unit="token")
    assert isinstance(bar, ProgressLines)
    bar.total = 200
    bar.set_postfix_str("block 2/5")
    clock[0] += 10
    bar.update(100)
    assert (
        capsys.readouterr().err == "thinking: 50 % (100 of 200 tokens), 10 s, 10 a second, about 10 s left, block 2/5\n"
    )


def test_only_the_first_process_shows_progress_and_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    bar = progress_bar(5, desc="wanda", unit="window")
    assert isinstance(bar, tqdm)
    assert bar.disable
    monkeypatch.delenv("RANK")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_bar(5, desc="wanda", unit="window") as bar:
        assert isinstance(bar, tqdm)
        assert not bar.disable


def test_durations_are_rounded_once():
    assert [duration(seconds) for seconds in (0.4, 59.6, 3599.7, 86399.8)] == [
        "0 s",
        "1 min 00 s",
        "1 h 00 min",
        "1 d 0 h",
    ]
