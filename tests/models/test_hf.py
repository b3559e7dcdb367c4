"""The adapter with the real bundled model, in this process; the command line is tested in test_end_to_end.py."""

from __future__ import annotations

import copy
import json

import lm_eval
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_pruned.errors import ArgumentError, BudgetError, MissingDataError, UnknownNameError
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.pruning import sequential
from lm_eval_pruned.pruning.artifacts.fingerprint import weights_digest
from lm_eval_pruned.pruning.model.decoder import find_decoder
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.formats import FORMATS
from tests.models.evaluation import needs_metadata


@pytest.fixture(scope="module")
def dense() -> PrunedHFLM:
    return PrunedHFLM("tiny-reasoner", batch_size=16)


def ask(model: PrunedHFLM, *problems: str, **kwargs: object) -> list[Completion]:
    gen_kwargs = {"thinking_token_budget": 64, "max_gen_toks": 32, **kwargs}
    requests = [
        Instance(
            request_type="generate_until", doc={}, arguments=(problem, dict(gen_kwargs)), idx=0, task_name="", doc_id=0
        )
        for problem in problems
    ]
    return model.generate_until(requests)


PROBLEMS = ["a=3;b=a+4;b mod 10?", "a=3;b=a+4;c=b*3;d=c-2;d mod 10?", "h=9;i=h*3;j=i-9;j mod 10?"]
ANSWERS = ["7", "9", "8"]


def test_it_reasons(dense):
    completions = ask(dense, *PROBLEMS)
    assert [completion.answer for completion in completions] == [f"\\boxed{{{answer}}}" for answer in ANSWERS]
    assert completions[0] == "<think>\nb=a+4=3+4=7;\n</think>\n\n\\boxed{7}"
    assert completions[0].thinking_tokens == 13
    assert not any(completion.budget_hit for completion in completions)


def test_prompt_and_response_join_to_the_text_of_the_model(dense):
    """The opening is there once, whether the template has written it or it is written after the prompt."""
    prompt = f"<|im_start|>user\n{PROBLEMS[0]}<|im_end|>\n<|im_start|>assistant\n"
    for given in (PROBLEMS[0], prompt, f"{prompt}<think>\n"):
        request = Instance(
            request_type="generate_until", doc={}, arguments=(given, {"thinking_token_budget": 64, "max_gen_toks": 32}),
            idx=0, task_name="", doc_id=0,
        )  # fmt: skip
        (response,) = dense.generate_until([request])
        assert request.args[0] + response == f"{prompt}<think>\nb=a+4=3+4=7;\n</think>\n\n\\boxed{{7}}"


@pytest.mark.parametrize("budget", [0, 1, 5, 16])
def test_thinking_never_exceeds_the_budget(dense, budget):
    for completion in ask(dense, *PROBLEMS, thinking_token_budget=budget):
        assert completion.thinking_tokens <= budget
        assert len(dense.tok_encode(completion.thinking)) == completion.thinking_tokens
        if completion.budget_hit:
            assert completion.thinking_tokens == budget
            forced = FORMATS["tiny"].close(completion.thinking, forced=True)
            assert completion.startswith(f"<think>\n{completion.thinking}{forced}")


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 7}], ids=["greedy", "sampled"])
def test_a_text_does_not_depend_on_its_batch(dense, sampling):
    together = ask(dense, *PROBLEMS, **sampling)
    alone = [ask(dense, problem, **sampling)[0] for problem in reversed(PROBLEMS)][::-1]
    assert together == alone


def test_samples_of_one_prompt_differ_and_come_again(dense):
    first = ask(dense, *[PROBLEMS[1]] * 8, temperature=3.0, seed=7)
    assert len(set(first)) > 1
    assert first == ask(dense, *[PROBLEMS[1]] * 8, temperature=3.0, seed=7)
    assert first != ask(dense, *[PROBLEMS[1]] * 8, temperature=3.0, seed=8)


def test_until_ends_the_answer_but_not_the_thinking(dense):
    (completion,) = ask(dense, PROBLEMS[0], until=["=3", "7"])
    assert completion.thinking == "b=a+4=3+4=7;\n"
    assert completion.answer == "\\boxed{"
    assert not completion.answer_cut


def test_the_answer_room_is_the_answers_alone(dense):
    (completion,) = ask(dense, PROBLEMS[0], max_gen_toks=3)
    assert (completion.answer, completion.answer_cut) == ("\\bo", True)


def test_s1_markers_are_single_tokens_here_too():
    model = PrunedHFLM("tiny-reasoner", thinking="s1", batch_size=4)
    (completion,) = ask(model, PROBLEMS[0], thinking_token_budget=4)
    assert completion.startswith("<|im_start|>think" + completion.thinking)
    assert completion.thinking_tokens <= 4


