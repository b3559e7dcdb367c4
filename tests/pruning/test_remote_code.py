"""Models written by hand, as remote code writes them: other containers, other names, other kinds of calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.model.decoder import ROUTER, find_decoder
from lm_eval_pruned.pruning.model.drop_blocks import work_out

WIDTH = 8


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down(self.up(hidden).relu())


class Mixture(nn.Module):
    """A router and its experts: in a list, in a dict, or as numbered attributes."""

    def __init__(self, container: str) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 3)
        experts = [Expert() for _ in range(3)]
        if container == "attributes":
            for index, expert in enumerate(experts):
                self.add_module(f"expert_{index}", expert)
        else:
            named = {f"expert_{index}": expert for index, expert in enumerate(experts)}
            self.experts = nn.ModuleList(experts) if container == "list" else nn.ModuleDict(named)


CONTAINERS = {
    "ModuleList": nn.ModuleList,
    "ModuleDict": lambda blocks: nn.ModuleDict({f"block{index}": block for index, block in enumerate(blocks)}),
    "Sequential": lambda blocks: nn.Sequential(*blocks),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("experts", ["list", "dict", "attributes"])
def test_blocks_and_experts_are_found_in_every_container(container, experts):
    blocks = [nn.ModuleDict({"proj": nn.Linear(WIDTH, WIDTH), "moe": Mixture(experts)}) for _ in range(2)]
    model = nn.Module()
    model.layers = CONTAINERS[container](blocks)
    decoder = find_decoder(model)
    assert [len(block.linears) for block in decoder.blocks] == [7, 7]
    assert [item.reason for item in decoder.excluded] == [ROUTER, ROUTER]
    assert all(linear.routed == ("expert" in linear.name) for linear in decoder.linears)


def test_the_parts_of_a_model_in_a_dict_are_not_blocks():
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    parts = {"wte": nn.Embedding(9, WIDTH), "h": nn.ModuleList([block, nn.Identity()]), "head": nn.Linear(WIDTH, 9)}
    model = nn.Module()
    model.transformer = nn.ModuleDict(parts)
    decoder = find_decoder(model)
    assert [block.name for block in decoder.blocks] == ["transformer.h.0", "transformer.h.1"]
    assert [linear.name for linear in decoder.linears] == ["transformer.h.0.0"]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_single_fused_expert_is_an_expert(transposed):
    experts = nn.Module()
    shapes = [(1, WIDTH, 12), (1, 6, WIDTH)] if transposed else [(1, 12, WIDTH), (1, WIDTH, 6)]
    experts.gate_up_proj, experts.down_proj = (nn.Parameter(torch.zeros(shape)) for shape in shapes)
    model = nn.Module()
    model.layers = nn.ModuleList([nn.ModuleDict({"experts": experts, "proj": nn.Linear(WIDTH, WIDTH)})])
    names = [linear.name for linear in find_decoder(model).linears]
    assert names[-4:] == [
        *("layers.0.experts.0.gate_proj", "layers.0.experts.0.up_proj", "layers.0.experts.0.down_proj"),
        "layers.0.proj",
    ]


def test_blocks_are_dropped_from_a_list_only():
    model = nn.Module()
    model.layers = nn.Sequential(Expert(), Expert())
    with pytest.raises(PruningError, match="are in layers, which is not an nn.ModuleList"):
        work_out(find_decoder(model), [0])
