"""What a run of the harness is refused for before a weight is loaded."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import lm_eval
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, OpenAIGPTConfig

from lm_eval_pruned.errors import ArgumentError, BudgetError, PrunedEvalError
from lm_eval_pruned.models.before_loading import (
    Generation,
    Limits,
    check_aliases,
    check_generation,
    context_of,
    names_of_transformers,
)
from lm_eval_pruned.paths import tasks_folder
from tests.models.evaluation import needs_metadata

LIMITS = Limits(context=1000, names=names_of_transformers())
BUDGET = {"thinking_token_budget": 100}


@pytest.fixture
def no_weights(monkeypatch):
    """Fail a test in which a model is loaded."""

    def load(*args: object, **kwargs: object) -> None:
        pytest.fail("weights were loaded")

    monkeypatch.setattr(HFLM, "_create_model", load)


def run(**given: object) -> object:
    """Evaluate as a user does, with our tasks and those of `folders`, as the harness takes seconds to index its own."""
    model_args = {"pretrained": "tiny-reasoner", **given.pop("model_args", {})}
    folders = [str(tasks_folder()), *given.pop("folders", [])]
    manager = TaskManager(include_path=folders, include_defaults=False, metadata=given.pop("metadata", None) or {})
    settings = {"model": "pruned-hf", "tasks": ["tiny_tts_16"], "model_args": model_args, "task_manager": manager}
    return lm_eval.simple_evaluate(**{**settings, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gen_kwargs": {"temprature": 0.7}}, "tiny_tts_16: unknown generation kwarg 'temprature': did you mean 'temp"),
        ({"gen_kwargs": "top_p=2"}, "top_p=2.0: give 0 < top_p <= 1"),
        ({"gen_kwargs": {"stop": ["\n\n"]}}, "stop texts are called until"),
        ({"gen_kwargs": "thinking_token_budget=1023"}, "thinking_token_budget=1023 does not fit: the context of 1024"),
        ({"gen_kwargs": {"thinking_token_budget": 9, "max_tokens_thinking": 8}}, "are one setting"),
        ({"gen_kwargs": {"thinking_token_budget": 300}, "model_args": {"max_length": 200}}, "context of 200 tokens"),
        ({"model_args": {"method": "shortgpt", "num_blocks": 7}}, "num_blocks=7 drops 7 of the model's 5 blocks"),
        ({"model_args": {"method": "magnitude", "pattern": "3:5"}}, "do not divide into groups of 5"),
        ({"cache_requests": True}, "--cache_requests finds the requests of a task by its name"),
        ({"use_cache": "answers"}, "--use_cache finds an answer by its request"),
        ({"limit": 0}, "limit=0 asks no question"),
        ({"model_args": {"method": "wanda"}}, "method=wanda needs a sparsity"),
    ],
)
def test_a_mistake_is_refused_before_weights_are_loaded(no_weights, given, message):
    with pytest.raises(PrunedEvalError) as error:
        run(**given)
    assert message in str(error.value)


@needs_metadata
def test_samples_of_greedy_decoding_are_refused_before_weights_are_loaded(no_weights):
    with pytest.raises(ArgumentError, match="num_samples=3 would give the same text 3 times"):
        run(metadata={"num_samples": 3})


def test_kwargs_of_a_task_of_the_harness_are_checked_too(no_weights, tmp_path):
    for name, kwargs in (("plain", {}), ("effort", {"reasoning_effort": "high"})):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(_own_task(name, **kwargs)), encoding="utf-8")
    with pytest.raises(ArgumentError, match="unknown generation kwarg 'max_thinking_tokens': the most thinking tokens"):
        run(tasks=["plain"], folders=[str(tmp_path)], gen_kwargs={"max_thinking_tokens": 64})
    with pytest.raises(ArgumentError, match="'reasoning_effort': thinking is limited in tokens"):
        run(tasks=["effort"], folders=[str(tmp_path)])


def _own_task(name: str, **generation_kwargs: object) -> dict[str, object]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path(__file__).parents[1] / "cases" / "equal.jsonl")}},
        "test_split": "test",
        "doc_to_text": "1+1?",
        "doc_to_target": "2",
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], **generation_kwargs},
        "metric_list": [{"metric": "exact_match"}],
    }


def test_a_seed_of_the_harness_that_decides_nothing_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="lm_eval_pruned"):
        results = [run(gen_kwargs="temperature=1.0,seed=5", random_seed=seed, limit=2) for seed in (1, 2)]
    assert caplog.text.count("--seed decides no text here: samples are drawn with seed=5") == 2
    assert [one["config"]["sampling_seeds"] for one in results] == [[5], [5]]
    texts = [[sample["resps"] for sample in one["samples"]["tiny_tts_16"]] for one in results]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("kwargs", "samples", "message"),
    [
        ({**BUDGET, "thinking_token_budget": 999}, 1, "use a budget below 998"),
        ({"thinking_token_budget": "auto", "max_gen_toks": 999}, 1, "leaves no room for thinking"),
        ({**BUDGET, "temperature": 1.0, "top_k": 1}, 4, "num_samples=4"),
        ({**BUDGET, "temperature": 0.7, "do_sample": False}, 2, "num_samples=2"),
        ({"temperature": -1}, 1, "temperature=-1.0"),
        ({"temperture": 1}, 1, "did you mean 'temperature'"),
        ({"stop": "x"}, 1, "called until"),
        ({"n": 4}, 1, "num_samples"),
        ({"max_new_tokens": 0}, 1, "max_new_tokens=0"),
    ],
)
def test_wrong_generation_is_refused(kwargs, samples, message):
    with pytest.raises((ArgumentError, BudgetError)) as error:
        check_generation(Generation("t", kwargs, samples), LIMITS)
    assert message in str(error.value)
    assert str(error.value).startswith("t: ")


@pytest.mark.parametrize(
    ("kwargs", "samples"),
    [
        (BUDGET, 1),
        ({**BUDGET, "temperature": 1.0}, 4),
        ({**BUDGET, "temperature_thinking": 0.6}, 4),
        ({**BUDGET, "max_gen_toks": 5000}, 1),
        ({"max_new_tokens": 256, "do_sample": "false", "num_beams": 1, "repetition_penalty": 1.1}, 1),
        ({"temperature": 0.0, "do_sample": False, "until": ["\n\n", "</s>"]}, 2),
    ],
)
def test_right_generation_passes(kwargs, samples):
    check_generation(Generation("t", kwargs, samples), LIMITS)


def test_what_only_vllm_knows_passes_where_vllm_cannot_be_asked():
    check_generation(Generation("t", {"presence_penalty": 1.5, "min_tokens": 4}, 1), Limits())
    with pytest.raises(ArgumentError, match="presence_penalty"):
        check_generation(Generation("t", {"presence_penalty": 1.5}, 1), LIMITS)


def test_a_budget_is_refused_for_a_model_without_a_cache(no_weights, tmp_path):
    OpenAIGPTConfig(n_layer=1, n_embd=8, n_head=1, vocab_size=300).save_pretrained(tmp_path)
    with pytest.raises(BudgetError, match="OpenAIGPTLMHeadModel keeps no KV cache"):
        run(model_args={"pretrained": str(tmp_path)})


class _Loader(yaml.SafeLoader):
    """Reads the harness's task files without the functions that they name."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def test_no_task_of_the_harness_is_refused():
    folder = Path(lm_eval.__file__).parent / "tasks"
    count = 0
    for file in [*folder.rglob("*gsm8k*yaml"), *folder.rglob("*math*yaml"), *folder.rglob("*aime*yaml")]:
        content = yaml.load(file.read_text(), _Loader)
        if isinstance(content, dict) and isinstance(content.get("generation_kwargs"), dict):
            count += 1
            check_generation(Generation(file.name, content["generation_kwargs"], 1), LIMITS)
    assert count > 5


def test_the_context_is_that_of_arguments_or_config():
    config = LlamaConfig(max_position_embeddings=4096)
    assert context_of(config, {}) == 4096
    assert context_of(config, {"max_length": 512}) == 512
    assert context_of(config, {"max_model_len": "8192"}) == 8192
    longer = LlamaConfig(
        max_position_embeddings=4096, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    )
    assert (context_of(longer, {}), context_of(longer, {}, is_vllm=True)) == (4096, None)


def test_aliases_with_one_value_pass():
    check_aliases({"max_tokens_thinking": 8, "thinking_token_budget": 8})
