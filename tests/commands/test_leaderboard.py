"""The command `lm-eval-pruned leaderboard`."""

from __future__ import annotations

import pytest

from lm_eval_pruned import cli
from tests.results.written_runs import write_run


def leaderboard(folder, *arguments):
    return cli.main(["leaderboard", str(folder), *map(str, arguments)])


@pytest.mark.parametrize("ending", [".html", ".md", ".csv", ".json"])
def test_writes_what_the_ending_says(tmp_path, capsys, ending):
    write_run(tmp_path / "runs", {"t_tts_16": [0, 1]})
    target = tmp_path / f"table{ending}"
    assert leaderboard(tmp_path / "runs", "--output", target) == 0
    assert {".html": "<!DOCTYPE html>", ".md": "# Leaderboard", ".csv": "model,run,", ".json": "{"}[
        ending
    ] in target.read_text()[:20]
    assert capsys.readouterr() == (f"{target}: 1 lines from 1 runs\n", "")


@pytest.mark.parametrize("name", ["page.htm", "table.txt", "table"])
def test_other_endings_are_refused_before_anything_is_read(tmp_path, capsys, name):
    assert leaderboard(tmp_path / "nowhere", "--output", tmp_path / name) == 2
    assert (
        f"{name} is of no known format: let it end in .html, .md, .csv, .json, .eee.json, .eee"
        in capsys.readouterr().err
    )


def test_skips_and_counts_what_it_cannot_read(tmp_path, capsys):
    write_run(tmp_path, {"t_tts_16": [0, 1], "t_tts_32": [0, 1]})
    next(tmp_path.glob("samples_t_tts_16_*")).write_text("{")
    for name, content in (("torn", '{"results"'), ("foreign", '{"a": 1}'), ("empty", "")):
        (tmp_path / f"results_{name}.json").write_text(content)
    assert leaderboard(tmp_path, "--output", tmp_path / "table.csv") == 0
    err = capsys.readouterr().err
    for name in ("results_torn.json", "results_foreign.json", "results_empty.json", "samples_t_tts_16_"):
        assert name in err
    assert err.splitlines()[-1] == "warning: 4 skipped"
    assert (tmp_path / "table.csv").read_text().count("\n") == 3


def test_nothing_to_read_is_2(tmp_path, capsys):
    assert leaderboard(tmp_path, "--output", tmp_path / "table.md") == 2
    assert "holds no results file of lm_eval" in capsys.readouterr().err


def test_a_reference_is_overlaid(tmp_path, capsys):
    write_run(tmp_path, {"t_tts_16": [0, 1]})
    (tmp_path / "r.csv").write_text("model,method,budget,task,acc\nm,none,16,t,0.25\n")
    target = tmp_path / "table.md"
    assert leaderboard(tmp_path, "--output", target, "--reference", tmp_path / "r.csv") == 0
    assert "0.2500" in target.read_text()
    assert leaderboard(tmp_path, "--output", target, "--reference", tmp_path / "no.csv") == 2


def test_an_output_that_cannot_be_written_is_2(tmp_path, capsys):
    write_run(tmp_path, {"t_tts_16": [0, 1]})
    (tmp_path / "table.md").mkdir()
    assert leaderboard(tmp_path, "--output", tmp_path / "table.md") == 2
    assert "cannot be written" in capsys.readouterr().err
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
