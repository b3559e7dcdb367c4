"""Benchmark tasks: settings, prompts and metrics."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import stderr_for_metric
from lm_eval.tasks import TaskManager

from lm_eval_pruned._harness import add_task_folder
from lm_eval_pruned.errors import ArgumentError, PrunedEvalError
from lm_eval_pruned.models.task import BudgetedTask, Extracted, question_metrics
from lm_eval_pruned.paths import tasks_folder
from lm_eval_pruned.reasoning.completion import Answer, Completion, Thinking
from tests.models.evaluation import needs_metadata

BUDGETS = (512, 1024, 2048, 4096, 8192)
BENCHMARKS = {"aime24": 30, "math500": 500, "amc23": 40, "gpqa_diamond": 198}


def response(answer: str, *, thinking: str = "hm", budget_hit: bool = False, finish: str = "stop") -> Completion:
    return Completion.build(
        f"<think>\n{thinking}</think>\n\n{answer}",
        thinking=Thinking(thinking, len(thinking), "budget" if budget_hit else "closed"),
        answer=Answer(answer, len(answer), finish),
    )


def load(manager: TaskManager, *names: str) -> dict[str, BudgetedTask]:
    """Load tasks with the current interface of the harness, or with that of its oldest supported release."""
    if hasattr(manager, "load"):
        return manager.load([*names])["tasks"]
    return flatten(manager.load_task_or_group([*names]))


def flatten(groups: dict[object, object]) -> dict[str, BudgetedTask]:
    tasks = {}
    for name, one in groups.items():
        tasks.update(flatten(one) if isinstance(one, dict) else {name: one})
    return tasks


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    add_task_folder()
    return TaskManager(metadata={})


def test_all_tasks_are_registered(manager):
    names = {f"{benchmark}_tts" for benchmark in BENCHMARKS} | {"tts", "tiny_tts"}
    names |= {f"{benchmark}_tts_{budget}" for benchmark in BENCHMARKS for budget in BUDGETS}
    names |= {f"tiny_tts_{budget}" for budget in (16, 32, 64, 128, 256)}
    for name in ("arith_tts", "parens_tts"):
        names |= {name, *(f"{name}_{budget}" for budget in (128, 256, 512, 1024, 2048))}
    assert names <= set(manager.all_tasks)
    assert len(list(tasks_folder().rglob("*.yaml"))) == len(names)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_benchmarks_use_the_settings_of_the_paper(manager, data_folder, monkeypatch, benchmark):
    monkeypatch.setenv("LM_EVAL_PRUNED_DATA", str(data_folder))
    loaded = load(manager, f"{benchmark}_tts")
    assert list(loaded) == [f"{benchmark}_tts_{budget}" for budget in BUDGETS]
    for budget, task in zip(BUDGETS, loaded.values(), strict=True):
        assert len(task.eval_docs) == BENCHMARKS[benchmark]
        assert task.config.generation_kwargs == {
            "thinking_token_budget": budget,
            "do_sample": True,
            "temperature": 1.0,
            "seed": 7,
            "max_gen_toks": 4096,
            "until": [],
        }


def test_prompts_are_the_bare_questions(manager, data_folder, monkeypatch):
    monkeypatch.setenv("LM_EVAL_PRUNED_DATA", str(data_folder))
    tasks = load(manager, *(f"{benchmark}_tts_512" for benchmark in BENCHMARKS))
    aime, gpqa = tasks["aime24_tts_512"], tasks["gpqa_diamond_tts_512"]
    document = aime.eval_docs[0]
    assert aime.doc_to_text(document) == document["problem"]
    assert aime.doc_to_target(document) == str(document["answer"])
    document = gpqa.eval_docs[0]
    choices = "\n".join(f"{letter}) {document[f'choice{index}']}" for index, letter in enumerate("ABCD", start=1))
    assert gpqa.doc_to_text(document) == f"{document['Question']}\n\n{choices}"
    assert gpqa.doc_to_target(document) in "ABCD"


def tiny(*, metadata: dict[str, object], **own: object) -> BudgetedTask:
    return BudgetedTask(
        {
            "task": "mine", "dataset_path": "tiny-reasoner", "test_split": "test", "doc_to_text": "{{problem}}",
            "doc_to_target": "{{answer}}", "output_type": "generate_until", "thinking_token_budget": 16,
            "metric_list": [{"metric": "acc"}], "metadata": {"version": 1.0, **metadata}, **own,
        }
    )  # fmt: skip


@needs_metadata
def test_the_number_of_samples_comes_from_the_command_line():
    assert load(TaskManager(metadata={"num_samples": 4}), "tiny_tts_16")["tiny_tts_16"].config.repeats == 4


def test_several_samples_add_metrics(manager):
    task = tiny(metadata={"num_samples": 4})
    assert {"acc", "pass@4", "maj@4", "thinking_tokens"} <= set(task.aggregation())
    assert task.higher_is_better()["pass@4"]
    assert not task.higher_is_better()["budget_hit"]
    assert (task.higher_is_better()["rep-2"], task.higher_is_better()["loop_onset"]) == (False, True)
    # The harness prints no arrow for these: whether more of them is better depends on the thinking format.
    assert not {"thinking_eos", "thinking_tokens", "answer_tokens"} & set(task.higher_is_better())
    assert "pass@1" not in load(manager, "tiny_tts_16")["tiny_tts_16"].aggregation()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"exmaples": 4}, "exmaples=4 in --metadata: did you mean 'examples'"),
        ({"n_samples": 4}, "n_samples=4 in --metadata: did you mean 'num_samples'"),
        ({"answer_kind": "maths"}, "unknown kind 'maths': did you mean 'math'"),
        ({"form": "words"}, "form='words' is for generated questions"),
    ],
)
def test_wrong_metadata_is_refused_before_a_model_is_loaded(metadata, message):
    with pytest.raises(PrunedEvalError, match=message):
        tiny(metadata=metadata)


def test_requests_of_another_run_and_samples_of_greedy_decoding_are_refused():
    with pytest.raises(ArgumentError, match="--cache_requests finds the requests of a task by its name"):
        tiny(metadata={}).build_all_requests(limit=1, cache_requests=True)
    with pytest.raises(ArgumentError, match="num_samples=4 would give the same text 4 times"):
        tiny(metadata={"num_samples": 4}).build_all_requests(limit=1)
    sampled = tiny(metadata={"num_samples": 4}, generation_kwargs={"temperature": 1.0})
    sampled.build_all_requests(limit=1)
    assert sampled.instances


@pytest.mark.parametrize(
    ("instruction", "description", "start"),
    [
        ("Be brief.", "", "Be brief.\n\n"),
        ("Be brief.\n", "", "Be brief.\n"),
        (None, "Sums.", "Sums.\n\n"),
        ("Be brief.", "Sums.", "Be brief.\n\nSums.\n\n"),
        (None, "", ""),
    ],
)
def test_an_instruction_is_set_apart_from_a_bare_question(instruction, description, start):
    task = tiny(metadata={}, description=description)
    task.build_all_requests(limit=1, system_instruction=instruction)
    (instance,) = task.instances
    assert instance.args[0] == start + task.eval_docs[0]["problem"]


@pytest.mark.parametrize("count", [0, -1, 2.5, "many", True])
def test_a_wrong_number_of_samples_is_named(count):
    with pytest.raises(ArgumentError, match="num_samples="):
        tiny(metadata={"num_samples": count})


def test_groups_list_their_budgets_in_order():
    for path in tasks_folder().rglob("*_tts.yaml"):
        group = yaml.safe_load(path.read_text())
        budgets = [int(name.rpartition("_")[2]) for name in group["task"]]
        assert budgets == sorted(budgets)


def test_metrics_of_one_sample():
    metrics = question_metrics("7", [response("\\boxed{7}", thinking="abc", budget_hit=True)], kind="math")
    assert metrics == {
        "acc": 1.0,
        "thinking_tokens": 3.0,
        "answer_tokens": 9.0,
        "budget_hit": 1.0,
        "thinking_eos": 0.0,
        "answer_cut": 0.0,
        "no_answer": 0.0,
        "loop_onset": 1.0,
        "looping": 0.0,
        "rep-2": 0.0,
        "rep-3": 0.0,
    }


def test_metrics_of_several_samples():
    responses = [response("\\boxed{7}"), response("\\boxed{8}"), response("\\boxed{8.0}"), response("I do not know")]
    metrics = question_metrics("7", responses, kind="math")
    assert metrics["acc"] == 0.25
    assert metrics["pass@2"] == 0.5
    assert metrics["pass@4"] == 1.0
    assert metrics["maj@4"] == 0.0  # 8 and 8.0 are equal answers and win the vote
    assert metrics["no_answer"] == 0.25


def test_a_wrong_answer_and_no_answer_are_told_apart():
    wrong = question_metrics("7", [response("\\boxed{8}")], kind="math")
    unfinished = question_metrics("7", [response("")], kind="math")
    assert (wrong["acc"], wrong["no_answer"]) == (0.0, 0.0)
    assert (unfinished["acc"], unfinished["no_answer"]) == (0.0, 1.0)


def test_what_an_answer_cut_at_its_limit_concludes_does_not_count():
    """A cut answer may still be changed: only an explicit statement counts."""
    for text, counts in (("So there are 7 ways.", 0.0), ("So the answer is \\boxed{7}.", 1.0)):
        cut = question_metrics("7", [response(text, finish="length")], kind="math")
        assert (cut["acc"], cut["answer_cut"]) == (counts, 1.0)
        assert question_metrics("7", [response(text)], kind="math")["acc"] == 1.0


def test_a_loop_in_cut_thinking_is_detected():
    looped = response("\\boxed{8}", thinking="wait, let me check. " * 40, budget_hit=True)
    metrics = question_metrics("7", [looped, response("7")], kind="math")
    assert (metrics["looping"], metrics["loop_onset"]) == (0.5, 0.5)
    # Six words 40 times have six different pairs; the answer has five words.
    assert metrics["rep-2"] == pytest.approx((1 - (6 + 4) / (239 + 4)) / 2)


@pytest.mark.parametrize(
    ("own", "metadata", "repeats"), [({}, {}, 1), ({"repeats": 4}, {}, 4), ({"repeats": 4}, {"num_samples": 2}, 2)]
)
def test_the_command_line_overrides_the_samples_of_the_task(own, metadata, repeats):
    assert tiny(metadata=metadata, **own).config.repeats == repeats


def test_letters_of_multiple_choice_are_graded():
    assert question_metrics("C", [response("The answer is (C).")], kind="choice")["acc"] == 1.0
    assert question_metrics("C", [response("A proton is heavy.")], kind="choice")["no_answer"] == 1.0


@pytest.mark.parametrize("handed", [lambda one: [[one, one]], lambda one: [one, one]], ids=["0.4", "0.5"])
def test_responses_are_taken_as_each_harness_hands_them_over(handed):
    task = tiny(metadata={"num_samples": 2})
    metrics = task.process_results({"answer": "7"}, handed(response("\\boxed{7}")))
    assert (metrics["acc"], metrics["pass@2"], metrics["answer_tokens"]) == (1.0, 1.0, 9.0)


@pytest.mark.parametrize("results", [["7"], [["7"]], "7", response("7"), [["7"], ["7"]], [7.0], [None]])
def test_a_response_without_an_enforced_budget_is_refused(results):
    with pytest.raises(ArgumentError, match=r"does not enforce the thinking budget of 'mine'.*pruned-hf"):
        tiny(metadata={}).process_results({"answer": "7"}, results)


@pytest.mark.parametrize("answer", ["025", "[1]", "[0, 1)", "7", "²", "\\text{[A]}"])
@pytest.mark.parametrize("template", ["{{answer}}", "answer"])
def test_targets_are_the_written_answers(answer, template):
    assert tiny(metadata={}, doc_to_target=template).doc_to_target({"answer": answer}) == answer


def test_missing_responses_are_refused_and_surplus_ones_left_out():
    task, one = tiny(metadata={"num_samples": 2}), response("\\boxed{7}")
    for results in ([], [[]], [[one]]):
        with pytest.raises(ArgumentError, match=rf"handed over {len(results and results[0])} responses.*2 were asked"):
            task.process_results({"answer": "7"}, results)
    # A process that is asked its last question again, so that all processes are asked as many.
    assert set(task.process_results({"answer": "7"}, [[one, one, one, one]])) == set(task.aggregation())


def test_standard_errors_are_clustered_by_question():
    """The harness's standard error of question means equals the cluster-robust standard error of all samples."""
    correct = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0]])
    metrics = [
        question_metrics("7", [response(f"\\boxed{{{7 if right else 8}}}") for right in row], kind="math")
        for row in correct
    ]
    task = tiny(metadata={"num_samples": 4})
    reported = stderr_for_metric(task.aggregation()["acc"], bootstrap_iters=100)([one["acc"] for one in metrics])
    questions, samples = correct.shape
    residuals = (correct - correct.mean()).sum(axis=1)
    variance = (residuals**2).sum() / (questions * samples) ** 2 * questions / (questions - 1)
    assert reported == pytest.approx(variance**0.5)


