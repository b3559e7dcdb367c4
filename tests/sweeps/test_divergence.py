"""Divergence of the cells of a sweep: which dense cell each is compared along, its command line, and failures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from lm_eval_pruned.commands import sweep as command
from lm_eval_pruned.errors import PrunedEvalError
from lm_eval_pruned.sweeps.divergence import dense_cell, diverge_arguments, is_diverging
from lm_eval_pruned.sweeps.estimate import estimate
from lm_eval_pruned.sweeps.executors import run_local
from lm_eval_pruned.sweeps.grid import read_sweep
from lm_eval_pruned.sweeps.running import DONE_FILE, RESULTS, CellJob
from tests.dense_samples import write_samples

DEFAULTS = {"models": "tiny-reasoner", "tasks": "tiny_tts_16"}
PRUNED = {"methods": "magnitude", "sparsities": [0.5, 0.7]}


def cells(folder: Path, **content: object):
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"defaults": DEFAULTS, **content}))
    return read_sweep(path).cells


def test_one_line_asks_for_all_and_changes_no_id(tmp_path):
    plain = cells(tmp_path, grids=[{"methods": "none"}, PRUNED])
    everywhere = cells(tmp_path, grids=[{"methods": "none"}, PRUNED], diverge=True)
    one_grid = cells(tmp_path, grids=[{"methods": "none"}, {**PRUNED, "diverge": True}])
    assert [is_diverging(cell) for cell in plain] == [False] * 3
    assert [is_diverging(cell) for cell in everywhere] == [is_diverging(cell) for cell in one_grid]
    assert [is_diverging(cell) for cell in everywhere] == [False, True, True]
    assert [cell.id for cell in plain] == [cell.id for cell in everywhere]
    assert estimate(everywhere[1]).seconds > estimate(plain[1]).seconds
    assert estimate(everywhere[0]) == estimate(plain[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"diverge": True, "grids": [PRUNED]}, "add a grid with methods: none"),
        ({"diverge": True, "grids": [PRUNED, {"methods": "none", "tasks": "tiny_tts_32"}]}, "no dense cell of this"),
        ({"diverge": "yes please", "grids": [PRUNED]}, "'yes please' is not bool"),
        ({"grids": [{**PRUNED, "diverge": 1}]}, "1 is not bool"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(tmp_path, content, message):
    with pytest.raises(PrunedEvalError, match=message):
        cells(tmp_path, **content)


def test_the_dense_cell_is_the_one_asked_alike(tmp_path):
    found = cells(
        tmp_path,
        defaults={**DEFAULTS, "seeds": [1, 2], "gen_kwargs": {"temperature": 1.0}},
        grids=[{"methods": "none"}, {"methods": "none", "limit": 8}, {"methods": "wanda", "sparsities": 0.5}],
        variants={"own": {}, "s1": {"model_args": {"thinking": "s1"}}},
    )
    for cell in found:
        if cell.model_args["method"] == "wanda":
            dense = dense_cell(cell, found)
            assert (dense.seed, dense.variant, dense.limit) == (cell.seed, cell.variant, None)


def test_the_command_line_has_what_decides_the_divergence(tmp_path):
    model_args = {"calib_samples": 4, "trust_remote_code": True, "share_traces": False, "dtype": "float32"}
    grid = {"methods": "magnitude", "sparsities": 0.5, "model_args": model_args, "gpus": 0.5}
    (cell,) = cells(tmp_path, grids=[grid])
    given = diverge_arguments(cell, traces=Path("dense"), output=Path("out"))
    assert sorted(given) == sorted(
        ["--pretrained=tiny-reasoner", "--method=magnitude", "--sparsity=0.5", "--calib_samples=4", "--dtype=float32",
         "--trust_remote_code", "--device=cuda", "--output=out", "--traces", "dense"]
    )  # fmt: skip


def jobs_of(tmp_path: Path) -> list[CellJob]:
    """Jobs of a sweep whose cells are done, the dense one with responses."""
    found = []
    for cell in cells(tmp_path, grids=[{"methods": "none"}, PRUNED], diverge=True):
        folder = tmp_path / "cells" / cell.id
        (folder / RESULTS).mkdir(parents=True)
        file = write_samples(folder / RESULTS)
        done = {"cell": cell.id, "files": {file.name: file.stat().st_size}}
        (folder / DONE_FILE).write_text(json.dumps(done))
        found.append(CellJob(cell=cell, folder=folder, start="s", memory=0, environment={}))
    return found


def play(arguments) -> None:
    """Stub of `diverge`, which fails at 70 %."""
    output = next(Path(word.removeprefix("--output=")) for word in arguments if word.startswith("--output="))
    with (output / "tries").open("a") as tries:
        tries.write("x")
    if "--sparsity=0.7" in arguments:
        raise ValueError("logits are not finite")
    (output / "divergence.json").write_text('{"kl": 0.1}')


def test_a_failure_costs_no_other_and_what_is_done_stays_done(tmp_path, monkeypatch):
    jobs = command.divergence_jobs(jobs_of(tmp_path))
    assert [job.label for job in jobs] == [
        f"divergence of tiny-reasoner, magnitude {share}, tiny_tts_16" for share in (0.5, 0.7)
    ]
    outcomes = [outcome for outcome in run_local(jobs, play) if outcome]
    assert [outcome.error for outcome in outcomes] == ["", "ValueError: logits are not finite"]
    assert [job.is_done for job in jobs] == [True, False]
    assert "Traceback" in jobs[1].log.read_text()
    assert [outcome.error for outcome in run_local(jobs, play) if outcome] == [outcome.error for outcome in outcomes]
    assert [(job.folder / "tries").read_text() for job in jobs] == ["x", "xx"]
    # A file that was cut short counts as none.
    os.truncate(jobs[0].folder / "divergence.json", 4)
    assert not jobs[0].is_done


def test_a_divergence_waits_for_its_dense_cell(tmp_path):
    jobs = jobs_of(tmp_path)
    (jobs[0].folder / DONE_FILE).unlink()
    assert command.divergence_jobs(jobs) == []


def test_the_command_line_is_that_of_diverge(tmp_path):
    job = command.divergence_jobs(jobs_of(tmp_path))[0]
    command.diverge(diverge_arguments(job.cell, traces=job.traces, output=job.folder))
    assert job.is_done
    content = json.loads((job.folder / "divergence.json").read_text())
    assert (content["config"]["method"], content["config"]["sparsity"], content["traces"]) == ("magnitude", 0.5, 2)
