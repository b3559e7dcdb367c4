"""`pruned-vllm` generates the texts of `pruned-hf`: the same thinking under the same budgets, and the same answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.backends.vllm import VLLMBackend
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.requests import Row
from lm_eval_pruned.reasoning.response_store import ResponseStore

SETTINGS = {"method": "wanda", "sparsity": 0.2}
PROBLEMS = [chain.problem for chain in benchmark_chains()][::20]
SAMPLED = {"temperature": 2.0, "top_p": 0.95, "seed": 7}
BUDGETS = (0, 16, 32, 64, 128)


def ask(model, problems, budgets, *, samples: int = 1, **kwargs: object) -> list[Completion]:
    return model.generate_until(
        [
            Instance(
                request_type="generate_until",
                doc={},
                arguments=(problem, {"thinking_token_budget": budget, "max_gen_toks": 16, **kwargs}),
                idx=0,
                task_name="",
                doc_id=0,
            )
            for budget in budgets
            for problem in problems
            for _ in range(samples)
        ]
    )


def as_dicts(completions: list[Completion]) -> list[dict[str, object]]:
    return [one.as_dict() for one in completions]


@pytest.fixture(scope="module")
def both(artifacts):
    from lm_eval_pruned.models.vllm.compatibility import stop_engine
    from lm_eval_pruned.models.vllm.model import PrunedVLLM
    from tests.vllm.conftest import ENGINE

    with_vllm = PrunedVLLM("tiny-reasoner", artifacts=str(artifacts), **ENGINE, **SETTINGS)
    yield PrunedHFLM("tiny-reasoner", dtype="float32", artifacts=str(artifacts), batch_size=16, **SETTINGS), with_vllm
    stop_engine(with_vllm.model)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"thinking_n_ignore": 1},
        {"thinking_n_ignore": 2, "thinking_n_ignore_str": " Wait, 1"},
        {"min_tokens_thinking": 16},
        {"until_thinking": "= 1"},
        {"thinking_end": ".\n\nThe answer is "},
        {"until": ["9", "boxed"]},
        {"max_gen_toks": 3},
    ],
    ids=str,
)
def test_greedy_texts_are_equal(both, kwargs):
    hf, vllm = both
    budgets = [budget for budget in BUDGETS if budget >= kwargs.get("min_tokens_thinking", 0)]
    expected = as_dicts(ask(hf, PROBLEMS, budgets, **kwargs))
    assert as_dicts(ask(vllm, PROBLEMS, budgets, **kwargs)) == expected
    assert len({one["thinking_finish"] for one in expected}) == 2


def test_the_largest_log_probabilities_of_prompts_are_those_of_transformers(both):
    """What `diverge --backend vllm` compares, with the engine's own limit of 20."""
    from lm_eval_pruned.models.vllm.diverge import largest_logprobs

    hf, vllm = both
    drawn = torch.randint(264, (10, 40), generator=torch.Generator().manual_seed(0))
    traces = [
        TokenTrace(question=str(place), ids=tuple(row[: 40 - place].tolist()), start=1 + 3 * place, thinking=1)
        for place, row in enumerate(drawn)
    ]
    found = largest_logprobs(vllm, traces, 20, name="dense")
    with torch.no_grad():
        logps = torch.cat(
            [
                hf.model(torch.tensor([trace.ids])).logits[0, trace.start - 1 : -1].float().log_softmax(-1)
                for trace in traces
            ]
        )
    following = torch.tensor([token for trace in traces for token in trace.ids[trace.start :]])
    np.testing.assert_allclose(found.following, logps.gather(1, following[:, None])[:, 0], atol=1e-3)
    np.testing.assert_allclose(found.logps, logps.topk(20).values, atol=1e-3)
    # Tokens in the order of vLLM, of which some are as likely as each other.
    np.testing.assert_allclose(found.logps, logps.gather(1, torch.tensor(found.ids).long()), atol=1e-3)


