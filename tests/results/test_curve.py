"""Curves of accuracy against the thinking budget: merging, labels, the text table and the plot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lm_eval_pruned.errors import PrunedEvalError
from lm_eval_pruned.results.curve import build_curves, draw, format_table
from lm_eval_pruned.results.records.reading import read_records
from tests.results.written_runs import write_run

CURVE = {"tiny_tts_256": [1, 1, 1, 0], "tiny_tts_16": [0, 1, 0, 0]}


def test_a_curve_rises_in_budget(tmp_path):
    write_run(tmp_path, {**CURVE, "other_tts_16": [0, 1]}, method="wanda", sparsity=0.2, achieved=0.1995)
    found, other = build_curves(read_records([tmp_path]).records)
    assert (found.label, found.sparsity, found.benchmark) == ("wanda uniform 0.2", 0.1995, "tiny_tts")
    assert [(point.budget, point.accuracy) for point in found.points] == [(16, 0.25), (256, 0.75)]
    assert other.benchmark == "other_tts"


def test_the_table_has_a_line_a_budget(tmp_path):
    write_run(tmp_path, CURVE, method="wanda", sparsity=0.2)
    lines = format_table(build_curves(read_records([tmp_path]).records)).splitlines()
    assert len(lines) == 3
    assert " ".join(lines[1].split()) == "wanda uniform 0.2 tiny_tts 16 0.250 0.010 to 0.848 12.5 0.50 - 0.25"


def test_seeds_are_one_line_with_their_deviation(tmp_path):
    write_run(tmp_path, {"tiny_tts_16": [0, 0, 0, 0]}, seed=1)
    write_run(tmp_path, {"tiny_tts_16": [0, 1, 0, 1]}, seed=2)
    _, line = format_table(build_curves(read_records([tmp_path]).records)).splitlines()
    assert "0.250 ± 0.250" in line


def test_what_looks_alike_is_told_apart(tmp_path):
    write_run(tmp_path, CURVE, kwargs={"temperature": 1.0})
    write_run(tmp_path, CURVE, kwargs={"temperature": 0.5}, day=2)
    write_run(tmp_path, CURVE, model="other", day=3)
    assert [line.label for line in build_curves(read_records([tmp_path]).records)] == [
        "tiny-reasoner · dense · temperature=1", "tiny-reasoner · dense · temperature=0.5", "other · dense",
    ]  # fmt: skip


def test_names_are_drawn_as_they_are(tmp_path):
    # The first is invalid as mathematics, and legends leave out labels that begin with an underscore.
    for model in (r"$\no$", "_model"):
        write_run(tmp_path / model.strip("$\\"), CURVE, model=model)
    drawn = draw(build_curves(read_records([tmp_path]).records))
    drawn.draw_without_rendering()
    texts = [text.get_text() for text in drawn.axes[0].get_legend().get_texts()]
    assert sorted(texts) == [r"$\no$ · dense (0.0% zero)", "_model · dense (0.0% zero)"]


def test_the_module_draws_a_picture_and_names_what_it_skips(tmp_path):
    write_run(tmp_path, CURVE)
    write_run(tmp_path, CURVE, method="wanda", sparsity=0.2, seed=8)
    (tmp_path / "results_torn.json").write_text("{")
    command = [sys.executable, "-m", "lm_eval_pruned.results.curve", tmp_path, "--png", tmp_path / "curve.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 5
    assert "results_torn.json is not a results file" in done.stderr
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_runs_without_a_curve_are_refused():
    with pytest.raises(PrunedEvalError, match="no task under a thinking budget"):
        draw([])
