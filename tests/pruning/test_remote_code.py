"""Models written by hand, as remote code writes them: other containers, other names, other kinds of calls."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, PruningError
from lm_eval_pruned.pruning.engine import prune_model
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
    with pytest.raises(PruningError, match=r"are in layers, which is not an nn\.ModuleList"):
        work_out(find_decoder(model), [0])


class Block(Expert):
    """An MLP that multiplies in a way of its own."""

    def __init__(self, multiply: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__()
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.multiply(self.up, x).relu())


class Model(nn.Module):
    """Blocks that are called in a way of their own."""

    def __init__(self, multiply=nn.Linear.__call__, call=lambda block, hidden: block(hidden)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 50)
        self.layers = nn.ModuleList([Block(multiply) for _ in range(3)])
        self.call = call

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, use_cache: bool = False) -> SimpleNamespace:
        hidden = self.embedding(input_ids)
        for block in self.layers:
            hidden = self.call(block, hidden)
        logits = self.head(hidden)
        loss = None if labels is None else functional.cross_entropy(logits[0, :-1], labels[0, 1:])
        return SimpleNamespace(logits=logits, loss=loss)


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(50, (4, 20), generator=torch.Generator().manual_seed(5))


def wrapped(kind: Callable[[Tensor], object], read: Callable[[object], Tensor]) -> Model:
    """Return a model whose blocks return their hidden states as something else."""
    model = Model(call=lambda block, hidden: read(block(hidden)))
    for block in model.layers:
        block.forward = lambda x, inner=block.forward: kind(inner(x))
    return model


ONE_BY_ONE = {
    "another name": lambda: Model(call=lambda block, hidden: block(x=hidden)),
    "weight on the left": lambda: Model(lambda linear, x: (linear.weight @ x.mT).mT + linear.bias),
    "transposed weight": lambda: Model(lambda linear, x: x @ linear.weight.T + linear.bias),
    "keywords": lambda: Model(lambda linear, x: functional.linear(weight=linear.weight, bias=linear.bias, input=x)),
    "dict": lambda: wrapped(lambda output: {"hidden": output}, lambda output: output["hidden"]),
    "object": lambda: wrapped(lambda output: SimpleNamespace(hidden=output), lambda output: output.hidden),
    "list": lambda: wrapped(lambda output: [output], lambda output: output[0]),
    "something else first": lambda: wrapped(lambda output: (None, output), lambda output: output[1]),
}


@pytest.mark.parametrize("settings", [{"method": "wanda"}, {"method": "magnitude", "alloc": "layerif"}])
@pytest.mark.parametrize("way", ONE_BY_ONE)
def test_any_way_of_calling_and_multiplying_gives_the_same(way, settings, windows):
    expected, model = Model(), ONE_BY_ONE[way]()
    for one in (expected, model):
        prune_model(one, PruneConfig(sparsity=0.5, **settings), windows)
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


HIDDEN = {
    "einsum": (lambda linear, x: torch.einsum("oi,bti->bto", linear.weight, x), "it enters einsum"),
    "scaled": (lambda linear, x: x @ (linear.weight / 2).T, "it enters div"),
    "converted": (lambda linear, x: (x.double() @ linear.weight.double().T).float(), "it enters double"),
    "in parts": (
        lambda linear, x: torch.cat([functional.linear(x, part) for part in linear.weight.chunk(2)], dim=-1),
        "a part or the transpose",
    ),
}


@pytest.mark.parametrize("settings", [{"method": "wanda"}, {"method": "magnitude", "alloc": "layerif"}])
@pytest.mark.parametrize("way", HIDDEN)
def test_a_weight_whose_inputs_cannot_be_observed_is_refused(way, settings, windows):
    multiply, reason = HIDDEN[way]
    with pytest.raises(PruningError, match=rf"^the inputs of layers\.0\.up cannot be observed, because {reason}"):
        prune_model(Model(multiply), PruneConfig(sparsity=0.5, **settings), windows)
    prune_model(Model(multiply), PruneConfig(method="magnitude", sparsity=0.5), windows)


def test_a_square_weight_that_is_multiplied_transposed_is_not_taken_for_the_matrix(windows):
    model = Model(lambda linear, x: x @ linear.weight)
    for block in model.layers:
        block.up, block.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    with pytest.raises(PruningError, match="a part or the transpose of it is multiplied"):
        prune_model(model, PruneConfig(method="wanda", sparsity=0.5), windows)


def test_what_has_no_gradient_is_refused_in_a_sentence(windows):
    model = Model(call=lambda block, hidden: block(hidden).exp().add_(1))
    with pytest.raises(PruningError, match="Model has no gradient of a loss of token ids"):
        prune_model(model, PruneConfig(method="magnitude", sparsity=0.5, alloc="layerif"), windows)
    with pytest.raises(PruningError, match="in a value of type dict, not as a tensor"):
        prune_model(ONE_BY_ONE["dict"](), PruneConfig(method="shortgpt", num_blocks=1), windows)


def test_windows_of_one_token_have_no_loss():
    windows = [torch.tensor([index]) for index in range(4)]
    prune_model(Model(), PruneConfig(method="wanda", sparsity=0.5), windows)
    with pytest.raises(ArgumentError, match="windows of at least two tokens"):
        prune_model(Model(), PruneConfig(method="magnitude", sparsity=0.5, alloc="layerif"), windows)
