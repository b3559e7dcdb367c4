"""Versions of the harness that are refused, and models that our tasks refuse because they enforce no budget."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path

import lm_eval
import pytest
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
from lm_eval.models.dummy import DummyLM
from lm_eval.tasks import TaskManager

from lm_eval_pruned import _harness, models
from lm_eval_pruned.errors import ArgumentError, MissingPackageError
from lm_eval_pruned.models import supported
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.models.task import BudgetedTask
from lm_eval_pruned.paths import tasks_folder
from tests.models.test_task import tiny

_harness.add_task_folder()
_harness.check_evaluations()

REFUSED = r"does not enforce the thinking budget of '.*': use --model pruned-hf or pruned-vllm, with method=none"


class Loaded(DummyLM):
    """A model of somebody else, which must not be loaded."""

    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("loaded")


class Dummy(DummyLM):
    """The harness's dummy, without the GPT-2 tokenizer of the hub that some releases give it."""

    tokenizer = None


class OurSubclass(PrunedHFLM):
    """A subclass of our model."""


@pytest.mark.parametrize("version", ["0.4.10", "0.4.13", "0.4.13.dev0", "0.5.0.dev2", "0.5.0", "0.5.7"])
def test_known_versions_pass(monkeypatch, version):
    monkeypatch.setattr(supported, "version", lambda _: version)
    supported.check_harness()


@pytest.mark.parametrize("version", ["0.3.0", "0.4.9.2", "0.6.0.dev1", "0.6.0", "1.0"])
def test_other_versions_are_refused_at_the_import_of_the_models(monkeypatch, version):
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    try:
        importlib.reload(supported)
        with pytest.raises(
            MissingPackageError, match=rf"lm-eval {re.escape(version)} is installed.* knows >=0.4.10,<0.6"
        ):
            importlib.reload(models)
    finally:
        monkeypatch.undo()
        importlib.reload(supported)


@pytest.mark.parametrize("name", ["hf", "dummy", "vllm", "local-completions", "openai-chat-completions", "sglang"])
@pytest.mark.parametrize("task", ["tiny_tts", "tiny_tts_16", "aime24_tts_8192"])
def test_models_of_the_harness_are_refused_before_they_are_loaded(name, task):
    with pytest.raises(ArgumentError, match=f"--model {name} {REFUSED}"):
        lm_eval.simple_evaluate(model=name, model_args="pretrained=nowhere", tasks=["gsm8k", task])


def test_a_model_of_others_is_refused_before_it_is_loaded(monkeypatch):
    monkeypatch.setitem(model_registry._objs, "theirs", Loaded)
    with pytest.raises(ArgumentError, match=f"--model theirs {REFUSED}"):
        lm_eval.simple_evaluate(model="theirs", tasks=["tiny_tts_16"])


class TestAfterLoading:
    """What only the loaded tasks tell: a task file of the user, a task given as an object, a name redefined."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        base = (
            (tasks_folder() / "tiny" / "_tiny_yaml").read_text().replace("../_tts_yaml", f"{tasks_folder()}/_tts_yaml")
        )
        (tmp_path / "mine.yaml").write_text(base + "\ntask: mine\nthinking_token_budget: 16\n")
        return tmp_path

    @staticmethod
    def manager(folder: Path) -> TaskManager:
        return TaskManager(include_path=str(folder), include_defaults=False)

    def test_a_task_file_of_the_user(self, folder):
        with pytest.raises(ArgumentError, match=f"the model Dummy {REFUSED}"):
            lm_eval.simple_evaluate(model=Dummy(), tasks=["mine"], task_manager=self.manager(folder))

    def test_tasks_in_nested_mappings(self):
        with pytest.raises(ArgumentError, match=f"the model Dummy {REFUSED}"):
            lm_eval.evaluate(lm=Dummy(), task_dict={"group": {"inner": {"mine": tiny(metadata={})}}})

    def test_a_name_of_ours_that_the_user_redefines_is_theirs(self, tmp_path):
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"question": "1+1=", "answer": "2"}\n')
        (tmp_path / "tiny_tts_16.yaml").write_text(
            f"task: tiny_tts_16\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\n"
            "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        )
        results = evaluate_quietly(Dummy(), ["tiny_tts_16"], self.manager(tmp_path))
        assert results["results"]["tiny_tts_16"]["exact_match,none"] == 0.0

    def test_a_subclass_of_ours_passes(self, folder):
        model = OurSubclass("tiny-reasoner", batch_size=4)
        results = evaluate_quietly(model, ["mine"], self.manager(folder), limit=2)
        assert results["results"]["mine"]["acc,none"] == 1.0
        assert len(results["samples"]["mine"]) == 2


def evaluate_quietly(model: LM, tasks: list[str], manager: TaskManager, **options: object) -> Mapping[str, dict]:
    return lm_eval.simple_evaluate(model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options)


def test_predictions_alone_are_not_graded():
    task: BudgetedTask = tiny(metadata={})
    task.override_metric("bypass")
    assert task.process_results({"answer": "7"}, ["anything"]) == {"bypass": 0.0}
    assert list(task.aggregation()) == ["bypass"]
