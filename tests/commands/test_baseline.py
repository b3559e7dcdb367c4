"""The command `lm-eval-pruned baseline`."""

from __future__ import annotations

import json

from lm_eval_pruned import cli
from tests.results.written_runs import write_run


def test_freezes_every_question(tmp_path, capsys):
    write_run(tmp_path / "runs", {"t_tts_16": [0, 1, 1]}, method="wanda", sparsity=0.2)
    target = tmp_path / "b.json"
    assert cli.main(["baseline", str(tmp_path / "runs"), "--output", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: 1 measurements of 1 runs\n"
    (entry,) = json.loads(target.read_text())["measurements"]
    assert sorted(entry["questions"].values()) == [0, 1, 1]
    assert (entry["pruning"], entry["sparsity"]) == ({"method": "wanda", "sparsity": "0.2"}, 0.2)


def test_the_same_runs_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, {"t_tts_16": [0, 1, 1]})
        assert cli.main(["baseline", str(tmp_path / name), "--output", str(tmp_path / f"{name}.json")]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_names_what_it_leaves_out(tmp_path, capsys):
    write_run(tmp_path, {"t_tts_16": [0, 1]})
    write_run(tmp_path, {"u_tts_16": [0, 1]}, seed=8, has_samples=False)
    (tmp_path / "results_torn.json").write_text("{")
    assert cli.main(["baseline", str(tmp_path), "--output", str(tmp_path / "b.json")]) == 0
    out, err = capsys.readouterr()
    assert "left out: the acc of tiny-reasoner · dense · u_tts_16: no outcome of a question is known: " in out
    assert err.endswith("warning: 1 skipped\n")


def test_nothing_to_freeze_is_2_and_writes_nothing(tmp_path, capsys):
    write_run(tmp_path, {"t_tts_16": [0, 1]}, has_samples=False)
    assert cli.main(["baseline", str(tmp_path), "--output", str(tmp_path / "b.json")]) == 2
    assert "run lm_eval with --log_samples" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()