def test_budgets_share_one_trace(both, monkeypatch):
    generated: list[tuple[bool, int]] = []
    original = VLLMBackend._generated

    def count(self: VLLMBackend, row: Row, output):
        generated.append((bool(row.checkpoints), len(output.outputs[0].token_ids)))
        return original(self, row, output)

    monkeypatch.setattr(VLLMBackend, "_generated", count)
    _, vllm = both
    problems = [chain.problem for chain in benchmark_chains()]
    largest = ask(vllm, problems, [256])
    tokens = sum(tokens for _, tokens in generated)
    generated.clear()
    group = ask(vllm, problems, [16, 32, 64, 128, 256])
    assert sum(shared for shared, _ in generated) == len(problems)
    assert sum(tokens for _, tokens in generated) <= 1.3 * tokens
    assert as_dicts(group[-len(problems) :]) == as_dicts(largest)


class TestSampling:
    def test_samples_differ_and_are_reproducible(self, both):
        _, vllm = both
        first = ask(vllm, PROBLEMS, [64], samples=8, **SAMPLED)
        assert len({*map(str, first)}) > len(PROBLEMS)
        assert as_dicts(ask(vllm, PROBLEMS, [64], samples=8, **SAMPLED)) == as_dicts(first)

    def test_another_seed_gives_other_samples(self, both):
        _, vllm = both
        assert ask(vllm, PROBLEMS, [64], temperature=1.5, seed=7) != ask(vllm, PROBLEMS, [64], temperature=1.5, seed=8)

    def test_a_text_does_not_depend_on_its_batch(self, both):
        _, vllm = both
        among = ask(vllm, PROBLEMS, [16, 64], **SAMPLED)
        alone = [ask(vllm, [problem], [64], **SAMPLED)[0] for problem in PROBLEMS]
        assert as_dicts(alone) == as_dicts(among[len(PROBLEMS) :])

    def test_top_k_of_one_is_greedy(self, both):
        _, vllm = both
        sampled = ask(vllm, PROBLEMS, [64], temperature=1.0, top_k=1)
        assert as_dicts(sampled) == as_dicts(ask(vllm, PROBLEMS, [64]))

    def test_an_extension_has_its_own_seed(self, both, monkeypatch):
        seeds = []
        original = VLLMBackend._params

        def keep(self: VLLMBackend, row: Row):
            params = original(self, row)
            seeds.append(params.seed)
            return params

        monkeypatch.setattr(VLLMBackend, "_params", keep)
        _, vllm = both
        ask(vllm, PROBLEMS[:1], [256], thinking_n_ignore=2, **SAMPLED)
        assert len(seeds) == len({*seeds}) == 4


class TestStore:
    def test_answers_are_stored_as_they_finish(self, both, tmp_path, monkeypatch):
        """After a full disk at the fourth answer, three are stored and the engine generates only the rest."""
        _, vllm = both
        expected = as_dicts(ask(vllm, PROBLEMS, BUDGETS))
        monkeypatch.setattr(type(vllm), "_store", tmp_path)
        put, stored = ResponseStore.put, []

        def put_three(self: ResponseStore, request, completion):
            if len(stored) == 3:
                raise OSError(28, "No space left on device")
            stored.append(completion)
            put(self, request, completion)

        with monkeypatch.context() as full:
            full.setattr(ResponseStore, "put", put_three)
            with pytest.raises(OSError, match="No space left"):
                ask(vllm, PROBLEMS, BUDGETS)
        rows: list[Row] = []
        run = VLLMBackend.run
        monkeypatch.setattr(VLLMBackend, "run", lambda self, given: (rows.extend(given), run(self, given)))
        assert as_dicts(ask(vllm, PROBLEMS, BUDGETS)) == expected
        wanted = len(BUDGETS) * len(PROBLEMS)
        assert sum(len(row.checkpoints) + 1 for row in rows) <= wanted - 3 + len(PROBLEMS)
        rows.clear()
        assert as_dicts(ask(vllm, PROBLEMS, BUDGETS)) == expected
        assert not rows


def test_a_budget_beyond_the_context_is_refused(both):
    _, vllm = both
    with pytest.raises(BudgetError, match="the context 1024: use a budget of at most"):
        ask(vllm, PROBLEMS, [1024])
