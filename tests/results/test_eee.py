"""Records of Every Eval Ever, checked by its own JSON schema and its own validator."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from tests.results.written_runs import stop, write_run

OTHER_TOOLS = Path(__file__).parent / "other_tools"
PACKAGE = find_spec("every_eval_ever")
needs_schema = pytest.mark.skipif(
    PACKAGE is None, reason="pip install --no-deps --ignore-requires-python every-eval-ever==0.3.0"
)
MATH = {
    "task": "math500_tts_512",
    "dataset_path": "HuggingFaceH4/MATH-500",
    "test_split": "test",
    "generation_kwargs": {"thinking_token_budget": 512, "temperature": 0.6, "max_gen_toks": 64, "until": ["\n\n"]},
}


def export(folder, output, *arguments):
    return cli.main(["leaderboard", str(folder), "--output", str(output), *arguments])


def amended(path, **changes):
    """Give a results file more of what the harness writes."""
    content = json.loads(path.read_text())
    content["configs"].update(changes.pop("configs", {}))
    content["config"]["pruning"].update(changes.pop("pruning", {}))
    path.write_text(json.dumps({**content, **changes}))
    return path


@pytest.fixture
def runs(tmp_path):
    """A dense run and a pruned one, under two budgets; the second has a metric without a direction and bounds."""
    write_run(tmp_path / "runs", {"math500_tts_512": [0, 1] * 20, "math500_tts_1024": [1, 0, 1, 1] * 10}, model="a/b")
    pruned = write_run(
        tmp_path / "runs",
        {"math500_tts_512": [0, 1] * 20, "parens_tts_64": [1] * 30},
        model="a/b",
        method="wanda",
        alloc="owl",
        sparsity=0.5,
        achieved=0.4998,
        day=2,
    )
    amended(
        pruned,
        configs={"math500_tts_512": MATH},
        pruning={"fingerprint": "0123456789abcdef", "target_sparsity": 0.5},
        lm_eval_version="0.4.13",
        transformers_version="5.0.0",
    )
    return tmp_path / "runs"


def records(output):
    content = json.loads(output.read_text())
    return content if isinstance(content, list) else [content]


@needs_schema
def test_records_meet_the_schema(tmp_path, runs, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    assert export(runs, tmp_path / "x.eee.json") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'x.eee.json'}: 2 records of Every Eval Ever, one a run\n"
    schema = json.loads((Path(str(PACKAGE.origin)).parent / "schemas" / "eval.schema.json").read_text())
    written = records(tmp_path / "x.eee.json")
    assert len(written) == 2
    for one in written:
        jsonschema.validate(one, schema)
        assert one["schema_version"] == schema["version"]


@needs_schema
@pytest.mark.parametrize(("flags", "files"), [((), 2), (("--samples",), 4)])
def test_a_folder_passes_the_validator_of_the_datastore(tmp_path, runs, flags, files):
    assert export(runs, tmp_path / "x.eee", "--organization", "Us", *flags) == 0
    done = subprocess.run(
        [sys.executable, "-m", "every_eval_ever", "validate", str(tmp_path / "x.eee/data/*/*/*/*.json*")],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200"},
    )
    # Its exit status is 2 if there is but a warning.
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{files} passed" in done.stdout


def test_a_pruned_model_has_an_id_of_its_own_and_says_how_it_was_pruned(tmp_path, runs):
    export(runs, tmp_path / "x.eee.json")
    dense, pruned = (one["model_info"] for one in records(tmp_path / "x.eee.json"))
    assert dense["id"] == "a/b"
    assert "method" not in dense["additional_details"]
    assert pruned["id"] == "lm-eval-pruned/b-wanda-owl-0.5-01234567"
    expected = {
        "base_model": "a/b",
        "method": "wanda",
        "allocation": "owl",
        "target_sparsity": "0.5",
        "achieved_sparsity": "0.4998",
        "fingerprint": "0123456789abcdef",
    }
    assert pruned["additional_details"].items() >= expected.items()
    assert pruned["inference_engine"] == {"name": "transformers", "version": "5.0.0"}


def test_scores_have_intervals_budgets_and_the_data_set(tmp_path, runs):
    export(runs, tmp_path / "x.eee.json")
    results = records(tmp_path / "x.eee.json")[1]["evaluation_results"]
    math, parens = results
    uncertainty = math["score_details"]["uncertainty"]
    assert math["score_details"]["score"] == 0.5
    assert uncertainty["num_samples"] == 40
    interval = uncertainty["confidence_interval"]
    assert 0.3 < interval["lower"] < 0.5 < interval["upper"] < 0.7
    assert interval["confidence_level"] == 0.95
    assert math["source_data"]["hf_repo"] == "HuggingFaceH4/MATH-500"
    assert math["source_data"]["hf_split"] == "test"
    assert math["generation_config"] == {
        "generation_args": {"temperature": 0.6, "max_tokens": 64, "reasoning": True},
        "additional_details": {"thinking_token_budget": "512", "thinking": "tiny", "until": '["\\n\\n"]'},
    }
    assert parens["source_data"]["source_type"] == "other"
    assert math["score_details"]["details"]["thinking_tokens"] == "12.5"


@needs_schema
def test_samples_meet_the_schema(tmp_path, runs, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    assert export(runs, tmp_path / "x.eee", "--samples") == 0
    assert capsys.readouterr().out.endswith("2 records of Every Eval Ever, one a run, 2 with samples\n")
    schema = json.loads((Path(str(PACKAGE.origin)).parent / "schemas" / "instance_level_eval.schema.json").read_text())
    for path in (tmp_path / "x.eee").rglob("*_samples.jsonl"):
        jsonschema.validate(json.loads(path.read_text().partition("\n")[0]), schema)


def test_samples_name_their_result_and_their_record(tmp_path, runs):
    assert export(runs, tmp_path / "x.eee", "--samples") == 0
    (path,) = (tmp_path / "x.eee" / "data" / "lm-eval-pruned").rglob("*_samples.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    one = json.loads(path.with_name(path.name.replace("_samples.jsonl", ".json")).read_text())
    named = one["detailed_evaluation_results"]
    assert named["total_rows"] == len(rows) == 70
    assert named["checksum"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tmp_path / "x.eee" / named["file_path"] == path
    assert {row["evaluation_id"] for row in rows} == {one["evaluation_id"]}
    ids = {result["evaluation_result_id"]: result for result in one["evaluation_results"]}
    for name, result in ids.items():
        scores = [row["evaluation"]["score"] for row in rows if row["evaluation_result_id"] == name]
        assert sum(scores) / len(scores) == result["score_details"]["score"]
    assert rows[1]["input"] == {"raw": '1 + "1" = ? , "filter": ', "formatted": "{", "reference": ["7"]}
    assert rows[1]["output"]["raw"] == ['<think>}, "filter": "none", "acc": 1.0\n</think>7']
    assert rows[1]["evaluation"] == {"score": 1.0, "is_correct": True}
    assert rows[1]["answer_attribution"][0]["extracted_value"] == "7"
    assert rows[1]["metadata"] == {"thinking_tokens": "13.0"}


def test_one_run_is_one_object_and_is_written_to_the_same_place_again(tmp_path):
    write_run(tmp_path / "runs", {"t_tts_16": [0, 1]})
    export(tmp_path / "runs", tmp_path / "x.eee.json")
    assert isinstance(json.loads((tmp_path / "x.eee.json").read_text()), dict)
    for _ in range(2):
        assert export(tmp_path / "runs", tmp_path / "x.eee") == 0
    written = list((tmp_path / "x.eee").rglob("*.json"))
    assert [path.parent.relative_to(tmp_path) for path in written] == [
        Path("x.eee/data/t_tts/lm-eval-pruned/tiny-reasoner")
    ]


def test_what_has_no_mean_of_all_questions_is_left_out_and_named(tmp_path, capsys):
    stop(write_run(tmp_path / "runs", {"t_tts_16": [0, 1] * 10}), asked=20, of=40)
    assert export(tmp_path / "runs", tmp_path / "x.eee.json") == 2
    assert "t_tts_16 was stopped after 20 of 40: drop" in capsys.readouterr().err
    write_run(tmp_path / "runs", {"t_tts_16": [0, 1] * 20}, day=2, method="wanda", sparsity=0.5)
    assert export(tmp_path / "runs", tmp_path / "x.eee.json") == 0
    assert "t_tts_16 was stopped after 20 of 40: drop" in capsys.readouterr().err
    assert isinstance(json.loads((tmp_path / "x.eee.json").read_text()), dict)


def test_results_of_lighteval_are_left_to_their_own_converter(tmp_path, capsys):
    assert export(OTHER_TOOLS / "lighteval_older.json", tmp_path / "x.eee.json") == 2
    assert "lighteval_older.json is not of lm_eval" in capsys.readouterr().err
    assert not (tmp_path / "x.eee.json").exists()


def test_runs_under_two_seeds_are_two_records(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "runs", {"t_tts_16": [0, 1]}, seed=seed)
    export(tmp_path / "runs", tmp_path / "x.eee")
    assert len(list((tmp_path / "x.eee").rglob("*.json"))) == 2


def test_runs_without_a_date_are_told_apart_by_their_content(tmp_path):
    """Before harness 0.4 only the file had a date, and unpacking gives many files the same."""
    for acc in (0.1, 0.2):
        path = tmp_path / "runs" / f"{acc}.json"
        path.parent.mkdir(exist_ok=True)
        content = {"results": {"piqa": {"acc": acc, "acc_stderr": 0.01}}, "versions": {"piqa": 0}}
        path.write_text(json.dumps({**content, "config": {"model": "neox", "model_args": None}}))
        os.utime(path, (1e9, 1e9))
    export(tmp_path / "runs", tmp_path / "x.eee")
    written = [json.loads(path.read_text()) for path in (tmp_path / "x.eee").rglob("*.json")]
    assert len({one["evaluation_id"] for one in written}) == 2
    assert {one["model_info"]["developer"] for one in written} == {"unknown"}


def test_a_path_of_this_machine_is_not_published(tmp_path):
    secret = tmp_path / "secret"
    write_run(
        tmp_path / "runs",
        {"t_tts_16": [0, 1]},
        model=str(secret / "mine"),
        method="wanda",
        alloc=f"{secret}/list.json",
        sparsity=0.5,
    )
    export(tmp_path / "runs", tmp_path / "x.eee.json")
    assert "secret" not in (tmp_path / "x.eee.json").read_text()
    (one,) = records(tmp_path / "x.eee.json")
    assert one["model_info"]["id"] == "lm-eval-pruned/mine-wanda-list.json-0.5"
    details = one["model_info"]["additional_details"]
    assert (details["base_model"], details["allocation"]) == ("local/mine", "list.json")
    assert details["model_availability"] == "unknown"


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        ("x.eee.json", ("--against", "dense"), "--against is for tables and pages"),
        ("x.eee", ("--reference", "r.csv"), "--reference is for tables and pages"),
        ("x.md", ("--organization", "Us"), "--organization is for records"),
        ("x.md", ("--samples",), "--samples is for records"),
        ("x.eee.json", ("--samples",), "--samples need files of their own"),
    ],
)
def test_flags_of_the_other_kind_are_refused_before_anything_is_read(tmp_path, capsys, name, flag, message):
    assert export(tmp_path / "nowhere", tmp_path / name, *flag) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_2(tmp_path, runs, capsys):
    (tmp_path / "x.eee").write_text("a file")
    assert export(runs, tmp_path / "x.eee") == 2
    assert "cannot be made" in capsys.readouterr().err
