"""Ordinary tasks on an unpruned `pruned-hf` give the results of the harness's own `hf`."""

from __future__ import annotations

import json
from pathlib import Path

import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.paths import assets_folder

QUESTIONS = 8
EXAMPLES = 6
TASKS = {
    "ordinary_choice": {
        "output_type": "multiple_choice",
        "num_fewshot": 2,
        "doc_to_text": "{{problem}}",
        "doc_to_target": "{{answer}}",
        "doc_to_choice": [str(digit) for digit in range(10)],
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "ordinary_generation": {
        "output_type": "generate_until",
        # lm-eval 0.5 refuses a digit as the answer of an example: it reads a number, and takes that for a choice.
        "num_fewshot": 0,
        "doc_to_text": "{{problem}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [";", "\n\n"], "max_gen_toks": 12, "do_sample": False},
        "filter_list": [
            {
                "name": "number",
                "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}],
            },
            {"name": "first", "filter": [{"function": "take_first"}]},
        ],
        "metric_list": [{"metric": "exact_match"}],
    },
    "ordinary_perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{problem}} {{reasoning}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of task files and their data."""
    folder = tmp_path_factory.mktemp("tasks")
    chains = benchmark_chains()[::11]
    rows = [{"problem": chain.problem, "reasoning": chain.reasoning, "answer": chain.answer} for chain in chains]
    splits = {"train": rows[:EXAMPLES], "test": rows[EXAMPLES:][:QUESTIONS]}
    for split, content in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {split: str(folder / f"{split}.jsonl") for split in splits},
            "cache_dir": str(folder / "cache"),
        },
        "training_split": "train",
        "test_split": "test",
    }
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **data, **task}))
    return folder


def evaluate(folder: Path, model: str, model_args: dict[str, object], **options: object) -> dict[str, object]:
    return lm_eval.simple_evaluate(
        model=model,
        model_args={**model_args},
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=4,
        device="cpu",
        bootstrap_iters=0,
        **options,
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": "Work it out."}],
    ids=["bare", "chat"],
)
def test_results_equal_those_of_hf(folder, options):
    theirs = evaluate(folder, "hf", {"pretrained": str(assets_folder() / "tiny_reasoner")}, **options)
    ours = evaluate(folder, "pruned-hf", {"pretrained": "tiny-reasoner", "method": "none"}, **options)
    for key in ("results", "samples", "n-samples", "n-shot", "versions", "configs", "higher_is_better"):
        assert ours[key] == theirs[key], key
    assert {name: len(samples) for name, samples in ours["samples"].items()} == {
        "ordinary_choice": QUESTIONS,
        "ordinary_generation": 2 * QUESTIONS,
        "ordinary_perplexity": QUESTIONS,
    }
    assert len({str(sample["resps"]) for sample in ours["samples"]["ordinary_generation"]}) > 1


def test_pruning_changes_results(folder):
    dense = evaluate(folder, "pruned-hf", {"pretrained": "tiny-reasoner"})
    pruned = evaluate(folder, "pruned-hf", {"pretrained": "tiny-reasoner", "method": "magnitude", "sparsity": 0.5})
    for name in TASKS:
        assert [sample["resps"] for sample in pruned["samples"][name]] != [
            sample["resps"] for sample in dense["samples"][name]
        ], name
    metric = "word_perplexity,none"
    worse, better = (run["results"]["ordinary_perplexity"][metric] for run in (pruned, dense))
    assert worse > better