def test_markers_of_several_tokens_end_the_thinking(dense):
    (completion,) = ask(dense, PROBLEMS[1], until_thinking="=7;c")
    assert completion.thinking == "b=a+4=3+4"
    assert completion.thinking_tokens == 9


def test_a_prompt_that_went_through_the_template_is_not_wrapped_again(dense):
    templated = dense.apply_chat_template([{"role": "user", "content": PROBLEMS[0]}])
    assert ask(dense, templated) == ask(dense, PROBLEMS[0])


def test_the_template_can_be_turned_off(dense):
    bare = PrunedHFLM("tiny-reasoner", auto_chat_template=False, batch_size=4)
    assert ask(bare, PROBLEMS[0]) != ask(dense, PROBLEMS[0])


def test_a_budget_beyond_the_context_is_refused(dense):
    with pytest.raises(BudgetError, match=r"thinking_token_budget=2000 does not fit: .* context 1024"):
        ask(dense, PROBLEMS[0], thinking_token_budget=2000)


def test_one_budget_that_does_not_fit_is_found_before_any_generation(dense, monkeypatch):
    monkeypatch.setattr(TransformersBackend, "run", lambda *_: pytest.fail("something was generated"))
    requests = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(PROBLEMS[0], {"thinking_token_budget": budget}),
            idx=0,
            task_name="",
            doc_id=0,
        )
        for budget in (16, 2000)
    ]
    with pytest.raises(BudgetError):
        dense.generate_until(requests)


def test_plain_requests_are_the_parents(dense):
    parent = HFLM(str(dense.pretrained), batch_size=4, device="cpu")
    requests = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(problem, {"until": ["\n"], "max_gen_toks": 8}),
            idx=0,
            task_name="",
            doc_id=0,
        )
        for problem in PROBLEMS
    ]
    assert dense.generate_until(requests, disable_tqdm=True) == parent.generate_until(requests, disable_tqdm=True)
    pairs = [
        Instance(request_type="loglikelihood", doc={}, arguments=("a=3;b=", text), idx=0, task_name="", doc_id=0)
        for text in ("a+4", "zz")
    ]
    assert dense.loglikelihood(pairs, disable_tqdm=True) == parent.loglikelihood(pairs, disable_tqdm=True)