def test_sample_rows_hold_the_extracted_answer_of_every_response(monkeypatch):
    task = tiny(metadata={"num_samples": 3})
    responses = [response("\\boxed{7}"), response("So it is \\boxed{8}"), response("I do not know")]
    doc = {"problem": "3+4", "answer": 7}
    asked = {"request_type": "generate_until", "arguments": ("3+4", {}), "idx": 0, "task_name": "mine", "doc_id": 0}
    instance = Instance(doc=doc, resps=responses, **asked)
    task._instances = [instance]
    task.apply_filters()
    assert instance.filtered_resps == {"none": ["7", "8", ""]}
    expected = question_metrics("7", responses, kind="math")
    # What was graded for its extracted answer is not graded again.
    monkeypatch.setattr("lm_eval_pruned.models.task.grade", None)
    assert task.process_results(instance.doc, [instance.filtered_resps["none"]]) == expected
    monkeypatch.undo()
    both = response("\\boxed{1} or \\boxed{2}")
    listed = Extracted.build("1, 2", both, "math")
    assert (listed, listed.response) == ("1, 2", both)


@pytest.mark.parametrize(("rank", "world_size", "expected"), [(0, 1, [3, 9, 40]), (1, 2, [9])])
def test_chosen_questions_are_numbered_anew(rank, world_size, expected):
    task = tiny(metadata={})
    found = list(task.doc_iterator(samples=[40, 3, 9], rank=rank, world_size=world_size))
    assert [doc for _, doc in found] == [task.eval_docs[index] for index in expected]
    assert [number for number, _ in found] == list(range(3))[rank::world_size]
    assert len(list(task.doc_iterator(limit=5))) == 5
