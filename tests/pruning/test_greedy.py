"""A greedy search for blocks: each step equals trying every block, and an interrupted search goes on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning import damage
from lm_eval_pruned.pruning.engine import prune_model


def without(model: nn.Module, removed: list[int]) -> nn.Module:
    shorter = copy.deepcopy(model)
    shorter.model.layers = nn.ModuleList(
        block for index, block in enumerate(shorter.model.layers) if index not in removed
    )
    shorter.config.num_hidden_layers -= len(removed)
    shorter.config.layer_types = shorter.config.layer_types[: shorter.config.num_hidden_layers]
    return shorter


@torch.no_grad()
def slow_damage(model: nn.Module, windows: Tensor, removed: list[int], by: str) -> float:
    shorter, found = without(model, removed), []
    for window in windows:
        after = shorter(window[None], use_cache=False).logits[0, :-1].log_softmax(-1)
        before = model(window[None], use_cache=False).logits[0, :-1].log_softmax(-1)
        for place, token in enumerate(window[1:]):
            p, q = before[place], after[place]
            found.append(-float(q[token]) if by == "perplexity" else float((p.exp() * (p - q)).sum()))
    return sum(found) / len(found)


def slow_greedy(model: nn.Module, windows: Tensor, count: int, by: str) -> list[int]:
    removed: list[int] = []
    for _ in range(count):
        damages = {
            block: slow_damage(model, windows, [*removed, block], by) for block in range(4) if block not in removed
        }
        removed.append(min(damages, key=damages.__getitem__))
    return removed


@pytest.fixture
def loud(model):
    """Blocks that do so much that it matters which of them are left out."""
    for index, block in enumerate(model.model.layers):
        for weight in block.parameters():
            weight.data.mul_((6.0, 4.0, 5.0, 3.0)[index] if weight.ndim > 1 else 1.0)
    model.lm_head.weight.data.mul_(20)
    return model


@pytest.mark.parametrize("by", ["perplexity", "kl"])
def test_the_blocks_whose_absence_hurts_least_go(loud, windows, by):
    expected = slow_greedy(loud, windows, 2, by)
    report = prune_model(loud, PruneConfig(method="greedy", num_blocks=2, greedy_by=by), windows)
    assert report.removed_blocks == sorted(expected)
    assert len(loud.model.layers) == 2
    assert report.achieved_sparsity == 0.5


def test_an_interrupted_search_goes_on(loud, windows, tmp_path, monkeypatch):
    config = PruneConfig(method="greedy", num_blocks=2)
    expected = prune_model(copy.deepcopy(loud), config, windows).removed_blocks
    measured = []
    original = damage.mean_loss

    def interrupted(*given):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(original(*given))
        return measured[-1]

    monkeypatch.setattr(damage, "mean_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prune_model(copy.deepcopy(loud), config, windows, artifacts=tmp_path)
    (journal,) = tmp_path.glob("*.search.jsonl")
    assert len(journal.read_text().split()) == 2 * 3
    measured.clear()

    def counted(*given):
        measured.append(original(*given))
        return measured[-1]

    monkeypatch.setattr(damage, "mean_loss", counted)
    assert prune_model(copy.deepcopy(loud), config, windows, artifacts=tmp_path).removed_blocks == expected
    assert len(measured) == 4 + 3 - 3
    assert not journal.exists()
    # The artifact is read: nothing is measured.
    assert prune_model(loud, config, windows, artifacts=tmp_path).removed_blocks == expected
    assert len(measured) == 4


def test_named_blocks_are_not_searched_for(model):
    assert prune_model(model, PruneConfig(method="greedy", blocks="1+2")).removed_blocks == [1, 2]


def test_windows_of_one_token_are_refused(model, windows):
    with pytest.raises(ArgumentError, match="windows of at least two tokens"):
        prune_model(model, PruneConfig(method="greedy", num_blocks=1), windows[:, :1])
