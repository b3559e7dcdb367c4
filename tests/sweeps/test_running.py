"""Running of cells in real processes, with a stub in place of the harness."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lm_eval_pruned.sweeps import progress_display
from lm_eval_pruned.sweeps.cell import Cell, Resources
from lm_eval_pruned.sweeps.executors import run_local
from lm_eval_pruned.sweeps.progress_display import ProgressDisplay
from lm_eval_pruned.sweeps.running import RETRIES, RUNNING_FILE, CellJob, CellOutcome, is_done, running_seconds


def play(arguments):
    """Stub of the harness: behave as the task's name says."""
    task = arguments[arguments.index("--tasks") + 1]
    target = Path(arguments[arguments.index("--output_path") + 1])
    with target.parents[1].joinpath("tries").open("a") as tries:
        tries.write("x")
    if task == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "fail":
        raise ValueError("no such thing")
    target.with_name("run_2026.json").write_text("{}")
    target.with_name("samples_t_2026.jsonl").write_text("{}\n")


def job(folder, task):
    cell = Cell(
        backend="pruned-hf",
        model_args={"pretrained": "tiny-reasoner"},
        task=task,
        gen_kwargs={},
        metadata={},
        resources=Resources(),
    )
    return CellJob(cell=cell, folder=folder / task, start="s", memory=0, environment={})


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    jobs = [job(folder, task) for task in ("crash", "fail", "good", "good")]
    outcomes = [outcome for outcome in run_local(jobs, play) if outcome]
    return folder, jobs, outcomes


def test_a_cell_that_crashes_or_fails_costs_no_other(ended):
    folder, jobs, outcomes = ended
    crash, fail, good, again = (outcome.error for outcome in outcomes)
    assert crash == f"ended by signal 9, {1 + RETRIES} times"
    assert fail == "ValueError: no such thing"
    assert (good, again) == ("", "")
    tries = {name: (folder / name / "tries").read_text() for name in ("crash", "fail", "good")}
    assert tries == {"crash": "x" * (1 + RETRIES), "fail": "x", "good": "x"}
    assert [is_done(one.folder, one.cell) for one in jobs] == [False, False, True, True]


def test_results_have_their_names_when_they_are_whole(ended):
    folder, _, _ = ended
    assert {path.name for path in folder.rglob("*.json*")} >= {"results_2026.json", "samples_t_2026.jsonl"}
    assert not list(folder.rglob("partial/run*"))
    assert not list((folder / "crash").rglob("results_*"))


def test_done_is_done_only_if_all_of_it_is_there(ended):
    folder, jobs, _ = ended
    good = jobs[2]
    samples = folder / "good/results/samples_t_2026.jsonl"
    samples.write_text("")
    assert not is_done(good.folder, good.cell)
    samples.write_text("{}\n")
    assert is_done(good.folder, good.cell)
    assert not is_done(good.folder, jobs[0].cell)
    done = good.folder / "done.json"
    for damage in ("", "[]", '{"files": {}}', json.dumps({"cell": good.cell.id, "files": {}})):
        kept = done.read_text()
        done.write_text(damage)
        assert not is_done(good.folder, good.cell)
        done.write_text(kept)


def test_names_on_the_board_are_no_markup(tmp_path, monkeypatch, capsys):
    # On a terminal, with a closing tag of rich's markup in the label.
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    one = job(tmp_path, "hot [temp] [/x]")
    with ProgressDisplay([one], 0) as board:
        board.show(CellOutcome(one.cell.id, 1.0, "broken"))
    assert "hot [temp] [/x]" in capsys.readouterr().out


def running(tmp_path, task, *, since):
    """A job that a process of this sweep has been running for so many seconds."""
    one = job(tmp_path, task)
    one.folder.mkdir()
    file = one.folder / RUNNING_FILE
    file.write_text(one.start)
    os.utime(file, (time.time() - since,) * 2)
    return one


def test_running_cells_show_how_long_they_have_been_running(tmp_path):
    assert running_seconds(job(tmp_path, "waiting")) is None
    one = running(tmp_path, "here", since=90)
    assert 90 <= running_seconds(one) < 95
    (one.folder / RUNNING_FILE).write_text("of another start")
    assert running_seconds(one) is None


def test_the_first_table_names_what_waits_and_later_ones_how_long_cells_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress_display, "REFRESH_SECONDS", 0.0)
    jobs = [running(tmp_path, "one", since=200), job(tmp_path, "two")]
    with ProgressDisplay(jobs, 0) as display:
        first = capsys.readouterr().out
        display.show(None)
    assert "waiting" in first
    assert "one" in first
    last = capsys.readouterr().out
    assert "running" in last
    assert "3 min 2" in last


def test_without_a_terminal_a_line_a_minute_names_the_running_cells(tmp_path, monkeypatch, capsys):
    jobs = [running(tmp_path, f"t{number}", since=75) for number in range(6)] + [job(tmp_path, "last")]
    with ProgressDisplay(jobs, 2) as display:
        display.show(None)
        assert capsys.readouterr().out == ""
        monkeypatch.setattr(progress_display, "LINE_SECONDS", 0.0)
        display.show(CellOutcome(jobs[0].cell.id, 80.0, ""))
        display.show(None)
    done, line = capsys.readouterr().out.splitlines()
    assert done == "[1/7] done in 80 s: tiny-reasoner, dense, t0"
    assert "3 done (2 before), 0 failed, 5 running, 1 waiting" in line
    assert "tiny-reasoner, dense, t1 (1 min 15 s)" in line
    assert line.endswith("1 more")


def test_the_time_left_counts_what_running_cells_have_had_and_no_failures(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    jobs = [job(tmp_path, f"t{number}") for number in range(6)]
    display = ProgressDisplay(jobs, 0)
    now[0] = 1.0
    display.show(CellOutcome(jobs[0].cell.id, 1.0, "broken"))
    assert "left" not in display.summary()
    now[0] = 100.0
    display.show(CellOutcome(jobs[1].cell.id, 100.0, ""))
    display.show(CellOutcome(jobs[2].cell.id, 100.0, ""))
    # Two side by side: three more cells of 100 s each.
    assert "about 2 min 30 s left" in display.summary()
