"""Sweeps that are stopped early: which cells, by which rule, and a real one that is finished afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lm_eval_pruned import cli
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.paths import configs_folder
from lm_eval_pruned.reasoning.response_store import FILE, read_store
from lm_eval_pruned.results.statistics.early import StoppingRule
from lm_eval_pruned.sweeps.early import can_stop, dense_twin, stopping_rule, task_curves
from lm_eval_pruned.sweeps.grid import read_sweep
from lm_eval_pruned.sweeps.running import is_done
from tests.sweeps.small_sweeps import finish, start

DENSE, PRUNED = {"methods": "none"}, {"methods": "magnitude", "sparsities": [0.5, 0.7]}


def cells(folder: Path, grids: list[dict], **defaults: object):
    path = folder / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({"defaults": {"models": "tiny-reasoner", "tasks": "tiny_tts", **defaults}, "grids": grids})
    )
    return read_sweep(path).cells


def test_levels_are_split_over_the_lines_of_the_leaderboard_and_the_curves(tmp_path):
    found = cells(tmp_path, [DENSE, PRUNED])
    # Five budgets and the area, twice.
    assert stopping_rule(found, 0.1) == StoppingRule(equivalence=0.1, lines=12, curves=2)
    single = cells(tmp_path, [DENSE, PRUNED], tasks=["tiny_tts_16", "tiny_tts_64"])
    assert stopping_rule(single, 0.1) == StoppingRule(equivalence=0.1, lines=4, curves=4)


def test_benchmarks_of_a_group_are_curves_of_their_own():
    names = ["aime24_tts_1024", "amc23_tts_512", "aime24_tts_512"]
    assert task_curves(names) == {"aime24_tts": ["aime24_tts_512", "aime24_tts_1024"], "amc23_tts": ["amc23_tts_512"]}


def test_the_dense_twin_is_asked_alike_seed_and_all(tmp_path):
    sampled = {"seeds": [1, 2], "gen_kwargs": {"temperature": 1.0}}
    found = cells(tmp_path, [DENSE, PRUNED], **sampled)
    assert [dense_twin(cell, found).seed for cell in found] == [1, 2, 1, 2, 1, 2]
    with pytest.raises(
        ArgumentError, match=r"no dense cell that is asked as 'tiny-reasoner, magnitude 0.5, .* seed 2'"
    ):
        dense_twin(found[3], [found[0]])
    twin = cells(tmp_path, [DENSE, {**PRUNED, "model_args": {"calib_samples": 8}}])
    assert dense_twin(twin[1], twin) == twin[0]


def test_a_cell_with_masks_is_pruned_and_nobodys_twin(tmp_path):
    dense, pruned, _ = cells(tmp_path, [DENSE, PRUNED])
    masked = replace(dense, model_args={**dense.model_args, "masks": "sparse.safetensors"})
    assert masked.label == "tiny-reasoner, masks sparse.safetensors, tiny_tts"
    assert can_stop(masked)
    assert [dense_twin(cell, [masked, dense]) for cell in (masked, pruned)] == [dense, dense]


@pytest.mark.parametrize(
    ("changed", "can"),
    [
        ({}, True),
        ({"model_args": {"pretrained": "tiny-reasoner", "method": "wanda", "responses": "off"}}, False),
        ({"num_fewshot": 2}, False),
        ({"task": "gsm8k"}, False),
        ({"model_args": {"pretrained": "tiny-reasoner", "method": "none"}}, False),
    ],
)
def test_only_pruned_cells_whose_rounds_add_up_to_a_whole_run_are_stopped(tmp_path, changed, can):
    _, pruned, _ = cells(tmp_path, [DENSE, PRUNED])
    assert can_stop(replace(pruned, **changed)) is can


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop", "erly"], "unknown --stop 'erly': did you mean 'early'?"),
        (["--equivalence", "0.1"], "--equivalence 0.1 says when to stop: give --stop early too"),
        (["--stop", "early", "--equivalence", "5"], "--equivalence 5.0: give 0 < margin < 1"),
        (["--stop", "early", "--equivalence", "nan"], "--equivalence nan: give 0 < margin < 1"),
    ],
)
def test_a_mistake_is_one_line_and_2(tmp_path, capsys, arguments, message):
    assert cli.main(["sweep", "demo", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_dense_cell_nothing_runs(tmp_path, capsys):
    cells(tmp_path, [PRUNED])
    arguments = ["sweep", str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "out"), "--stop", "early"]
    assert cli.main(arguments) == 2
    assert "no dense cell that is asked as 'tiny-reasoner, magnitude 0.5, tiny_tts'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((configs_folder() / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_ship_can_be_stopped(path, capsys):
    assert cli.main(["sweep", str(path), "--dry-run", "--stop", "early"]) == 0
    assert "cells may be stopped early" in capsys.readouterr().out


def test_a_stopped_cell_is_done_under_its_rule_alone(tmp_path):
    _, cell, _ = cells(tmp_path, [DENSE, PRUNED])
    rule = StoppingRule(lines=12, curves=2)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/results_1.json").write_text("{}")
    done = {"cell": cell.id, "files": {"results_1.json": 2}, "stopped": {"rule": {}}}

    def under(stopped: object) -> list[bool]:
        (tmp_path / "done.json").write_text(json.dumps({**done, "stopped": stopped}))
        other = StoppingRule(lines=13, curves=2)
        return [is_done(tmp_path, cell, rule=one) for one in (rule, other, None)]

    stored = {"alpha": 0.05, "equivalence": 0.1, "lines": 12, "curves": 2}
    assert under({"rule": stored, "tasks": {}}) == [True, False, False]
    assert under(None) == [True, True, True]
    assert under("damaged") == [False, False, False]


@pytest.mark.slow
def test_a_sweep_stopped_early_and_finished_is_the_one_that_was_never_stopped(tmp_path):
    # All budgets, so that a curve is judged, and a model without its first block, which answers nothing.
    content = {
        "defaults": {"models": "tiny-reasoner", "tasks": "tiny_tts", "batch_size": 64, "limit": 100},
        "grids": [{"methods": "none"}, {"methods": "shortgpt", "blocks": [0]}],
    }
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(content))
    engine = ("--engine", "local")
    code, said = finish(start(config, tmp_path / "out", *engine, "--stop", "early"))
    assert code == 0, said
    assert "tiny-reasoner, shortgpt 0, tiny_tts, stopped after 16 of 100: drop" in said
    table = (tmp_path / "out/leaderboard.md").read_text()
    assert "| stopped at 16 of 100 |" in table
    assert table.count("* | drop |") == 6
    early, asked = texts(tmp_path / "out"), questions(tmp_path / "out")

    # The command without the flag asks the rest.
    code, said = finish(start(config, tmp_path / "out", *engine))
    assert (code, "2 cells, 1 of them done before" in said) == (0, True), said
    assert finish(start(config, tmp_path / "whole", *engine))[0] == 0
    finished, whole = texts(tmp_path / "out"), texts(tmp_path / "whole")
    assert finished == whole
    assert early.items() <= whole.items()
    assert len(whole) - len(early) == 5 * (100 - 16)
    # It asked the first questions in the order of their hashes.
    assert min(asked, key=len) == sorted(max(questions(tmp_path / "whole"), key=len))[:16]
    pages = [(tmp_path / folder / "leaderboard.md").read_text() for folder in ("out", "whole")]
    assert pages[0] == pages[1]
    assert "stopped" not in pages[0]


def questions(output: Path) -> list[list[str]]:
    """Return the sorted hashes of the questions of each samples file."""
    files = output.glob("cells/*/results/samples_*.jsonl")
    return [sorted(json.loads(line)["doc_hash"] for line in path.read_text().splitlines()) for path in files]


def texts(output: Path) -> dict[str, str]:
    """Return every stored text by its model and request."""
    return {
        json.dumps([model, request], sort_keys=True): str(response)
        for path in output.glob(f"cells/*/responses/{FILE}")
        for model, request, response in read_store(path)
    }
