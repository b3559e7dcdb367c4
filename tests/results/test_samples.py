"""Reading of samples files: keys, filters, repeated questions and malformed rows."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.results.records import samples
from lm_eval_pruned.results.records.samples import _row, read_samples
from tests.results.written_runs import row


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_outcomes_are_keyed_by_hash_and_sorted(tmp_path):
    path = write(tmp_path / "s.jsonl", [row("t_1", question, question / 4) for question in range(5)])
    found = read_samples(path, {"none": "acc"})["none"]
    expected = {int(row("t_1", question, 0)["doc_hash"][:16], 16): question / 4 for question in range(5)}
    assert dict(zip(found.questions.tolist(), found.correct.tolist(), strict=True)) == expected
    assert (np.diff(found.questions) > 0).all()


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    rows = [row("t_1", question, question % 2) for question in range(20)]
    one, other = (
        read_samples(write(tmp_path / f"{name}.jsonl", given), {"none": "acc"})["none"]
        for name, given in (("a", rows), ("b", rows[::-1]))
    )
    assert np.array_equal(one.questions, other.questions)
    assert np.array_equal(one.correct, other.correct)


def test_filters_are_told_apart(tmp_path):
    rows = [
        row("t", question, value, metric="exact_match", filter_name=name)
        for question in range(3)
        for name, value in (("strict-match", 0), ("flexible-extract", True), ("other", 0.5))
    ]
    found = read_samples(
        write(tmp_path / "s.jsonl", rows), {"strict-match": "exact_match", "flexible-extract": "exact_match"}
    )
    assert {name: one.correct.tolist() for name, one in found.items()} == {
        "strict-match": [0.0] * 3, "flexible-extract": [1.0] * 3,
    }  # fmt: skip


def test_older_rows_have_ids_and_no_filter(tmp_path):
    rows = [{"doc_id": question, "doc": {}, "acc": question % 2} for question in (2, 0, 1)]
    found = read_samples(write(tmp_path / "s.jsonl", rows), {"none": "acc"})["none"]
    assert (found.questions.tolist(), found.correct.tolist()) == ([0, 1, 2], [0.0, 1.0, 0.0])


def test_the_only_filter_needs_no_name(tmp_path):
    found = read_samples(write(tmp_path / "s.jsonl", [{"doc_id": 0, "acc": 1}]), {"get-answer": "acc"})
    assert list(found) == ["get-answer"]


def test_a_question_asked_twice_is_two(tmp_path):
    rows = [row("t", 0, 1.0), row("t", 1, 0.0), row("t", 0, 0.0)]
    found = read_samples(write(tmp_path / "s.jsonl", rows), {"none": "acc"})["none"]
    assert len(set(found.questions.tolist())) == 3
    assert sorted(found.correct.tolist()) == [0.0, 0.0, 1.0]


def test_what_is_no_number_a_question_is_left_out(tmp_path):
    rows = [row("t", question, 0.0) | {"acc": [-3.5, 7]} for question in range(3)]
    assert read_samples(write(tmp_path / "s.jsonl", rows), {"none": "acc"}) == {}


texts = st.text(st.sampled_from('\\"{},: filterdoc_hash\n\u2028'), max_size=40)


@given(texts, texts, st.dictionaries(st.sampled_from(["filter", "doc_hash", "acc", "a"]), texts), st.booleans())
def test_the_short_way_reads_what_json_reads(response, problem, doc, is_nested):
    written = {"doc_id": 1, "doc": {"problem": problem, **doc}, "resps": [[response]], "filter": "none",
               "metrics": ["acc"], "doc_hash": "ab", "acc": 1.0, **({"extra": doc} if is_nested else {})}  # fmt: skip
    found = _row(json.dumps(written).encode())
    assert found.items() <= written.items()
    assert found.keys() >= {"filter", "doc_hash", "acc"}


@given(texts, st.dictionaries(st.sampled_from(["filter", "doc_hash", "acc"]), texts))
def test_rows_without_the_harness_layout_are_read_whole(response, doc):
    written = {"resps": [[response]], "doc_hash": "ab", "acc": 1.0, "doc": {"a": 1, **doc}}
    assert _row(json.dumps(written).encode()) == written


GOOD = json.dumps(row("t", 0, 1.0)).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"x", b"[]", b"3", b"null", b'"text"', b"\xff\xfe", b"\n", b"{}", b"[" * 100_000,
        GOOD[:-1], GOOD[: len(GOOD) // 2], GOOD[:-40],
        b'{"doc_id": 0}', b'{"acc": 1.0}', b'{"acc": 1.0, "doc_id": "first"}', b'{"acc": 1.0, "doc_id": -1}',
        b'{"acc": 1.0, "doc_hash": "no digits"}', b'{"acc": "right", "doc_id": 0}', b'{"acc": 1.0, "doc_id": 1e99}',
        b'{"acc": 1.0, "doc_id": 0, "filter": []}',
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "samples_t.jsonl"
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(DataError, match=r"^\S*samples_t\.jsonl: line 2 is cut short or not a row"):
        read_samples(path, {"none": "acc"})


def test_accuracy_must_be_finite(tmp_path):
    path = write(tmp_path / "s.jsonl", [row("t", 0, float("nan"))])
    with pytest.raises(DataError, match="infinite or not a number"):
        read_samples(path, {"none": "acc"})


def test_a_line_without_end_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "MAX_LINE_BYTES", 1000)
    (tmp_path / "s.jsonl").write_bytes(b"a" * 100_000)
    with pytest.raises(DataError, match="line 1 "):
        read_samples(tmp_path / "s.jsonl", {"none": "acc"})


def test_memory_is_that_of_two_numbers_a_row(tmp_path):
    line = json.dumps(row("t", 0, 1.0) | {"resps": [["x" * 2000]]}).encode() + b"\n"
    path = tmp_path / "s.jsonl"
    path.write_bytes(line * 5000)
    tracemalloc.start()
    read_samples(path, {"none": "acc"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * 5000
