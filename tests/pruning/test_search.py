"""`alloc=search`: level switches keep the mean, fitness equals a slow loop, and an interrupted search goes on."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch

from lm_eval_pruned import cli
from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.allocations.level_switches import search_levels, switched
from lm_eval_pruned.pruning.allocations.signals import searched
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS

SETTINGS = {"sparsity": 0.6, "alloc": "search", "search_evaluations": 7}


def mean(sparsities, sizes):
    return float((sparsities * sizes).sum() / sizes.sum())


@pytest.mark.parametrize("target", [0.0, 0.02, 0.5, 0.985])
@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [7, 0, 1, 300, 2], [3], [0, 5], [4, 9]])
def test_every_candidate_has_the_mean_and_stays_in_range(target, sizes):
    sizes, candidates, probes = torch.tensor(sizes).double(), [], []

    def fitness(sparsities):
        reached = mean(sparsities, sizes)
        (candidates if reached == pytest.approx(target, abs=1e-9) else probes).append(sparsities)
        assert reached < target + 1e-9
        assert ((sparsities >= 0) & (sparsities <= 0.99)).all()
        return float((sparsities[-1] - 0.7).abs())

    found = search_levels(fitness, target, sizes, evaluations=40, seed=1)
    evaluated, blocks = len(candidates) + len(probes), int((sizes > 0).sum())
    assert found.evaluations == evaluated <= 40
    assert found.fitness == min(float((one[-1] - 0.7).abs()) for one in candidates)
    assert evaluated == 40 or target == 0 or blocks == 1
    # Each block is probed alone, and gets a tenth of its weights back.
    assert len(probes) == (0 if target == 0 or blocks == 1 else blocks)
    for probe in probes:
        assert (target - probe[sizes > 0] > 1e-9).sum() == 1
        assert float((target - probe[sizes > 0]).max()) == pytest.approx(min(target, 0.1))


@pytest.mark.parametrize("growth", [4.0, 10.0, 30.0])
def test_the_best_allocation_is_found_where_damage_grows_exponentially(growth):
    """The minimum of sum a_l w_l exp(growth s_l) with a given mean is at s_l = c - ln(a_l) / growth."""
    worth, sizes = torch.tensor([8.0, 3.0, 1.0, 1.5, 2.0, 5.0]), torch.tensor([2.0, 1.0, 1.0, 3.0, 1.0, 2.0]).double()
    found = search_levels(
        lambda s: float((worth * sizes * (growth * s).exp()).sum()), 0.5, sizes, evaluations=20, seed=0
    )
    expected = -worth.log() / growth
    expected += 0.5 - mean(expected, sizes)
    assert found.sparsities.tolist() == pytest.approx(expected.tolist(), abs=0.03)


def test_runs_of_a_deep_model_are_probed():
    deep, seen = torch.ones(30).double(), []
    search_levels(lambda s: seen.append(s) or 1.0, 0.5, deep, evaluations=25, seed=0)
    probed = [[index for index, one in enumerate(s.tolist()) if one < 0.45] for s in seen[1:13]]
    assert [index for one in probed for index in one] == list(range(30))
    assert [len(one) for one in probed] == [1, *[3] * 8, *[2] * 2, 1]
    assert len(seen) == 25


def test_few_evaluations_are_switches_alone():
    sizes, seen = torch.ones(4).double(), []
    search_levels(lambda s: seen.append(s) or 1.0, 0.5, sizes, evaluations=4, seed=0)
    assert len(seen) == 4
    assert all(mean(one, sizes) == pytest.approx(0.5) for one in seen)


def test_a_switch_stops_at_the_bounds():
    sizes = torch.tensor([1.0, 4.0])
    assert switched(torch.tensor([0.95, 0.5]).double(), sizes, [0], [1], 0.1).tolist() == pytest.approx([0.99, 0.49])
    assert switched(torch.tensor([0.03, 0.5]).double(), sizes, [1], [0], 0.1).tolist() == pytest.approx([0, 0.5075])


def slow_fitness(model, windows, sparsities):
    """Prune a copy by Wanda from dense input norms, matrix by matrix, and average KL token by token."""
    pruned, inputs = copy.deepcopy(model), {}
    linears = {
        f"{index}.{name}": module
        for index, block in enumerate(model.model.layers)
        for name, module in block.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    hooks = [
        module.register_forward_hook(lambda _, args, __, name=name: inputs.setdefault(name, []).append(args[0][0]))
        for name, module in linears.items()
    ]
    for window in windows[:-1]:
        model(window[None])
    for hook in hooks:
        hook.remove()
    for name in linears:
        index, _, path = name.partition(".")
        weight = pruned.model.layers[int(index)].get_submodule(path).weight
        score = weight.abs() * torch.cat(inputs[name]).norm(dim=0)
        for row, scores in enumerate(score):
            count = int(len(scores) * sparsities[int(index)])
            weight[row, scores.argsort(stable=True)[:count]] = 0
    total, held_out = 0.0, windows[-1]
    before, after = (one(held_out[None]).logits[0, :-1].double().log_softmax(-1) for one in (model, pruned))
    for p, q in zip(before, after, strict=True):
        total += sum(math.exp(a) * (a - b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    return total / len(before)


@torch.no_grad()
def test_fitness_equals_a_slow_loop_and_the_best_candidate_is_pruned(model, windows, tmp_path, monkeypatch):
    dense, rows = copy.deepcopy(model), []
    once = searched.Journal.once

    def noted(journal, name, measure):
        rows.append((torch.tensor(json.loads(name), dtype=torch.float64), once(journal, name, measure)))
        return rows[-1][1]

    monkeypatch.setattr(searched.Journal, "once", noted)
    report = prune_model(model, PruneConfig(method="wanda", **SETTINGS), windows, artifacts=tmp_path)
    assert len(rows) == 7
    for sparsities, kl in rows[:1] + rows[-2:]:
        assert kl == pytest.approx(slow_fitness(dense, windows, sparsities.tolist()), rel=1e-4)
    candidates = [row for row in rows if float(row[0].mean()) == pytest.approx(0.6)]
    assert len(candidates) == 4
    best = min(candidates, key=lambda row: row[1])[0]
    assert [block.attn for block in report.blocks] == pytest.approx(best.tolist(), abs=1e-12)
    assert best.tolist() != rows[0][0].tolist()


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].reshapes])
def test_the_dense_model_is_pruned_whatever_the_method(model, windows, method):
    listed = copy.deepcopy(model)
    config = PruneConfig(method=method, scope="mlp", exclude=r"layers\.1\.", **SETTINGS)
    report = prune_model(model, config, windows)
    assert report.blocks[1].mlp == report.blocks[0].attn == 0
    assert report.achieved_sparsity == pytest.approx(0.6, abs=0.03)
    sparsities = [block.mlp for block in report.blocks]
    targets = {item.target for item in report.linears}
    assert targets == {one for index, one in enumerate(sparsities) if index != 1}
    # The search left nothing in the weights.
    again = prune_model(listed, config, windows)
    assert again.blocks == report.blocks
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), listed.parameters(), strict=True))


def test_an_interrupted_search_goes_on_where_it_was(model, windows, tmp_path, monkeypatch):
    config = PruneConfig(method="magnitude", **SETTINGS)
    expected = prune_model(copy.deepcopy(model), config, windows)
    calls, fitness = [], searched.mean_kl

    def interrupted(*args):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(fitness(*args))
        return calls[-1]

    monkeypatch.setattr(searched, "mean_kl", interrupted)
    first = copy.deepcopy(model)
    with pytest.raises(KeyboardInterrupt):
        prune_model(first, config, windows, artifacts=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), first.parameters(), strict=True))
    (journal,) = tmp_path.glob("*.search.jsonl")
    with journal.open("a") as file:
        file.write('\n["[0.1')
    monkeypatch.setattr(searched, "mean_kl", lambda *args: calls.append(0) or fitness(*args))
    assert prune_model(model, config, windows, artifacts=tmp_path).blocks == expected.blocks
    assert len(calls) == 7
    assert not list(tmp_path.glob("*.search.jsonl"))


def test_the_seed_and_the_number_of_evaluations_are_in_the_fingerprint(model, windows):
    settings = [{}, {"search_seed": 1}, {"search_evaluations": 8}]
    configs = [PruneConfig(method="magnitude", **SETTINGS | one) for one in settings]
    reports = [prune_model(copy.deepcopy(model), config, windows) for config in configs]
    assert len({report.fingerprint for report in reports}) == 3


@pytest.mark.parametrize(
    ("samples", "seqlen", "message"), [(1, 24, "at least two calibration windows"), (3, 1, "at least two tokens")]
)
def test_too_little_text_is_refused(model, windows, samples, seqlen, message):
    with pytest.raises(ArgumentError, match=message):
        prune_model(model, PruneConfig(method="wanda", **SETTINGS), windows[:samples, :seqlen])


def test_no_evaluation_is_refused():
    with pytest.raises(ArgumentError, match="search_evaluations=0 is too small: give at least 1"):
        PruneConfig(method="wanda", sparsity=0.5, alloc="search", search_evaluations=0)


def test_the_written_list_gives_the_same_weights(tmp_path):
    shared = ["prune", "--pretrained", "tiny-reasoner", "--method", "magnitude", "--artifacts", "off"]
    searched_for = [*shared, "--sparsity", "0.6", "--alloc", "search", "--search_evaluations", "2"]
    assert cli.main([*searched_for, "--output", str(tmp_path / "a")]) == 0
    listed = str(tmp_path / "a" / "sparsities.json")
    assert len(json.loads((tmp_path / "a" / "sparsities.json").read_text())) == 5
    assert cli.main([*shared, "--alloc", listed, "--output", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
