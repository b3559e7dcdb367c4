"""Sharing one thinking trace among budgets gives the texts of a run at each budget alone."""

from __future__ import annotations

import pytest

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.progress import Progress
from lm_eval_pruned.reasoning.requests import Row
from tests.models.evaluation import ask

BUDGETS = (16, 32, 64, 128, 256)
PROBLEMS = [chain.problem for chain in benchmark_chains()]


@pytest.fixture(scope="module")
def model() -> PrunedHFLM:
    return PrunedHFLM("tiny-reasoner", batch_size=64)


def comparable(completions: list[Completion]) -> list[tuple[object, ...]]:
    return [(str(one), one.thinking_tokens, one.answer_tokens, one.budget_hit, one.answer_cut) for one in completions]


@pytest.mark.parametrize(
    ("batch_size", "problems"), [(64, PROBLEMS[::8]), (7, PROBLEMS[::16]), (1, PROBLEMS[::50])], ids=["64", "7", "1"]
)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 7}], ids=["greedy", "sampled"])
def test_the_texts_are_those_of_each_budget_alone(model, batch_size, problems, sampling):
    model.batch_size_per_gpu = batch_size
    together = ask(model, problems, BUDGETS, **sampling)
    alone = [one for budget in BUDGETS for one in ask(model, problems, (budget,), **sampling)]
    assert comparable(together) == comparable(alone)
    assert any(one.budget_hit for one in together)
    assert any(not one.budget_hit for one in together)


def test_several_budgets_cost_little_more_than_the_largest(model, monkeypatch):
    model.batch_size_per_gpu = 64
    tokens: list[int] = []
    monkeypatch.setattr(Progress, "add_tokens", lambda _, row: tokens.append(row))
    generated = {}
    for name, budgets in (("together", BUDGETS), ("largest", BUDGETS[-1:])):
        tokens.clear()
        ask(model, PROBLEMS[::4], budgets)
        generated[name] = len(tokens)
    assert generated["together"] <= 1.3 * generated["largest"]


def test_sharing_can_be_turned_off(monkeypatch):
    unshared = PrunedHFLM("tiny-reasoner", batch_size=8, share_traces=False)
    asked: list[Row] = []
    run = TransformersBackend.run
    monkeypatch.setattr(TransformersBackend, "run", lambda self, rows: (asked.extend(rows), run(self, rows)))
    ask(unshared, PROBLEMS[:1], (16, 64))
    assert [(row.max_new_tokens, row.checkpoints) for row in asked] == [(16, ()), (64, ())]
