"""Sweep files: expansion into cells, checks of each cell, and estimates."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from lm_eval_pruned.errors import DataError, PrunedEvalError
from lm_eval_pruned.models.generated import generate
from lm_eval_pruned.paths import configs_folder, tasks_folder
from lm_eval_pruned.sweeps.checks import task_kwargs
from lm_eval_pruned.sweeps.estimate import estimate, read_task
from lm_eval_pruned.sweeps.grid import find_config, read_sweep

DEFAULTS = {"models": "tiny-reasoner", "tasks": "tiny_tts"}


def sweep(folder, **content):
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"defaults": DEFAULTS, **content}))
    return read_sweep(path).cells


def test_the_papers_study_is_whole():
    cells = read_sweep(configs_folder() / "sweeps/paper.yaml").cells
    assert len(cells) == 2 * 15 * 4 * 3 * 2
    assert len({cell.id for cell in cells}) == len(cells)
    # 1,800 runs in the paper: each cell is one under each of five budgets.
    assert sum(cell.variant == "paper" for cell in cells) * 5 == 1800
    for cell in cells:
        assert [task.budgets for task in read_task(cell.task)] == [(512, 1024, 2048, 4096, 8192)]
        assert cell.decoding["temperature"] == 1.0
        if cell.variant == "paper":
            dense = cell.model_args["method"] == "none"
            assert cell.model_args["preset"] == ("none" if dense else "paper")
            assert (cell.model_args["thinking"], cell.decoding["max_gen_toks"]) == ("s1", 32768)
    assert set(Counter((cell.model, cell.task, cell.seed, cell.variant) for cell in cells).values()) == {15}
    assert {cell.seed for cell in cells} == {7, 11, 42}


def test_lists_are_multiplied_and_settings_merged(tmp_path):
    cells = sweep(
        tmp_path,
        grids=[{"methods": ["magnitude", "wanda"], "sparsities": [0.1, 0.2], "model_args": {"calib_samples": 8}}],
        variants={"a": {"gen_kwargs": {"max_gen_toks": 5}}, "b": {"batch_size": 4}},
        overrides=[{"match": {"method": "wanda", "variant": "a"}, "set": {"model_args": {"calib_seqlen": 9}}}],
    )
    assert len(cells) == 8
    changed = [cell for cell in cells if "calib_seqlen" in cell.model_args]
    assert {(cell.model_args["method"], cell.variant) for cell in changed} == {("wanda", "a")}
    assert all(cell.model_args["calib_samples"] == 8 for cell in cells)
    assert {(cell.variant, cell.batch_size) for cell in cells} == {("a", "1"), ("b", "4")}


def test_blocks_and_exclude_tell_cells_apart(tmp_path):
    for blocks in ([[1, 2], 3], ["1+2", 3]):
        cells = sweep(tmp_path, grids=[{"methods": "shortgpt", "blocks": blocks}])
        assert [cell.label for cell in cells] == [f"tiny-reasoner, shortgpt {one}, tiny_tts" for one in ("1+2", 3)]
    grids = [{"methods": "wanda", "sparsities": 0.2, "model_args": {"exclude": one}} for one in ("q_proj", "k_proj")]
    labels = [cell.label for cell in sweep(tmp_path, grids=grids)]
    assert labels == [f"tiny-reasoner, wanda 0.2 exclude {one}, tiny_tts" for one in ("q_proj", "k_proj")]


def test_an_id_is_of_what_decides_the_outcome_alone(tmp_path):
    (one,) = sweep(tmp_path, grids=[{"methods": "none"}])
    (faster,) = sweep(tmp_path, grids=[{"methods": "none", "batch_size": 8, "cpus": 2, "weights": 1e6}])
    (other,) = sweep(tmp_path, grids=[{"methods": "none", "limit": 8}])
    assert one.id == faster.id != other.id
    assert len(sweep(tmp_path, grids=[{"methods": "none"}, {"methods": "none"}])) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it spans no cells"),
        ({"grid": []}, "unknown section 'grid': did you mean 'grids'?"),
        ({"grids": [{"method": "none"}]}, "did you mean 'methods'?"),
        ({"grids": [{"methods": "wandda", "sparsities": 0.1}]}, "did you mean 'wanda'?"),
        ({"grids": [{"methods": "wanda"}]}, "method=wanda needs a sparsity"),
        ({"grids": [{"methods": ["none", "wanda"], "sparsities": 0.1}]}, "sparsity=0.1 was given without a method"),
        ({"grids": [{"methods": "shortgpt", "num_blocks": 1, "allocations": "owl"}]}, "leave alloc=owl out"),
        ({"grids": [{"methods": "none", "tasks": "tiny_tss"}]}, "did you mean 'tiny_tts'?"),
        ({"grids": [{"methods": "none", "backend": "pruned-hff"}]}, "did you mean 'pruned-hf'?"),
        ({"grids": [{"methods": "none", "models": "/nowhere"}]}, "pretrained=/nowhere is not a folder"),
        ({"grids": [{"methods": "none", "model_args": {"dtpye": "auto"}}]}, "did you mean 'dtype'?"),
        ({"grids": [{"methods": "none", "model_args": {"dtype": "bf16"}}]}, "did you mean 'bfloat16'?"),
        ({"grids": [{"methods": "none", "limit": "all"}]}, "limit: 'all' is not int or float"),
        ({"grids": [{"methods": "none", "seeds": [0.5]}]}, "0.5 is not a whole number"),
        ({"grids": [{"methods": "none", "gpus": -1}]}, "gpus=-1"),
        ({"grids": [{"methods": "none"}], "overrides": [{"match": {"method": "non"}, "set": {}}]}, "mean 'none'?"),
        ({"grids": "all"}, "grids[0] is not a mapping"),
        ({"grids": [{"methods": "none", "gen_kwargs": {"tempreature": 1}}]}, "did you mean 'temperature'?"),
        ({"grids": [{"methods": "none", "gen_kwargs": {"thinking_token_budget": 2000}}]}, "the context of 1024"),
        ({"grids": [{"methods": "none", "gen_kwargs": {"max_gen_toks": 0}}]}, "max_gen_toks=0"),
        ({"grids": [{"methods": "shortgpt", "num_blocks": [1, 6]}]}, "num_blocks=6 drops 6 of the model's 5 blocks"),
        ({"grids": [{"methods": "wanda", "model_args": {"pattern": "4:6"}}]}, "groups of 6"),
        ({"grids": [{"methods": "none", "metadata": {"num_samples": 2}}]}, "the same text 2 times"),
        ({"grids": [{"methods": "none", "metadata": {"num_samples": "8"}}]}, "num_samples='8'"),
        (
            {"grids": [{"methods": "none", "tasks": "arith_tts_128", "metadata": {"form": "roman"}}]},
            "unknown form 'roman'",
        ),
        (
            {"grids": [{"methods": "none", "tasks": "parens_tts_128", "metadata": {"examples": 99}}]},
            "examples=99 is not",
        ),
        ({"grids": [{"methods": "none", "metadata": {"form": "words"}}]}, "form='words' is for generated questions"),
        ({"grids": [{"methods": "none", "metadata": {"num_sample": 2}}]}, "did you mean 'num_samples'?"),
        (
            {"grids": [{"methods": "none", "tasks": "gsm8k", "gen_kwargs": {"seed": 1}}]},
            "samples are seeded in requests with a thinking_token_budget",
        ),
    ],
)
def test_a_mistake_is_named_before_anything_runs(tmp_path, content, message):
    with pytest.raises(PrunedEvalError) as error:
        sweep(tmp_path, **content)
    assert message in str(error.value)
    assert "sweep.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("grids", "variants", "names"),
    [
        ([{"methods": "none", "seeds": [7, 11, 42]}], {}, "seed changes nothing here: decoding is greedy"),
        ([{"methods": "none", "seeds": [7, 11], "gen_kwargs": {"temperature": 1, "top_k": 1}}], {}, "seed changes"),
        ([{"methods": "none", "allocations": ["uniform", "owl"]}], {}, "alloc changes nothing here"),
        ([{"methods": "shortgpt", "sparsities": [0.2, 0.3]}], {}, "sparsity changes nothing"),
        ([{"methods": "shortgpt", "num_blocks": 1}, {"methods": "shortgpt", "sparsities": 0.2}], {}, "num_blocks and"),
        ([{"methods": "wanda", "sparsities": [0.2, "0.20"]}], {}, "sparsity changes nothing"),
        (
            [{"methods": "magnitude", "sparsities": 0.2}],
            {"a": {"model_args": {"calib_seed": 1}}, "b": {"model_args": {"calib_seed": 2}}},
            "calib_seed changes nothing",
        ),
        ([{"methods": "none"}], {"a": {"gen_kwargs": {"top_p": 0.9}}, "b": {}}, "top_p changes nothing"),
        ([{"methods": "none"}], {"a": {"model_args": {"artifacts": False}}, "b": {}}, "artifacts changes nothing"),
    ],
)
def test_cells_with_the_same_answers_are_refused(tmp_path, grids, variants, names):
    with pytest.raises(PrunedEvalError) as error:
        sweep(tmp_path, grids=grids, **({"variants": variants} if variants else {}))
    assert "would give the same answers" in str(error.value)
    assert names in str(error.value)


@pytest.mark.parametrize(
    "grid",
    [
        {"methods": "none", "seeds": [7, 11], "gen_kwargs": {"temperature": 1.0}},
        {"methods": "none", "seeds": [7, 11], "gen_kwargs": {"do_sample": True}},
        {"methods": "none", "seeds": [7, 11], "gen_kwargs": {"temperature_thinking": 0.6}},
        {"methods": "shortgpt", "sparsities": [0.2, 0.4]},
        {"methods": "wanda", "allocations": ["owl", "uniform"], "sparsities": 0.2},
    ],
)
def test_cells_that_differ_are_two(tmp_path, grid):
    assert len(sweep(tmp_path, grids=[grid])) == 2


def test_kwargs_of_a_task_come_from_its_file_and_what_it_includes():
    kwargs = task_kwargs("aime24_tts")
    assert list(kwargs) == [f"aime24_tts_{budget}" for budget in (512, 1024, 2048, 4096, 8192)]
    assert kwargs["aime24_tts_512"] == {
        "thinking_token_budget": 512,
        "do_sample": True,
        "temperature": 1.0,
        "seed": 7,
        "max_gen_toks": 4096,
        "until": [],
    }
    assert task_kwargs("gsm8k") == {}


def test_a_folder_of_the_same_name_hides_no_sweep_of_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_config(Path("demo")).parent == configs_folder() / "sweeps"
    (tmp_path / "smoke").write_text("")
    assert find_config(Path("smoke")) == Path("smoke")


@pytest.mark.parametrize("text", ["{", "- 1", "", "a: !!python/object:os.system {}"])
def test_what_is_no_sweep_is_refused(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(DataError):
        read_sweep(path)


def test_every_task_that_ships_has_an_estimate():
    sizes = {path.stem: read_task(path.stem) for path in tasks_folder().glob("*/*_tts.yaml")}
    assert all(len(size) == 1 for size in sizes.values())
    for name, path in (("arith_tts", "lm_eval_pruned/arithmetic"), ("parens_tts", "lm_eval_pruned/brackets")):
        assert sizes[name][0].questions == len(generate(path))


def test_tokens_are_those_of_the_largest_budget_once_and_every_answer(tmp_path):
    sampled = {"metadata": {"num_samples": 2}, "gen_kwargs": {"temperature": 1.0}}
    (cell,) = sweep(tmp_path, grids=[{"methods": "none", "limit": 10, **sampled}])
    assert estimate(cell).tokens == 10 * 2 * (256 + 5 * 32)
    (apart,) = sweep(tmp_path, grids=[{"methods": "none", "limit": 10, "model_args": {"share_traces": False}}])
    assert estimate(apart).tokens == 10 * (16 + 32 + 64 + 128 + 256 + 5 * 32)
