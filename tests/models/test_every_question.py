"""Shared traces on whole benchmarks: each text equals that of a run at its budget alone, except for tied tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.models.hf import PrunedHFLM
from tests.models.evaluation import ask

pytestmark = pytest.mark.slow

# The order of two logits closer than this may depend on the other rows of the batch.
TIE = 1e-4


def check(model: PrunedHFLM, problems: Sequence[str], budgets: Sequence[int]) -> None:
    together = ask(model, problems, budgets)
    alone = [completion for budget in budgets for completion in ask(model, problems, [budget])]
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        if one != other:
            gap = gap_at_first_difference(model, problems[index % len(problems)], one, other)
            print(f"question {index % len(problems)}, budget {budgets[index // len(problems)]}: logits {gap:.1e} apart")
            assert gap < TIE
        else:
            assert (one.thinking_tokens, one.answer_tokens) == (other.thinking_tokens, other.answer_tokens)
    assert {one.thinking_finish for one in together} >= {"budget"}


def gap_at_first_difference(model: PrunedHFLM, problem: str, one: str, other: str) -> float:
    """Return the difference of the two largest logits at the first token in which two texts differ."""
    prompt = model.apply_chat_template([{"role": "user", "content": problem}])
    first, second = (model.tok_encode(prompt + text) for text in (one, other))
    common = next(index for index, (left, right) in enumerate(zip(first, second, strict=False)) if left != right)
    with torch.inference_mode():
        logits = model.model(torch.tensor([first[:common]], device=model.device)).logits[0, -1]
    best, next_best = logits.topk(2).values.tolist()
    return float(best - next_best)


# The smaller the batches, the more of them: the smallest get a part of the questions.
@pytest.mark.parametrize(("batch_size", "every"), [(64, 1), (7, 2), (1, 4)])
def test_all_questions_of_the_bundled_benchmark(batch_size, every):
    model = PrunedHFLM("tiny-reasoner", batch_size=batch_size, dtype="float32")
    check(model, [chain.problem for chain in benchmark_chains()][::every], (16, 32, 64, 128, 256))


def test_ten_questions_of_aime_on_a_pretrained_model(smollm2: Path, data_folder: Path):
    rows = (data_folder / "aime24.jsonl").read_text(encoding="utf-8").splitlines()[:10]
    model = PrunedHFLM(str(smollm2), batch_size=10, dtype="float32", thinking="qwen3")
    check(model, [json.loads(row)["problem"] for row in rows], (64, 128, 256))
