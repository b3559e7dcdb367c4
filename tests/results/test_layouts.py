"""Results and samples files of every version of the harness, whatever they are called."""

from __future__ import annotations

import json
import os

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.record import NotResultsError, read_record

OLD = {
    "results": {"piqa": {"acc": 0.75, "acc_stderr": 0.01, "acc_norm": 0.5}, "wikitext": {"word_perplexity": 11.5}},
    "versions": {"piqa": 0, "wikitext": 1},
    "config": {"model": "hf-causal", "model_args": "pretrained=a/b,dtype=float16", "num_fewshot": 5, "limit": None},
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_metrics_without_a_filter(tmp_path):
    found = read_record(write(tmp_path / "b.json", OLD))
    assert (found.configuration.model, dict(found.configuration.settings)["dtype"]) == ("a/b", "float16")
    piqa, wikitext = found.results
    assert (piqa.filter, piqa.metric, piqa.metrics["acc_norm"], piqa.errors) == ("none", "acc", 0.5, {"acc": 0.01})
    assert dict(piqa.settings)["num_fewshot"] == "5"
    assert (wikitext.metric, wikitext.metrics) == ("word_perplexity", {"word_perplexity": 11.5})


def test_metadata_that_is_a_list(tmp_path):
    configs = {"t": {"metadata": [{"version": 1.0}, {"num_samples": 4}], "num_fewshot": 0}}
    content = {
        "results": {"t": {"acc,none": 0.5}, "g": {"acc,none": 0.5}},
        "configs": configs,
        "versions": {"g": "N/A"},
    }
    (result,) = read_record(write(tmp_path / "results.json", content)).results
    assert (result.task, dict(result.settings)["num_samples"]) == ("t", "4")


def test_the_layout_of_the_coming_release(tmp_path):
    entry = {"name": "t", "alias": "t", "sample_len": 20, "acc,none": 0.5, "acc_stderr,none": 0.1}
    group = {"name": "g", "alias": "g", "sample_len": 20, "sample_count": {"acc,none": 20}}
    content = {"results": {"t": entry, "g": group}, "configs": {"t": {}}, "group_subtasks": {"g": ["t"]}}
    (result,) = read_record(write(tmp_path / "results.json", content)).results
    assert (result.metrics, result.questions) == ({"acc": 0.5}, 20)


def test_models_that_nothing_names_are_not_merged(tmp_path):
    for model in "ab":
        write(tmp_path / model / "results.json", {"results": OLD["results"], "versions": OLD["versions"]})
    records, _ = read_records([tmp_path])
    assert [record.configuration.model for record in records] == ["a/results.json", "b/results.json"]


@pytest.mark.parametrize(
    "name", ["res_2024-05-01T10-00-00.1.json", "gpt2", "out.jsonl", "eval results.json", "Q2.5-7b"]
)
def test_a_file_of_any_name_is_found(tmp_path, name):
    write(tmp_path / "deep" / name, json.dumps(OLD, indent=2))
    write(tmp_path / "config.json", {"results": {"page": {"title": 1}}, "config": {}})
    write(tmp_path / "tokenizer.json", {"vocab": {'"results"': 1, '"config"': 2}})
    write(tmp_path / "samples_piqa_2024-05-01T10-00-00.1.json", '{"doc_id": 0, "results": {}, "config": 1}\n' * 2)
    os.mkfifo(tmp_path / "pipe.json")
    records, problems = read_records([tmp_path])
    assert ([record.path.name for record in records], problems) == ([name], [])


def test_what_looks_like_results_is_named(tmp_path):
    write(tmp_path / "good.json", OLD)
    write(tmp_path / "cut.json", json.dumps(OLD)[:-20])
    write(tmp_path / "results_lighteval.json", {"config_general": {}, "results": {"all": {"acc": 1, "acc_stderr": 0}}})
    write(tmp_path / "results.json", "")
    records, problems = read_records([tmp_path])
    assert len(records) == 1
    assert [name for name in ("cut", "lighteval", "results.json") if any(name in one for one in problems)] == [
        "cut", "lighteval", "results.json",
    ]  # fmt: skip
    assert len(problems) == 3


def test_a_given_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json is not a results file"):
        read_records([write(tmp_path / "a.json", {"a": 1})])
    with pytest.raises(MissingDataError, match="holds no results file"):
        read_records([tmp_path])
    with pytest.raises(NotResultsError, match="lacks results, versions or configs"):
        read_record(write(tmp_path / "b.json", {"results": {}}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "N/A", True, None])
def test_what_is_not_a_number_is_not_a_measurement(tmp_path, value):
    content = {"results": {"t": {"acc,none": value, "acc_norm,none": 0.5}, "u": {"acc,none": 0.5}}, "versions": {}}
    found = read_record(write(tmp_path / "results.json", content))
    assert [result.task for result in found.results] == ["u"]
    assert "t is left out: its acc is" in found.problems[0]


@pytest.mark.parametrize("value", [999, 0.0])
def test_predictions_alone_measure_nothing(tmp_path, capsys, value):
    write(tmp_path / "results_1.json", {"results": {"t": {"bypass,none": value}}, "configs": {"t": {}}})
    for command in ("leaderboard", "baseline"):
        assert cli.main([command, str(tmp_path), "--output", str(tmp_path / "out.json")]) == 2
        assert "grade its answers with lm-eval-pruned grade" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


ROWS = [{"doc_id": index, "doc": {}, "target": "1", "resps": [], "acc": float(index % 2)} for index in range(4)]


@pytest.mark.parametrize("name", ["pretrained__a__b,dtype__float16_t.jsonl", "samples_t_2024-05-01T10-00-00.1.json"])
def test_samples_that_are_one_list(tmp_path, name):
    content = {**OLD, "results": {"t": {"acc,none": 0.5}}}
    path = write(tmp_path / "res_2024-05-01T10-00-00.1.json", content)
    write(tmp_path / name, json.dumps(ROWS, indent=2))
    (result,) = read_record(path).results
    assert result.outcomes is not None
    assert (result.outcomes.correct.tolist(), result.questions) == ([0, 1, 0, 1], 4)


def test_rows_without_a_filter_come_in_the_order_of_the_filters(tmp_path):
    content = {"results": {"t": {"acc,a": 0.5, "acc,b": 1.0}}, "versions": {"t": 1}}
    content["samples"] = {"t": [*ROWS, *({**row, "acc": "1.0"} for row in ROWS)]}
    first, second = read_record(write(tmp_path / "x.json", content)).results
    assert first.outcomes is not None
    assert second.outcomes is not None
    assert (first.outcomes.correct.mean(), second.outcomes.correct.mean()) == (0.5, 1.0)
