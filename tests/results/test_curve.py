from __future__ import annotations

import json

import pytest

from lm_eval_pruned.errors import DataError, MissingDataError, PrunedEvalError
from lm_eval_pruned.results.curve import draw, table
from lm_eval_pruned.results.record import find_results, read_record

PRUNING = {"achieved_sparsity": 0.1995, "config": {"method": "wanda", "alloc": "uniform", "sparsity": 0.2}}


def write(path, *, pruning=PRUNING, budgets=(256, 16), stderr=0.02):
    metrics = {
        f"tiny_tts_{budget}": {
            "alias": "x", "acc,none": budget / 300, "acc_stderr,none": stderr, "thinking_tokens,none": 12.5,
            "budget_hit,none": 0.5, "no_answer,none": 0.25,
        }
        for budget in budgets
    }  # fmt: skip
    config = {"model": "pruned-hf", "pruning": pruning} if pruning else {"model": "hf"}
    path.write_text(json.dumps({"results": {"gsm8k": {"acc,none": 0.1}, **metrics}, "config": config}))
    return path


def test_a_record_is_a_curve_rising_in_budget(tmp_path):
    record = read_record(write(tmp_path / "results_1.json"))
    assert (record.label, record.sparsity) == ("wanda uniform 0.2", 0.1995)
    assert [point.budget for point in record.curves["tiny_tts"]] == [16, 256]
    point = record.curves["tiny_tts"][0]
    assert point.metrics == {
        "acc": pytest.approx(16 / 300), "thinking_tokens": 12.5, "budget_hit": 0.5, "no_answer": 0.25,
    }  # fmt: skip
    assert point.errors == {"acc": 0.02}
    assert list(record.curves) == ["tiny_tts"]


def test_runs_of_other_models_are_dense(tmp_path):
    record = read_record(write(tmp_path / "results_1.json", pruning=None, stderr="N/A"))
    assert (record.label, record.sparsity) == ("dense", 0.0)
    assert record.curves["tiny_tts"][0].errors == {}


def test_the_table_has_a_line_a_budget(tmp_path):
    lines = table([read_record(write(tmp_path / "results_1.json"))]).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == [
        "wanda",
        "uniform",
        "0.2",
        "tiny_tts",
        "16",
        "0.053",
        "±",
        "0.020",
        "12.5",
        "0.50",
        "0.25",
    ]


def test_a_picture_is_drawn(tmp_path):
    draw([read_record(write(tmp_path / "results_1.json"))], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_results_are_found_oldest_first(tmp_path):
    for name in ("b/results_2026-02.json", "a/results_2026-10.json", "results_2026-01.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name)
    assert [path.name[8:15] for path in find_results(tmp_path)] == ["2026-01", "2026-02", "2026-10"]


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(MissingDataError, match="run lm_eval with --output_path"):
        find_results(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"results": {}}', '{"results": {}, "config": 3}', "\xff"])
def test_a_foreign_file_is_named(tmp_path, content):
    path = tmp_path / "results_1.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"results_1\.json is not a results file"):
        read_record(path)


def test_a_folder_of_runs_without_a_curve_is_refused(tmp_path):
    record = read_record(write(tmp_path / "results_1.json", budgets=()))
    with pytest.raises(PrunedEvalError, match="no task under a thinking budget"):
        draw([record], tmp_path / "curve.png")
