"""Divergences beside accuracy: which run each belongs to, how it is shown, and maps on the page."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.results.divergence.summary import MEANING
from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine, build_entries
from lm_eval_pruned.results.leaderboard.tables import as_csv, markdown
from lm_eval_pruned.results.records.divergences import read_maps, with_divergences
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.statistics.intervals import proportion_interval
from tests.results.written_runs import write_divergence, write_run

TASKS = {"t_tts_16": [1] * 20, "t_tts_32": [1] * 20}


def lines(*places: Path) -> list[LeaderboardLine]:
    records, problems = with_divergences(read_records(places).records, places)
    assert not problems
    return [entry.line for entry in build_entries(records)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A dense and a pruned run in folders as the harness makes them, with a divergence above that of the pruned one."""
    dense = write_run(tmp_path / "runs" / "dense" / "model", TASKS)
    write_divergence(dense, tmp_path / "unused", fingerprint="dense")
    pruned = write_run(tmp_path / "runs" / "pruned" / "model", TASKS, method="wanda", sparsity=0.2, seed=8)
    write_divergence(pruned, tmp_path / "runs" / "pruned")
    return tmp_path / "runs"


def test_every_line_of_a_pruned_run_has_it_and_no_dense_one(runs):
    found = lines(runs)
    assert [(line.kl, line.survive) for line in found if line.run == "dense"] == [(None, None)] * 3
    for line in (line for line in found if line.run != "dense"):
        assert (line.kl, line.kl_low, line.kl_high, line.survive) == (0.1, 0.05, 0.2, 0.5)
        assert (line.survive_low, line.survive_high) == tuple(proportion_interval(0.5, 4))
        assert line.divergence == MEANING


def test_it_is_found_outside_the_folders_that_are_given(runs):
    assert [line.kl for line in lines(runs / "dense", runs / "pruned" / "model") if line.run != "dense"] == [0.1] * 3


def test_the_fingerprint_decides_and_then_the_nearest_folder(runs, tmp_path):
    pruned = next((runs / "pruned").rglob("results_*"))
    far = write_divergence(pruned, runs / "elsewhere", kl=0.3)
    os.utime(far, (4e9, 4e9))
    assert {line.kl for line in lines(runs)} == {None, 0.1}
    (runs / "pruned" / "divergence.json").unlink()
    assert {line.kl for line in lines(runs)} == {None, 0.3}
    content = json.loads(far.read_text()) | {"fingerprint": "of another model"}
    far.write_text(json.dumps(content))
    assert {line.kl for line in lines(runs)} == {None}


def test_tables_show_it_with_its_intervals_and_what_it_does_not_say(runs):
    shown = markdown(lines(runs))
    assert MEANING in shown
    assert "| 0.1 (0.05 to 0.2) | 0.500 (" in shown
    rows = list(csv.DictReader(io.StringIO(as_csv(lines(runs)))))
    assert [(row["kl"], row["divergence"]) for row in rows if row["run"] == "dense"] == [("", "")] * 3
    assert [(row["kl"], row["divergence"]) for row in rows if row["run"] != "dense"] == [("0.1", MEANING)] * 3
    assert MEANING not in markdown(lines(runs / "dense"))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"fingerprint": "f", "questions": []}', '{"kl": NaN}', b"\xff", "[" * 100_000]
)
def test_what_is_something_else_is_named_and_skipped(runs, tmp_path, capsys, content):
    file = runs / "pruned" / "divergence.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["leaderboard", str(runs), "--output", str(tmp_path / "table.md")]) == 0
    assert f"{file} is not what lm-eval-pruned diverge writes" in capsys.readouterr().err
    assert MEANING not in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("kl", [float("nan"), True, "0.1", None])
def test_a_kl_that_is_not_a_number_is_skipped(runs, kl):
    file = runs / "pruned" / "divergence.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"kl": kl}))
    attached = with_divergences(read_records([runs]).records, [runs])
    assert len(attached.problems) == 1
    assert not any(record.divergence for record in attached.records)


def test_maps_are_read_and_others_of_that_name_passed_over(tmp_path):
    cells = [{"block": 0, "part": "mlp", "sparsity": 0.5, "weights": 9, "kl": 0.25, "flips": 0.1}]
    config = {"pretrained": "m", "method": "magnitude"}
    for name, content in (
        ("good", {"config": config, "cells": cells}),
        ("empty", {"config": config, "cells": []}),
        ("other", {"tiles": [1]}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "map.json").write_text(json.dumps(content))
    assert [(one.model, one.method, one.cells) for one in read_maps([tmp_path, tmp_path / "good"])] == [
        ("m", "magnitude", ((0, "mlp", 0.5, 0.25),))
    ]
