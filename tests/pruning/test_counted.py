"""Windows of which some tokens do not count: statistics equal slow loops over the others, for every method."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.calibration import backward, calibrator
from lm_eval_pruned.pruning.calibration.counted import CountedWindows, select_counted
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.methods import METHODS, SolveMethod
from tests.architectures.families import tiny_model
from tests.pruning import reference
from tests.pruning.test_drop_blocks import mixture
from tests.pruning.test_reap import spread

CALIBRATED = sorted(name for name, method in METHODS.items() if method.needs_calibration)
READING = sorted(name for name, allocation in ALLOCATIONS.items() if allocation.signal.needs_windows)
# The first tokens of every window that count, where the others do not: no token of a causal model sees later ones.
FIRST = 17


@pytest.fixture
def random(windows) -> CountedWindows:
    """A third of the tokens count, in no order; none of the second window."""
    counted = torch.rand(windows.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    counted[1] = False
    return CountedWindows(windows, counted)


def settings_of(method: str) -> dict[str, object]:
    amount = {"num_blocks": 1} if METHODS[method].drops_blocks else {"sparsity": 0.5}
    return {"method": method, **amount}


def model_for(method: str, model: nn.Module) -> nn.Module:
    if method != "reap":
        return model
    experts = spread(mixture(vocab_size=97))
    if not hasattr(experts.model.layers[0].mlp.experts, "gate_up_proj"):
        pytest.skip("releases of transformers before 5 keep one Linear an expert")
    return experts


def pruned(model: nn.Module, config: PruneConfig, windows) -> nn.Module:
    found = copy.deepcopy(model)
    prune_model(found, config, windows)
    return found


def assert_same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, mine), (other_name, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(mine != 0, theirs != 0), name
        torch.testing.assert_close(mine, theirs, **({"rtol": 0, "atol": 0} | tolerance))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "shortgpt", "greedy"])
def test_windows_that_count_as_a_whole_are_plain_windows(model, windows, method):
    dense, config = model_for(method, model), PruneConfig(**settings_of(method))
    counted = CountedWindows(windows, torch.ones_like(windows, dtype=torch.bool))
    assert_same(pruned(dense, config, counted), pruned(dense, config, windows))


@pytest.mark.parametrize(
    ("settings", "whole"),
    [
        *((settings_of(method), False) for method in CALIBRATED),
        ({"method": "greedy", "num_blocks": 1, "greedy_by": "kl"}, False),
        ({"method": "wanda", "sparsity": 0.5, "propagate": "dense"}, False),
        *((settings_of(method), True) for method in ("wanda", "shortgpt", "reap")),
    ],
    ids=str,
)
def test_tokens_at_the_end_that_do_not_count_might_as_well_be_missing(model, windows, settings, whole, monkeypatch):
    if whole:
        monkeypatch.setattr(calibrator, "record", lambda *_: None)
    dense = model_for(settings["method"], model)
    counted = torch.arange(windows.shape[1]).lt(FIRST).expand(windows.shape)
    solves = isinstance(METHODS[settings["method"]], SolveMethod)
    assert_same(
        pruned(dense, PruneConfig(**settings), CountedWindows(windows, counted)),
        pruned(dense, PruneConfig(**settings), windows[:, :FIRST]),
        **({"rtol": 1e-4, "atol": 1e-5} if solves else {}),
    )


@pytest.mark.parametrize(("alloc", "whole"), [*((name, False) for name in READING), ("layerif", True)])
def test_allocations_might_as_well_miss_them(model, windows, alloc, whole, monkeypatch):
    if whole:
        monkeypatch.setattr(backward, "_digests", lambda *_: object())
    counted = torch.arange(windows.shape[1]).lt(FIRST).expand(windows.shape)
    config = PruneConfig(method="magnitude", sparsity=0.6, alloc=alloc, search_evaluations=9)

    def sparsities(given) -> list[float]:
        blocks = prune_model(copy.deepcopy(model), config, given).blocks
        return [number for block in blocks for number in (block.attn, block.mlp)]

    found = sparsities(CountedWindows(windows, counted))
    assert found == pytest.approx(sparsities(windows[:, :FIRST]), abs=1e-5)
    assert found != pytest.approx(sparsities(windows), abs=1e-5)


@torch.no_grad()
def counted_norms(model: nn.Module, block: nn.Module, windows: CountedWindows) -> dict[str, Tensor]:
    """Run the whole model over each window, and add the squares of one input of one token after another."""
    inputs: dict[str, list[Tensor]] = {}
    handles = [
        linear.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, []).append(args[0][0]))
        for name, linear in reference.linears(block).items()
    ]
    for window in windows:
        model(window[None])
    for handle in handles:
        handle.remove()
    norms = {}
    for name, seen in inputs.items():
        total = torch.zeros(seen[0].shape[-1])
        for window, counted in zip(seen, windows.counted, strict=True):
            for token, is_counted in zip(window, counted.tolist(), strict=True):
                if is_counted:
                    total += token**2
        norms[name] = total.sqrt()
    return norms


@torch.no_grad()
def test_wanda_and_owl_equal_slow_loops_over_the_tokens_that_count(model, random, monkeypatch):
    expected = copy.deepcopy(model)
    for block in expected.model.layers:
        norms = counted_norms(expected, block, random)
        for name, linear in reference.linears(block).items():
            linear.weight.copy_(reference.rows_by_score(linear.weight, linear.weight.abs() * norms[name], 0.5))
    assert_same(pruned(model, PruneConfig(method="wanda", sparsity=0.5), random), expected)
    monkeypatch.setattr(reference, "input_norms", counted_norms)
    slow = reference.owl_sparsities(model, random, 0.5, owl_m=3, owl_lambda=0.08)
    config = PruneConfig(method="magnitude", sparsity=0.5, alloc="owl", owl_m=3)
    assert [one.attn for one in prune_model(model, config, random).blocks] == pytest.approx(slow, abs=1e-6)


def test_experts_whose_tokens_are_not_known_are_refused(windows):
    counted = CountedWindows(windows, torch.ones_like(windows, dtype=torch.bool))
    with pytest.raises(PruningError, match=r"nothing says which tokens are routed to .*: use calib_tokens=all"):
        prune_model(tiny_model("jetmoe"), PruneConfig(method="wanda", sparsity=0.5), counted)


def test_rows_that_are_not_tokens_are_refused():
    counted = torch.tensor([True, False, True])
    assert select_counted(torch.arange(6.0).reshape(1, 3, 2), counted, "x").tolist() == [[[0, 1], [4, 5]]]
    with pytest.raises(PruningError, match=r"x has \[1, 4, 2\] in a window of 3 tokens, .*use calib_tokens=all"):
        select_counted(torch.zeros(1, 4, 2), counted, "x")


def test_a_search_without_a_token_that_counts_is_refused(model, windows):
    none = CountedWindows(windows, torch.zeros_like(windows, dtype=torch.bool))
    with pytest.raises(ArgumentError, match="no token of the windows that a search compares counts"):
        prune_model(model, PruneConfig(method="greedy", num_blocks=1), none)


def test_what_counts_is_in_the_fingerprint(model, windows, random):
    config = PruneConfig(method="wanda", sparsity=0.5)
    reports = [prune_model(copy.deepcopy(model), config, one) for one in (windows, random)]
    assert reports[0].fingerprint != reports[1].fingerprint
