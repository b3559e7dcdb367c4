"""Benchmark questions from local files and the hub; GPQA choices."""

from __future__ import annotations

import json
import zipfile

import pytest

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.models.documents import load_documents, read_rows, shuffle_choices


def load(local="aime24"):
    return load_documents("some/dataset", None, split="test", local=local)


def test_a_local_folder_replaces_the_hub(tmp_path, monkeypatch):
    (tmp_path / "aime24.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    monkeypatch.setenv("LM_EVAL_PRUNED_DATA", str(tmp_path))
    assert load()[0] == {"problem": "1+1?", "answer": "2"}


def test_a_zip_archive_is_not_extracted(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "gpqa_diamond.zip", "w") as archive:
        archive.writestr("gpqa_diamond.jsonl", '{"Question": "?"}\n')
    monkeypatch.setenv("LM_EVAL_PRUNED_DATA", str(tmp_path))
    assert load("gpqa_diamond")[0] == {"Question": "?"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpqa_diamond.zip"]


def test_a_missing_local_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LM_EVAL_PRUNED_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"neither aime24.jsonl nor aime24.zip"):
        load()


def test_without_network_and_folder_both_remedies_are_named(monkeypatch):
    monkeypatch.delenv("LM_EVAL_PRUNED_DATA", raising=False)
    with pytest.raises(MissingDataError, match=r"some/dataset cannot be loaded .* set LM_EVAL_PRUNED_DATA=DIR"):
        load()


def test_a_task_without_local_data_is_told_how_to_name_it(monkeypatch):
    monkeypatch.delenv("LM_EVAL_PRUNED_DATA", raising=False)
    with pytest.raises(MissingDataError, match=r"a file that the task names in metadata: local_data \(\w+Error: "):
        load(None)


@pytest.mark.parametrize("content", ["", "\n", "not json\n", '{"a": 1}\n{"a":\n'])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "aime24.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"aime24\.jsonl"):
        read_rows(path)


def test_a_broken_zip_is_named(tmp_path):
    path = tmp_path / "gpqa_diamond.zip"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"gpqa_diamond\.zip"):
        read_rows(path)


def test_a_unicode_line_separator_does_not_split_a_row(tmp_path):
    path = tmp_path / "aime24.jsonl"
    path.write_text(json.dumps({"problem": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_rows(path)[0]["problem"] == "a\u2028b"


def question(number: int) -> dict[str, str]:
    wrong = {f"Incorrect Answer {index}": f" wrong {index}\n" for index in (1, 2, 3)}
    return {"Question": f"Question {number}?", "Correct Answer": "right ", **wrong}


def test_the_order_of_choices_depends_only_on_the_question(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(question(number)) + "\n" for number in range(200)))
    rows = shuffle_choices(read_rows(path))
    for row in rows:
        choices = [row[f"choice{index}"] for index in (1, 2, 3, 4)]
        assert sorted(choices) == ["right", "wrong 1", "wrong 2", "wrong 3"]
        assert choices["ABCD".index(row["answer"])] == "right"
    counts = {letter: rows["answer"][:].count(letter) for letter in "ABCD"}
    assert all(30 <= count <= 70 for count in counts.values()), counts
    alone = tmp_path / "alone.jsonl"
    alone.write_text(json.dumps(question(17)) + "\n")
    assert shuffle_choices(read_rows(alone))[0] == rows[17]


def test_the_bundled_questions_are_distinct():
    rows = load_documents("tiny-reasoner", None, split="test", local=None)
    assert len(rows) == 200
    assert len(set(rows["problem"])) == 200


@pytest.mark.parametrize(("local", "count"), [("aime24", 30), ("math500", 500), ("amc23", 40), ("gpqa_diamond", 198)])
def test_the_real_benchmarks_are_complete(data_folder, monkeypatch, local, count):
    monkeypatch.setenv("LM_EVAL_PRUNED_DATA", str(data_folder))
    rows = load(local)
    assert len(rows) == count
    if local == "gpqa_diamond":
        assert set(shuffle_choices(rows)["answer"]) == set("ABCD")
