"""Leaderboard entries: dense references, published figures, sorting, and the table formats."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from lm_eval_pruned.errors import DataError, MissingDataError, PrunedEvalError
from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine, build_entries
from lm_eval_pruned.results.leaderboard.published import read_reference
from lm_eval_pruned.results.leaderboard.scales import is_share
from lm_eval_pruned.results.leaderboard.tables import FORMATS, as_csv, as_json, markdown
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.statistics.multiple import holm
from lm_eval_pruned.results.statistics.paired import mcnemar
from tests.conftest import ROOT
from tests.results.written_runs import write_run

DENSE = {"t_tts_16": [1] * 20, "t_tts_32": [1] * 20}
PRUNED = {"t_tts_16": [0] * 12 + [1] * 8, "t_tts_32": [0] * 3 + [1] * 17}


def lines(*folders: Path, reference: Path | None = None) -> list[LeaderboardLine]:
    published = read_reference(reference) if reference else []
    return [entry.line for entry in build_entries(read_records(folders).records, published)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs", DENSE)
    write_run(tmp_path / "runs", PRUNED, method="wanda", sparsity=0.2, seed=8, achieved=0.1995)
    return tmp_path / "runs"


def test_each_budget_and_the_area_best_first(runs):
    assert [(line.budget, line.run, line.acc) for line in lines(runs)] == [
        (16, "dense", 1.0), (16, "wanda uniform 0.2", 0.4), (32, "dense", 1.0), (32, "wanda uniform 0.2", 0.85),
        (None, "dense", 1.0), (None, "wanda uniform 0.2", 0.625),
    ]  # fmt: skip


def test_against_dense_by_question(runs):
    first, second, area = (line for line in lines(runs) if line.run != "dense")
    assert (first.difference, second.difference, area.difference) == pytest.approx((-0.6, -0.15, -0.375))
    assert (first.p, second.p) == (mcnemar(12, 0, "two-sided"), mcnemar(3, 0, "two-sided"))
    assert [line.p_holm for line in (first, second, area)] == holm([line.p for line in (first, second, area)])
    assert first.difference_low < -0.6 < first.difference_high < 0
    assert 0 < first.detectable < 1
    assert (first.sparsity, first.thinking_tokens, first.budget_hit) == (0.1995, 12.5, 0.5)
    assert (first.no_answer, first.looping, first.questions) == (0.25, 0.125, 20)
    assert (first.loop_onset, first.rep_2, first.rep_3) == (0.9, 0.375, None)


def test_dense_is_held_against_nothing(runs):
    assert {(line.difference, line.p, line.detectable) for line in lines(runs) if line.run == "dense"} == {(None,) * 3}


def test_seeds_merge(tmp_path):
    for seed, right in ((7, 10), (11, 12), (42, 14)):
        write_run(tmp_path, {"t_tts_16": [1] * right + [0] * (20 - right)}, seed=seed)
    (line,) = lines(tmp_path)
    assert (line.acc, line.std, line.seeds) == (pytest.approx(0.6), pytest.approx(np.sqrt(0.02 / 3)), 3)


def test_dense_of_another_model_or_decoding_is_no_measure(tmp_path):
    write_run(tmp_path / "a", DENSE, model="other")
    write_run(tmp_path / "b", DENSE, kwargs={"temperature": 0.6})
    write_run(tmp_path / "c", PRUNED, method="wanda", sparsity=0.2)
    assert {line.difference for line in lines(tmp_path)} == {None}


def test_dense_may_have_another_backend_and_fewer_questions(tmp_path):
    arguments = {"method": "wanda", "sparsity": 0.2}
    write_run(tmp_path / "a", {"t_tts_16": [1] * 10}, limit=10)
    write_run(tmp_path / "c", {"t_tts_16": [0] * 20}, **arguments)
    pruned = next(line for line in lines(tmp_path) if line.run != "dense")
    assert pruned.difference == -1
    for path in (tmp_path / "a").glob("results*"):
        content = json.loads(path.read_text())
        content["config"]["model"] = "pruned-vllm"
        path.write_text(json.dumps(content))
    assert next(line for line in lines(tmp_path) if line.run != "dense").difference == -1


def test_runs_without_samples_have_the_interval_they_reported(tmp_path):
    write_run(tmp_path, {"t_tts_16": [0, 1] * 50}, has_samples=False, backend="hf")
    (line,) = lines(tmp_path)
    assert (line.questions, line.difference, line.sparsity) == (100, None, None)
    # Agresti-Coull with t = 1.984: 0.5 +- 1.984 sqrt(0.25 / (100 + 1.984^2)).
    assert (line.low, line.high) == pytest.approx((0.4026, 0.5974), abs=2e-4)


def test_no_share_is_below_0_or_above_1(tmp_path):
    write_run(tmp_path, {"t_tts_16": [1] + [0] * 29, "t_tts_32": [0] + [1] * 29}, has_samples=False)
    assert [(line.low, line.high) for line in lines(tmp_path)] == [
        (0.0, pytest.approx(0.1908, abs=1e-3)), (pytest.approx(0.8092, abs=1e-3), 1.0),
    ]  # fmt: skip


def change(folder: Path, **sections: object) -> None:
    """Put sections into every results file of a folder; those of "config" are added to it."""
    for path in folder.glob("results_*"):
        content = json.loads(path.read_text())
        content["config"] |= sections.pop("config", {})
        path.write_text(json.dumps({**content, **sections}))


@pytest.mark.parametrize(("given", "shown"), [(5, "5"), (0, "0"), (None, "")])
def test_limit_and_shots_are_those_of_the_file(tmp_path, given, shown):
    write_run(tmp_path, {"t_tts_16": [0, 1] * 5}, limit=10)
    change(tmp_path, **{"n-shot": {"t_tts_16": given}})
    (line,) = lines(tmp_path)
    assert (line.limit, line.shots) == ("10", shown)


@pytest.mark.parametrize(("thinking", "shown"), [("none", None), ("qwen3", 0.75)])
def test_the_end_of_text_is_no_figure_of_thinking_without_markers(tmp_path, thinking, shown):
    write_run(tmp_path, {"t_tts_16": [0, 1]})
    results = {"t_tts_16": {"acc,none": 0.5, "thinking_eos,none": 0.75, "answer_cut,none": 0.25}}
    change(tmp_path, config={"thinking": thinking}, results=results)
    (line,) = lines(tmp_path)
    assert (line.thinking_eos, line.answer_cut) == (shown, 0.25)


ODD = [None, 3, -1.5, "x", [], {}, [1], {"a": 1}, True, float("nan"), float("inf"), "\ud800", 10**400, {"seed": []}]


def places(value: object, so_far: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key in value:
            yield (*so_far, key)
            yield from places(value[key], (*so_far, key))


def test_whatever_stands_in_a_results_file(runs):
    """Replacing each value of a run by odd ones gives an error of ours or a table, and valid JSON."""
    path = sorted(runs.glob("results*"))[1]
    content = json.loads(path.read_text())
    for turn, place in enumerate(places(content)):
        for odd in ODD[turn % 4 :: 4]:
            changed = json.loads(json.dumps(content))
            reduce(lambda part, name: part[name], place[:-1], changed)[place[-1]] = odd
            path.write_text(json.dumps(changed))
            with suppress(PrunedEvalError):
                found = lines(runs)
                assert markdown(found)
                assert as_csv(found)
                json.loads(as_json(found), parse_constant=pytest.fail)


class TestFormats:
    def test_csv_has_every_field(self, runs):
        found = lines(runs)
        rows = list(csv.DictReader(io.StringIO(as_csv(found))))
        assert list(rows[0]) == list(LeaderboardLine.__dataclass_fields__)
        assert [float(row["acc"]) for row in rows] == [line.acc for line in found]
        assert rows[0]["difference"] == ""

    def test_json_is_json(self, runs):
        found = lines(runs)
        content = json.loads(as_json(found), parse_constant=pytest.fail)
        assert [LeaderboardLine(**line) for line in content["lines"]] == found

    def test_markdown(self, runs):
        text = markdown(lines(runs))
        assert text.startswith("# Leaderboard\n\nacc: mean")
        cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("|")]
        assert {len(row) for row in cells} == {len(cells[0])}
        first = dict(zip(cells[0], cells[3], strict=True))
        assert (first["run"], first["acc"], first["zero"]) == ("wanda uniform 0.2", "0.4000", "0.1995")
        assert first["vs dense"].startswith("-60.0* (")
        assert "settings" not in first
        assert cells[-1][0] == "area"

    def test_markdown_of_other_metrics(self, runs):
        first, second, *_ = lines(runs)
        worse = replace(
            second, metric="word_perplexity", higher_is_better=False, acc=48_213.7, low=None, difference=4e4,
            difference_low=3e4, difference_high=5e4, detectable=250.0, answer_cut=0.83, shots="5", limit="0.1",
            reference="other · base",
        )  # fmt: skip
        unknown = replace(first, metric="score", higher_is_better=None, acc=-3.5, why_not_compared="no | run")
        text = markdown([worse, unknown])
        head, _, *rows = [
            [cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("|")
        ]
        one, other = (dict(zip(head, row, strict=True)) for row in rows)
        assert (one["metric"], one["value"], one["detectable"]) == ("word_perplexity, ↓", "48213.7", "250.00")
        assert one["vs reference"] == "+40000.0* (+30000.0 to +50000.0)"
        assert (one["answer cut"], one["shots"], one["limit"], one["reference"]) == ("0.83", "5", "0.1", "other · base")
        assert (other["metric"], other["value"], other["vs reference"]) == (
            "score, direction unknown",
            "-3.500",
            "- (1)",
        )
        assert text.endswith("Not compared: (1) no \\| run.\n")

    @pytest.mark.parametrize(
        ("metric", "value", "expected"),
        [("acc", 0.5, True), ("rougeL_acc", 0.5, True), ("area of acc", 1.0, True), ("pass@4", 0.5, True),
         ("f1", 57.3, False), ("bits_per_byte", 0.7, False), ("bleu_max", 0.4, False), ("acc_diff_loss", -1.0, False)],
    )  # fmt: skip
    def test_only_shares_are_in_points(self, runs, metric, value, expected):
        assert is_share(replace(lines(runs)[0], metric=metric, acc=value)) == expected

    def test_markdown_survives_names(self, tmp_path):
        write_run(tmp_path, {"t_tts_16": [0, 1]}, model="a|b\nc")
        assert "| a\\|b c |" in markdown(lines(tmp_path))

    def test_markdown_has_no_markup_of_others(self, tmp_path):
        write_run(tmp_path, {"t_tts_16": [0, 1]}, model="<script>[x](javascript:y)\\")
        write_run(tmp_path, {"t_tts_16": [0, 1]}, model="**a** $b$ ~c~ _d_", day=2)
        write_run(tmp_path / "other", {"t\n\n<img>_tts_16": [0, 1]}, has_samples=False)
        text = markdown(lines(tmp_path))
        assert "| &lt;script>\\[x\\](javascript:y)\\\\ |" in text
        assert "\n## t  &lt;img>\\_tts\n" in text
        assert r"| \*\*a\*\* \$b\$ \~c\~ \_d\_ |" in text
        assert "<" not in text.replace("p < 0.05", "")

    @pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", "\t=1"])
    def test_no_cell_of_a_table_is_a_formula(self, tmp_path, name):
        write_run(tmp_path, {"t_tts_16": [0, 1]}, model=name)
        rows = list(csv.DictReader(io.StringIO(as_csv(lines(tmp_path)))))
        assert {row["model"] for row in rows} == {f"'{name}"}

    @pytest.mark.parametrize("ending", FORMATS)
    def test_runs_with_nothing_measured(self, tmp_path, ending):
        assert FORMATS[ending]([])
        write_run(tmp_path, {})
        with pytest.raises(DataError, match="holds no results"):
            lines(tmp_path)


class TestReference:
    HEAD = "model,method,allocation,sparsity,budget,task,acc,std,source\n"

    def test_rows_of_the_same_benchmark_stand_among_ours(self, runs, tmp_path):
        path = tmp_path / "published.csv"
        path.write_text(
            self.HEAD + "tiny-reasoner,wanda,uniform,0.20,16,t,0.45,0.01,table 1\n"
            "tiny-reasoner,none,unpruned,,32,t,0.99,,\nother,none,,,64,t,0.5,,\nother,none,,,16,u,0.5,,\n"
        )
        found = [line for line in lines(runs, reference=path) if line.source]
        assert [(line.run, line.budget, line.acc, line.std, line.source) for line in found] == [
            ("wanda uniform 0.2", 16, 0.45, 0.01, "table 1"), ("dense", 32, 0.99, None, "published"),
        ]  # fmt: skip
        assert "| table 1 |" in markdown(lines(runs, reference=path))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "lacks the columns model, method"),
            ("model,method,budget,task\n", "lacks the columns acc"),
            (HEAD + "m,none,,,512,t,high,,\n", r"published\.csv, line 2: could not convert"),
            (HEAD + "m,none,,,512,t\n", r"published\.csv, line 2 has no acc"),
            (HEAD + ",none,,,512,t,0.5,,\n", r"published\.csv, line 2 has no model"),
            (HEAD + "m,none,,,512,t,nan,,\n", r"line 2: acc nan is not a fraction"),
            (HEAD + "m,none,,,512,t,50,,\n", r"line 2: acc 50 is not a fraction: give 0\.5 for 50 %"),
            ("\xff", "is no CSV file"),
        ],
    )
    def test_what_is_no_table(self, tmp_path, content, message):
        path = tmp_path / "published.csv"
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=message):
            read_reference(path)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(MissingDataError, match="cannot be read"):
            read_reference(tmp_path / "published.csv")

    def test_the_papers_tables(self, tmp_path):
        path = Path(os.environ.get("LM_EVAL_PRUNED_REFERENCE", ROOT.parent / "shared" / "paper_tables.csv"))
        if not path.exists():
            pytest.skip("no table of published figures: set LM_EVAL_PRUNED_REFERENCE")
        write_run(tmp_path, {"aime24_tts_512": [0, 1] * 15}, model="Qwen/Qwen3-8B")
        found = [line for line in lines(tmp_path, reference=path) if line.source]
        assert len(read_reference(path)) == 600
        assert len(found) == 30
        assert {line.run for line in found} >= {"dense", "magnitude layerif 0.2", "shortgpt 2block"}
