"""Resuming from the response store: within a process, and with the harness's command after kill -9."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import time
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.paths import tasks_folder
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.requests import Row
from lm_eval_pruned.reasoning.response_store import FILE
from tests import forked
from tests.models.evaluation import stored

# One whose thinking fits the smallest budget, and one whose thinking does not.
PROBLEMS = [chain.problem for chain in benchmark_chains()][::120]
GREEDY: dict[str, object] = {}
SAMPLED = {"temperature": 1.0, "seed": 7}


def tiny(**arguments: object) -> PrunedHFLM:
    return PrunedHFLM("tiny-reasoner", **{"batch_size": 16, **arguments})


def ask(model: PrunedHFLM, *budgets: int, samples: int = 1, **kwargs: object) -> list[Completion]:
    requests = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(problem, {"thinking_token_budget": budget, "max_gen_toks": 16, **kwargs}),
            idx=0,
            task_name="",
            doc_id=0,
        )
        for budget in budgets
        for problem in PROBLEMS
        for _ in range(samples)
    ]
    return model.generate_until(requests)


def as_dicts(completions: list[Completion]) -> list[dict[str, object]]:
    return [one.as_dict() for one in completions]


@pytest.fixture
def asked(monkeypatch) -> list[Row]:
    """The rows given to the backend."""
    rows: list[Row] = []
    run = TransformersBackend.run
    monkeypatch.setattr(TransformersBackend, "run", lambda self, given: (rows.extend(given), run(self, given)))
    return rows


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_second_run_generates_nothing(tmp_path, asked, sampling):
    without = as_dicts(ask(tiny(), 16, 64, samples=3, **sampling))
    first = as_dicts(ask(tiny(responses=str(tmp_path)), 16, 64, samples=3, **sampling))
    assert len(asked) == 2 * 3 * len(PROBLEMS)
    asked.clear()
    again = as_dicts(ask(tiny(responses=str(tmp_path)), 16, 64, samples=3, **sampling))
    assert not asked
    assert again == first == without
    assert {one["thinking_finish"] for one in again} > {"budget"}


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_another_budget_generates_only_that_budget(tmp_path, asked, sampling):
    ask(tiny(responses=str(tmp_path)), 16, 64, **sampling)
    asked.clear()
    three = as_dicts(ask(tiny(responses=str(tmp_path)), 16, 32, 64, **sampling))
    assert [(row.max_new_tokens, row.checkpoints) for row in asked] == [(32, ())] * len(PROBLEMS)
    assert three == as_dicts(ask(tiny(), 16, 32, 64, **sampling))


def test_another_sample_generates_only_that_sample(tmp_path, asked):
    ask(tiny(responses=str(tmp_path)), 16, samples=2, **SAMPLED)
    asked.clear()
    three = as_dicts(ask(tiny(responses=str(tmp_path)), 16, samples=3, **SAMPLED))
    assert len(asked) == len(PROBLEMS)
    assert three == as_dicts(ask(tiny(), 16, samples=3, **SAMPLED))


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> PrunedHFLM:
    """A model with stored responses, whose store the tests below give to other models."""
    model = tiny(responses=str(tmp_path_factory.mktemp("responses")))
    ask(model, 4, 8)
    return model


@pytest.mark.parametrize(
    "other",
    [
        {"method": "magnitude", "sparsity": 0.1},
        {"method": "magnitude", "sparsity": 0.2},
        {"rms_norm_eps": 1e-5},
        {"dtype": "bfloat16"},
        {"mixed_precision_dtype": "bfloat16"},
        {"max_length": 512},
        {"thinking": "s1"},
        {"thinking": "qwen3"},
        {"auto_chat_template": False},
    ],
    ids=lambda other: ",".join(f"{name}={value}" for name, value in other.items()),
)
def test_another_model_generates_everything(dense, asked, other):
    usual = as_dicts(ask(dense, 4))
    model = tiny(responses=dense._run.responses, **other)
    first = as_dicts(ask(model, 4))
    assert len(asked) == len(PROBLEMS)
    assert as_dicts(ask(model, 4)) == first
    assert as_dicts(ask(dense, 4)) == usual
    assert len(asked) == len(PROBLEMS)


@pytest.mark.parametrize(
    "other",
    [{"max_gen_toks": 8}, {"until": ["="]}, SAMPLED, {"until_thinking": ";"}, {"thinking_end": "</end>"}],
    ids=",".join,
)
def test_other_generation_arguments_generate_everything(dense, asked, other):
    usual = as_dicts(ask(dense, 4))
    first = as_dicts(ask(dense, 4, **other))
    assert len(asked) == len(PROBLEMS)
    assert as_dicts(ask(dense, 4, **other)) == first
    assert as_dicts(ask(dense, 4)) == usual
    assert len(asked) == len(PROBLEMS)


@pytest.mark.parametrize(
    "same",
    [{"batch_size": 1}, {"share_traces": False}, {"artifacts": "off"}],
    ids=lambda same: ",".join(f"{name}={value}" for name, value in same.items()),
)
def test_settings_that_change_no_text_reuse_the_responses(dense, asked, same):
    assert as_dicts(ask(tiny(responses=dense._run.responses, **same), 4, 8)) == as_dicts(ask(dense, 4, 8))
    assert not asked


TASKS = [f"tiny_tts_{budget}" for budget in (16, 32, 64, 128, 256)]
LIMIT = 12
ROWS = LIMIT * len(TASKS)
MARK = "(stored) "


def evaluate(folder: Path, *more: str, model_args: str = "") -> BaseProcess:
    """Start the command; it writes beside its folder."""
    command = [
        "lm_eval", "--model", "pruned-hf",
        "--model_args", f"pretrained=tiny-reasoner{model_args}", "--tasks", "tiny_tts", "--limit", str(LIMIT),
        "--batch_size", "1", "--log_samples", "--output_path", str(folder), *more,
    ]  # fmt: skip
    return forked.start(command, folder)


def outcome(samples: list[dict]) -> list[str]:
    """Return responses and metrics as text, for an exact comparison."""
    return [json.dumps([row["resps"], {name: row[name] for name in row["metrics"]}]) for row in samples]


def samples_in(folder: Path) -> dict[str, list[str]]:
    files = {task: next(folder.rglob(f"samples_{task}_*.jsonl")) for task in TASKS}
    return {task: outcome([json.loads(row) for row in file.read_text().splitlines()]) for task, file in files.items()}


def uninterrupted() -> dict[str, list[str]]:
    """Return the samples of a run without a store."""
    samples = lm_eval.simple_evaluate(
        model="pruned-hf",
        model_args={"pretrained": "tiny-reasoner"},
        tasks=TASKS,
        task_manager=TaskManager(include_path=str(tasks_folder()), include_defaults=False),
        batch_size=1,
        limit=LIMIT,
        bootstrap_iters=0,
    )["samples"]
    return {task: outcome(samples[task]) for task in TASKS}


def test_a_killed_command_resumes(tmp_path):
    store = tmp_path / "responses" / FILE
    arguments = f",responses={store.parent}"
    end = time.monotonic() + forked.DEADLINE
    killed = evaluate(tmp_path / "killed", model_args=arguments)
    while not stored(store):
        assert killed.is_alive(), (tmp_path / "killed.err").read_text()
        assert time.monotonic() < end
        time.sleep(0.005)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    finished = stored(store)
    assert 0 < finished < ROWS
    # Mark the stored texts, to tell them from those generated after the restart.
    with closing(sqlite3.connect(store)) as connection:
        for key, response in connection.execute("SELECT key, response FROM responses").fetchall():
            marked = response.replace('"text": "', f'"text": "{MARK}')
            digest = hashlib.sha256(marked.encode()).hexdigest()
            connection.execute("UPDATE responses SET response = ?, sha256 = ? WHERE key = ?", [marked, digest, key])
        connection.commit()

    resumed = evaluate(tmp_path / "resumed", model_args=arguments)
    resumed.join(forked.DEADLINE)
    assert resumed.exitcode == 0, (tmp_path / "resumed.err").read_text()
    samples = samples_in(tmp_path / "resumed")
    assert sum(MARK in sample for task in TASKS for sample in samples[task]) == finished
    unmarked = {task: [sample.replace(MARK, "") for sample in samples[task]] for task in TASKS}
    assert unmarked == uninterrupted()
    assert stored(store) == ROWS


def test_use_cache_is_refused(tmp_path):
    done = evaluate(tmp_path / "run", "--use_cache", str(tmp_path / "cache"))
    done.join(forked.DEADLINE)
    errors = (tmp_path / "run.err").read_text()
    assert done.exitcode == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("lm_eval: error: ")]
    assert errors.endswith(line + "\n")
    assert "responses=DIR" in line