def test_plain_and_budgeted_requests_keep_their_places(dense):
    plain = Instance(
        request_type="generate_until",
        doc={},
        arguments=("a=3;b=", {"until": [";"], "max_gen_toks": 4}),
        idx=0,
        task_name="",
        doc_id=0,
    )
    budgeted = Instance(
        request_type="generate_until",
        doc={},
        arguments=(PROBLEMS[0], {"thinking_token_budget": 64}),
        idx=0,
        task_name="",
        doc_id=0,
    )
    results = dense.generate_until([budgeted, plain, budgeted])
    assert [isinstance(result, Completion) for result in results] == [True, False, True]


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_pruning_happens_at_load_and_is_reported(method):
    model = PrunedHFLM("tiny-reasoner", method=method, sparsity=0.2, batch_size=4)
    pruning = model.get_model_info()["pruning"]
    weights = [module.weight for module in model.model.model.layers.modules() if isinstance(module, torch.nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert pruning["zero_weights"] == zeros
    assert pruning["achieved_sparsity"] == zeros / sum(weight.numel() for weight in weights)
    assert 0.19 < pruning["achieved_sparsity"] <= 0.2
    json.dumps(pruning)


def test_simple_evaluate_by_name():
    results = lm_eval.simple_evaluate(
        model="pruned-hf",
        model_args={"pretrained": "tiny-reasoner", "method": "wanda", "sparsity": 0.2},
        tasks=["tiny_tts_32"],
        batch_size=8,
        limit=8,
        bootstrap_iters=0,
    )
    assert results["results"]["tiny_tts_32"]["acc,none"] == 1.0
    assert results["config"]["pruning"]["target_sparsity"] == 0.2
    assert results["config"]["thinking"] == "tiny"
    sample = results["samples"]["tiny_tts_32"][0]
    assert sample["thinking_tokens"] == 13
    assert "</think>" in sample["resps"][0][0]


@needs_metadata
def test_several_samples_a_question():
    results = lm_eval.simple_evaluate(
        model="pruned-hf",
        model_args={"pretrained": "tiny-reasoner"},
        tasks=["tiny_tts_32"],
        gen_kwargs="temperature=2.0,do_sample=True",
        metadata={"num_samples": 3},
        batch_size=16,
        limit=8,
        bootstrap_iters=0,
    )
    metrics = results["results"]["tiny_tts_32"]
    assert metrics["pass@3,none"] >= metrics["acc,none"]
    assert "maj@3,none" in metrics
    drawn = [sample["resps"][0] for sample in results["samples"]["tiny_tts_32"]]
    assert {len(responses) for responses in drawn} == {3}
    assert any(len(set(responses)) > 1 for responses in drawn)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": 1.5, "method": "wanda"}, ArgumentError, "sparsity=1.5"),
        ({"method": "wandaa", "sparsity": 0.2}, UnknownNameError, "unknown method 'wandaa': did you mean 'wanda'"),
        ({"method": "wanda", "sparsity": 0.2, "alloc": "owll"}, UnknownNameError, "unknown alloc 'owll'"),
        ({"methd": "wanda"}, ArgumentError, "unknown model argument 'methd': did you mean 'method'"),
        ({"strange": 1}, ArgumentError, "unknown model argument 'strange'"),
        ({"method": "wanda", "sparsity": 0.2, "calib": "/nowhere.jsonl"}, MissingDataError, "calib=/nowhere.jsonl"),
        ({"thinking": "qwen4"}, UnknownNameError, "unknown thinking 'qwen4'"),
        ({"method": "magnitude", "sparsity": 0.2, "peft": "an/adapter"}, ArgumentError, "merge the adapter"),
        (
            {"method": "none", "tp_plan": "auto"},
            ArgumentError,
            "tp_plan=auto splits .* tensor_parallel_size=N|unknown .* 'tp_plan'",
        ),
    ],
)
def test_mistakes_are_found_before_the_weights(monkeypatch, arguments, error, message):
    monkeypatch.setattr(PrunedHFLM, "_create_model", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(error, match=message):
        PrunedHFLM("tiny-reasoner", **arguments)


def test_a_second_load_reads_the_artifact(tmp_path, monkeypatch):
    arguments = {"method": "wanda", "sparsity": 0.3, "artifacts": str(tmp_path)}
    first = PrunedHFLM("tiny-reasoner", **arguments)
    monkeypatch.setattr(sequential, "calibrate", lambda *_, **__: pytest.fail("something was calibrated"))
    second = PrunedHFLM("tiny-reasoner", **arguments)
    assert second.report.fingerprint == first.report.fingerprint
    assert weights_digest(find_decoder(second.model)) == weights_digest(find_decoder(first.model))
    with pytest.raises(pytest.fail.Exception, match="something was calibrated"):
        PrunedHFLM("tiny-reasoner", **{**arguments, "artifacts": "off"})


def test_it_calibrates_on_its_own_chains_of_thought(tmp_path, monkeypatch):
    arguments = {
        "method": "wanda", "sparsity": 0.5, "calib": "traces", "calib_samples": 6, "calib_seqlen": 128,
        "artifacts": str(tmp_path),
    }  # fmt: skip
    first = PrunedHFLM("tiny-reasoner", batch_size=4, **arguments)
    assert first.report.config["calib"] == "traces"
    assert PrunedHFLM("tiny-reasoner", method="wanda", sparsity=0.5).report.fingerprint != first.report.fingerprint
    # On another batch size the same windows are meant, and they need not be written again.
    monkeypatch.setattr(TransformersBackend, "run", lambda *_: pytest.fail("traces were written again"))
    second = PrunedHFLM("tiny-reasoner", batch_size=1, **arguments)
    assert weights_digest(find_decoder(second.model)) == weights_digest(find_decoder(first.model))


@pytest.mark.parametrize("pretrained", ["/nowhere", "./nowhere", "org/not-in-the-cache"])
def test_a_model_that_is_not_there(pretrained):
    with pytest.raises(MissingDataError, match=f"pretrained={pretrained} "):
        PrunedHFLM(pretrained)


def test_arguments_of_the_parent_and_of_the_config_still_work():
    model = PrunedHFLM("tiny-reasoner", dtype="bfloat16", max_length=512, rms_norm_eps=1e-5, batch_size=2)
    assert model.model.dtype == torch.bfloat16
    assert model.max_length == 512
    assert model.model.config.rms_norm_eps == 1e-5


def test_a_model_given_as_an_object(dense):
    given = {"tokenizer": dense.tokenizer, "method": "magnitude", "artifacts": "off"}
    model = copy.deepcopy(dense.model)
    assert PrunedHFLM(model, sparsity=0.2, **given).report.achieved_sparsity == pytest.approx(0.2, abs=1e-3)
    with pytest.raises(ArgumentError, match="unknown model argument 'sparsty': did you mean 'sparsity'"):
        PrunedHFLM(model, sparsity=0.2, sparsty=0.9, **given)
    with pytest.raises(
        ArgumentError, match="model argument ' exclude' has blanks: write 'exclude' right after the comma"
    ):
        PrunedHFLM(model, sparsity=0.2, **given, **{" exclude": "x"})
    with pytest.raises(ValueError, match="many"):
        PrunedHFLM(model, sparsity=0.2, batch_size="many", **given)
