"""vLLM engines with dropped blocks, without an artifact cache, with several processes, and for ordinary requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.api.instance import Instance

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.models.hf import PrunedHFLM
from tests.vllm.test_texts import as_dicts, ask

PROBLEMS = [chain.problem for chain in benchmark_chains()][::40]
BUDGETS = (16, 64)
SHORT = {"method": "shortgpt", "num_blocks": 1}


def hf(**arguments: object) -> PrunedHFLM:
    return PrunedHFLM("tiny-reasoner", dtype="float32", batch_size=8, **arguments)


@pytest.mark.parametrize("settings", [SHORT, {"method": "width", "sparsity": 0.25}], ids=["blocks", "channels"])
def test_what_is_taken_out(start, artifacts, settings):
    vllm = start("tiny-reasoner", **settings)
    assert vllm.model_args["model"] == str(artifacts / f"{vllm.report.fingerprint}.checkpoint")
    assert 0 < vllm.report.remaining_weights < vllm.report.model_weights
    assert as_dicts(ask(vllm, PROBLEMS, BUDGETS)) == as_dicts(ask(hf(**settings), PROBLEMS, BUDGETS))


def test_an_adapter_is_refused_before_an_engine_starts(start):
    with pytest.raises(ArgumentError, match="lora_local_path=an/adapter would add to the weights"):
        start("tiny-reasoner", method="magnitude", sparsity=0.2, lora_local_path="an/adapter")


def test_without_an_artifact_cache_no_file_remains(start):
    settings = {"method": "sparsegpt", "sparsity": 0.5}
    vllm = start("tiny-reasoner", artifacts="off", **settings)
    folder = Path(vllm.model_args["model_loader_extra_config"]["lm_eval_pruned"]["artifact"]).parent
    assert as_dicts(ask(vllm, PROBLEMS, BUDGETS)) == as_dicts(ask(hf(**settings), PROBLEMS, BUDGETS))
    vllm._folder()
    assert not folder.exists()


def run_ordinary_requests(model) -> tuple[list, list]:
    pairs = [(f"a={digit};b=a+1;b mod 10?", f" {digit + 1}") for digit in range(8)]
    scored = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0, task_name="", doc_id=0) for pair in pairs
    ]
    until = {"until": [";", "\n\n"], "max_gen_toks": 12, "do_sample": False}
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=(text, {**until}), idx=0, task_name="", doc_id=0)
        for text, _ in pairs
    ]
    return model.loglikelihood(scored), model.generate_until(asked)


def test_ordinary_requests_give_the_results_of_the_harness(start):
    from lm_eval_pruned.models.vllm.compatibility import harness_class, stop_engine
    from tests.vllm.conftest import ENGINE

    ours = start("tiny-reasoner")
    pretrained = ours.model_args["model"]
    scores, texts = run_ordinary_requests(ours)
    stop_engine(ours.model)
    theirs = harness_class()(pretrained, **ENGINE)
    expected_scores, expected_texts = run_ordinary_requests(theirs)
    stop_engine(theirs.model)
    assert texts == expected_texts
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected_scores]
    assert [score for score, _ in scores] == pytest.approx([score for score, _ in expected_scores], abs=1e-4)


def test_two_shards(start):
    """With tensor parallelism each of two workers holds half of every pruned matrix."""
    settings = {"method": "wanda", "sparsity": 0.2}
    vllm = start("tiny-reasoner", tensor_parallel_size=2, **settings)
    expected = as_dicts(ask(hf(**settings), PROBLEMS[:2], BUDGETS[:1]))
    assert as_dicts(ask(vllm, PROBLEMS[:2], BUDGETS[:1])) == expected


def test_two_replicas(monkeypatch):
    """Ray assigns a GPU to each replica: it is told that there are two, and the engines run without one."""
    from lm_eval_pruned.models.vllm.model import PrunedVLLM
    from tests.vllm.conftest import ENGINE

    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 2}')
    settings = {"method": "wanda", "sparsity": 0.2}
    vllm = PrunedVLLM("tiny-reasoner", data_parallel_size=2, max_model_len=512, **ENGINE, **settings)
    answers = as_dicts(ask(vllm, PROBLEMS[:2], BUDGETS[:1]))
    assert answers == as_dicts(ask(hf(max_length=512, **settings), PROBLEMS[:2], BUDGETS[:1]))
