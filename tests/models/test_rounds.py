"""Asking in rounds: the order of the questions, what each round asks, and when the harness reports."""

from __future__ import annotations

import hashlib
import json

import pytest
from lm_eval import evaluator

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.models.rounds import FIRST, Decision, asking_in_rounds, hashed_order

NAMES = ("a", "b")


class Task:
    """Stub of a task with 40 questions."""

    @property
    def eval_docs(self):
        return [{"question": number} for number in range(40)]


class Harness:
    """Stub of the harness's `evaluate` that records what it is asked."""

    def __init__(self):
        self.calls = []

    def evaluate(
        self, task_dict, limit=None, samples=None, log_samples=False, bootstrap_iters=100, write_out=True, more="x"
    ):
        self.calls.append({"limit": limit, "samples": samples, "bootstrap_iters": bootstrap_iters, "more": more})
        asked = samples or {name: range(40) for name in NAMES}
        return {"samples": {name: [{"doc_id": index} for index in indices] for name, indices in asked.items()}}


@pytest.fixture
def harness(monkeypatch) -> Harness:
    one = Harness()
    monkeypatch.setattr(evaluator, "evaluate", one.evaluate)
    return one


def run(decide, limit=None):
    tasks = {"tasks": {name: Task() for name in NAMES}, "groups": {"g": object()}}
    with asking_in_rounds(decide):
        return evaluator.evaluate(task_dict=tasks, limit=limit, log_samples=True, more="passed on")


def test_the_order_is_that_of_the_doc_hashes_in_samples_files():
    documents = [{"problem": "é", "n": number} for number in range(50)]
    hashes = [hashlib.sha256(json.dumps(one, indent=2, ensure_ascii=False).encode()).hexdigest() for one in documents]
    assert [hashes[index] for index in hashed_order(documents)] == sorted(hashes)
    assert hashed_order([{"same": 1}] * 3) == [0, 1, 2]


def test_every_round_asks_the_next_of_the_tasks_that_need_more_and_the_last_call_reports_all(harness):
    order, seen = hashed_order(Task().eval_docs), []

    def decide(rows):
        seen.append({name: [row["doc_id"] for row in rows[name]] for name in rows})
        return [Decision({"b": 30}, {"number": 1}), Decision({}, {"number": 2})][len(seen) - 1]

    found = run(decide)
    first, second, last = harness.calls
    assert first["samples"] == dict.fromkeys(NAMES, sorted(order[:FIRST]))
    # What is stored is asked instead of nothing, which the harness takes for everything.
    assert second["samples"] == {"a": order[:1], "b": sorted(order[FIRST:30])}
    assert last["samples"] == {"a": sorted(order[:FIRST]), "b": sorted(order[:30])}
    assert [call["bootstrap_iters"] for call in harness.calls] == [0, 0, 100]
    assert {call["more"] for call in harness.calls} == {"passed on"}
    assert seen[1] == {"a": sorted(order[:FIRST]), "b": sorted(order[:FIRST]) + sorted(order[FIRST:30])}
    assert found["early_stopping"] == {"number": 2}


@pytest.mark.parametrize(("limit", "asked"), [(None, 40), (0.5, 20), (25, 25), (1000, 40)])
def test_if_everything_is_asked_the_report_is_that_of_an_ordinary_run(harness, limit, asked):
    found = run(lambda rows: Decision(dict.fromkeys(NAMES, 2 * len(rows["a"])), {}), limit=limit)
    *rounds, last = harness.calls
    assert (last["limit"], last["samples"]) == (limit, None)
    assert sorted(index for one in rounds for index in one["samples"]["a"]) == list(range(asked))
    assert "early_stopping" not in found


def test_the_harness_is_itself_again(harness):
    before = evaluator.evaluate
    with pytest.raises(ZeroDivisionError), asking_in_rounds(lambda rows: 1 / 0):
        evaluator.evaluate(task_dict={name: Task() for name in NAMES})
    assert evaluator.evaluate == before


def test_a_harness_without_samples_is_named(monkeypatch):
    monkeypatch.setattr(evaluator, "evaluate", lambda lm, task_dict, limit=None: None)
    with pytest.raises(EngineError, match="cannot ask in rounds"), asking_in_rounds(lambda rows: None):
        pass
