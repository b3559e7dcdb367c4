"""A sweep that is killed, interrupted or run twice at once gives the same results as an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from filelock import FileLock

from tests.sweeps.small_sweeps import MARK, finish, left_behind, responses, start, wait_for_responses

QUESTIONS = 48
BUDGETS = 5
CELLS = 3
ALL = QUESTIONS * BUDGETS * CELLS
PAGES = ("leaderboard.html", "leaderboard.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cells that store their responses a few at a time."""
    content = {
        "defaults": {"models": "tiny-reasoner", "tasks": "tiny_tts", "limit": QUESTIONS, "batch_size": 8},
        "grids": [
            {"methods": "none"},
            {"methods": "magnitude", "sparsities": 0.5},
            {"methods": "shortgpt", "num_blocks": 1},
        ],
    }
    path = tmp_path_factory.mktemp("config") / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, bytes]:
    """The leaderboards of an undisturbed sweep, which the first of pytest's workers runs for all."""
    alone = worker_id == "master"
    folder = tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent
    output = folder / "undisturbed"
    with FileLock(folder / "undisturbed.lock"):
        if not output.exists():
            code, said = finish(start(config, output))
            assert code == 0, said
    assert responses(output) == ALL
    return pages(output)


def pages(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in PAGES}


def done(output: Path) -> dict[Path, int]:
    """Return the cells that are done, and when they were."""
    return {path: path.stat().st_mtime_ns for path in output.glob("cells/*/done.json")}


def test_killed_three_times_the_pages_are_the_same_to_the_byte(config, whole, tmp_path):
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    generator = random.Random(seed)
    # The sweep is killed after this many more responses and then this many seconds.
    moments = [(generator.randrange(1, ALL // 8), generator.uniform(0, 0.3)) for _ in range(3)]
    print(f"KILL_SEED={seed} repeats these moments: {moments}")
    for further, seconds in moments:
        before, kept = responses(tmp_path), done(tmp_path)
        process = start(config, tmp_path)
        wait_for_responses(process, tmp_path, before + further)
        time.sleep(seconds)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kept.items() <= done(tmp_path).items()
        print(f"killed with {responses(tmp_path)} of {ALL} responses and {len(done(tmp_path))} cells done")
    assert len(done(tmp_path)) < CELLS
    kept = done(tmp_path)
    code, said = finish(start(config, tmp_path))
    assert (code, "0 failed" in said) == (0, True), said
    assert kept.items() <= done(tmp_path).items()
    assert responses(tmp_path) == ALL
    assert pages(tmp_path) == whole


@pytest.mark.parametrize("engine", ["ray", "local"])
def test_ctrl_c_ends_all_processes_in_one_line_and_loses_nothing(config, whole, tmp_path, engine):
    mark = uuid4().hex
    process = start(config, tmp_path, "--engine", engine, **{MARK: mark})
    wait_for_responses(process, tmp_path, ALL // 2)
    stored_before, kept = responses(tmp_path), done(tmp_path)
    # To the whole process group, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    code, said = finish(process)
    assert code == 130, said
    # On a busy machine a minute passes, and progress is printed before.
    lines = [line for line in said.splitlines()[1:] if not line.startswith("[") and "; running: " not in line]
    assert lines == [
        f"lm-eval-pruned: interrupted: {len(done(tmp_path))} of 3 cells are done; the same command goes on"
    ]
    assert left_behind(mark) == []
    assert stored_before <= responses(tmp_path) < ALL
    assert kept.items() <= done(tmp_path).items()

    kept = done(tmp_path)
    code, said = finish(start(config, tmp_path, "--engine", engine))
    assert (code, f"3 done ({len(kept)} before), 0 failed" in said or not kept) == (0, True), said
    assert kept.items() <= done(tmp_path).items()
    assert pages(tmp_path) == whole


def test_two_sweeps_over_one_folder(config, whole, tmp_path):
    both = [start(config, tmp_path, "--engine", engine) for engine in ("ray", "local")]
    for process in both:
        code, said = finish(process)
        assert (code, "0 failed" in said) == (0, True), said
    assert len(list(tmp_path.glob("cells/*/results/results_*.json"))) == CELLS
    assert len(list(tmp_path.glob("cells/*/results/samples_*.jsonl"))) == CELLS * BUDGETS
    assert pages(tmp_path) == whole
