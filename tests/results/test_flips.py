"""Flips between two runs, and the accuracy among finished responses."""

from __future__ import annotations

import json

import pytest

from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.leaderboard.tables import markdown
from lm_eval_pruned.results.records.finished import Finished, finished, finished_row, merged
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples import UNKNOWN, _answer, read_samples
from tests.results.written_runs import row, write_run

CORRECT = {"new": [1, 0, 0, 0, 1], "old": [1, 1, 0, 0, 0]}
ANSWERS = {"new": ["7", "3", "4", "5", "7"], "old": ["7", "7", "4", "6", "2"]}


def lines(tmp_path, **fields):
    """A dense and a pruned run with given answers; `fields` are those of each row, by question."""
    for name, run in (("old", {}), ("new", {"method": "wanda", "sparsity": 0.2, "seed": 8})):
        write_run(tmp_path / name, {"t_tts_16": CORRECT[name]}, **run)
        (path,) = (tmp_path / name).glob("samples_*")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for number, one in enumerate(rows):
            one["filtered_resps"] = [ANSWERS[name][number]]
            one |= {field: values[number] for field, values in fields.items()}
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return {entry.line.run: entry.line for entry in build_entries(read_records([tmp_path]).records)}


def test_worse_better_and_wrong_anew(tmp_path):
    found = lines(tmp_path)
    pruned, dense = found["wanda uniform 0.2"], found["dense"]
    assert (pruned.harmful, pruned.beneficial, pruned.churn) == (0.2, 0.2, 0.2)
    assert (dense.harmful, dense.churn, pruned.finished) == (None, None, None)
    assert "| 0.200 | 0.200 | 0.200 |" in markdown([dense, pruned])


def test_finished(tmp_path):
    pruned = lines(tmp_path, answer_cut=[0.0, 1.0, 0.0, 0.0, 1.0], no_answer=[0.0, 1.0, 0.0, 1.0, 0.0])
    # Questions 0 and 2 have whole answers; the right one of question 4 was cut.
    assert (pruned["wanda uniform 0.2"].finished, pruned["wanda uniform 0.2"].acc_finished) == (0.4, 0.5)


@pytest.mark.parametrize(
    ("fields", "correct", "expected"),
    [
        ({"answer_cut": 0.0, "no_answer": 0.25}, 0.5, (0.75, 0.5)), ({"answer_cut": 1, "no_answer": 0}, 1.0, (0, 0)),
        ({"answer_cut": 0.25, "no_answer": 0.0}, 0.5, None), ({"answer_cut": 0.0}, 0.5, None), ({}, 1.0, None),
    ],
)  # fmt: skip
def test_a_row(fields, correct, expected):
    assert finished_row(fields, correct) == expected


def test_seeds_count_by_their_finished_responses():
    one, other = finished([1, 1, 0, 0], [1, 0, 0, 0]), finished([1, 1, 1, 1], [1, 1, 1, 1])
    assert merged([one, other]) == Finished(0.75, pytest.approx(5 / 6))
    assert merged([one, None]) is None
    assert merged([finished([0, 0], [0, 0])]) == Finished(0, None)


@pytest.mark.parametrize(
    ("responses", "filtered"),
    [
        ([["text"]], ["text"]), ([["text"]], [["text"]]), ([["a", "b"]], ["1", "2"]),
        ([["-1.5", "False"]], [["-1.5", "False"]]), ([[["-inf", "True"]], [["-2e3", "False"]]], [["-inf", "True"]]),
    ],
)  # fmt: skip
def test_no_single_answer(responses, filtered):
    assert _answer(json.dumps(responses).encode(), json.dumps(filtered).encode()) == UNKNOWN


def test_an_answer_is_the_same_whatever_was_said_before(tmp_path):
    path = tmp_path / "s.jsonl"
    rows = [row("t", number, 0.0) | {"filtered_resps": [text]} for number, text in enumerate(("x", "x", "True"))]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    answers = read_samples(path, {"none": "acc"})["none"].answers
    assert len(set(answers.tolist())) == 2
