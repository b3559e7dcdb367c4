"""Prune one family with one setting, and check the result against what `oracle` observed in its dense model."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import PrunedEvalError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.planning.plan import Plan, make_plan
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.recipe import resolve
from tests.architectures.families import VOCABULARY, tiny_model
from tests.architectures.oracle import Inputs, linear_weights, observe, routers
from tests.pruning.reference import rows_by_score

SPARSITY = 0.3
WINDOWS = 4
SEQLEN = 24
_ATTENTION = re.compile(r"attn(?!_hc|_hyper)|attention|mamba|conv|ssm|delta|temporal|recurrent|mlstm")
_MLP = re.compile(r"mlp|feed_forward|ffn|expert|moe|fc1|fc2|dense_h")
_INDEX = re.compile(r"(.*?\.\d+)\.")


class Outcome(NamedTuple):
    """What came of one family with one setting; `detail` is the refusal, the difference or the traceback."""

    status: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A tiny dense model, its windows, and what each of its weights does."""

    name: str
    model: PreTrainedModel
    windows: Tensor
    inputs: Mapping[tuple[str, int], Inputs]
    prunable: frozenset[str]
    unused: frozenset[str]
    cache_agrees: bool
    done: dict[PruneConfig, tuple[PreTrainedModel, PruneReport]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str) -> Family:
        model = tiny_model(name)
        generator = torch.Generator().manual_seed(7)
        windows = torch.randint(3, VOCABULARY - 2, (WINDOWS, SEQLEN), generator=generator)
        inputs = observe(model, windows)
        return cls(
            name=name,
            model=model,
            windows=windows,
            inputs=inputs,
            prunable=frozenset(_prunable(model, inputs)),
            # Cross-attention without an encoder, layers for drafts: whether their weights are pruned changes nothing.
            unused=frozenset(linear_weights(model) - {name for name, _ in inputs}),
            cache_agrees=bool(_cache_agrees(model, windows)),
        )

    def copy(self) -> PreTrainedModel:
        """Return the dense model anew; a deep copy would tie what only its class ties."""
        return tiny_model(self.name)

    def pruned(self, **settings: object) -> tuple[PreTrainedModel, PruneReport]:
        """Return a pruned copy and its report, the same ones for the same settings: nothing here may change them."""
        config = PruneConfig(**settings)  # type: ignore[arg-type]
        if config not in self.done:
            model = self.copy()
            self.done[config] = model, prune_model(model, config, self.windows)
        return self.done[config]


def _prunable(model: nn.Module, inputs: Mapping[tuple[str, int], Inputs]) -> Iterator[str]:
    """Name the parameters that multiply tokens inside a numbered block, and choose nothing."""
    linears, chosen = linear_weights(model), routers(inputs)
    # A module that chooses is a router with all its matrices.
    router_modules = {_router_module(name) for name in chosen}
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if not any(key == name for key, _ in inputs) or not _INDEX.match(name):
            continue
        in_list = isinstance(modules[_INDEX.match(name)[1]], nn.Linear)
        is_router = any(name.startswith(module) for module in router_modules)
        if in_list or is_router or 1 in parameter.shape[-2:]:
            continue
        if name in linears or (parameter.ndim == 3 and "conv" not in name) or _is_dbrx(name):
            yield name


def _router_module(name: str) -> str:
    match = re.match(r"(.*\.(?:gate|router|[a-z_]*gating|classifier|wg))\.", name)
    return f"{match[1]}." if match else name


def _is_dbrx(name: str) -> bool:
    return bool(re.search(r"ffn\.experts\.mlp\.(w1|v1|w2)$", name))


def check_counts(family: Family, model: nn.Module, sparsity: float) -> None:
    """Every prunable weight has lost its share, to within one of each row, and every other one nothing."""
    dense = dict(family.model.named_parameters())
    for name, parameter in model.named_parameters():
        before, after = int((dense[name] == 0).sum()), int((parameter == 0).sum())
        if name in family.unused:
            continue
        if name in family.prunable:
            rows = max(1, parameter.numel() // min(parameter.shape[-2:]))
            # Experts that compute nothing have no last projection.
            beside = model.get_submodule(name.rpartition(".")[0]).parameters(recurse=False)
            members = min(value.shape[0] for value in beside if value.ndim == 3) if parameter.ndim == 3 else 1
            wanted = parameter.numel() * sparsity * (members / parameter.shape[0] if parameter.ndim == 3 else 1)
            assert abs(after - before - wanted) <= rows, f"{name}: {after} zeros of {parameter.numel()}"
        else:
            assert after == before, f"{name} is none to prune, and has {after - before} new zeros"
            if name not in family.prunable:
                assert torch.equal(parameter, dense[name]), f"{name} is none to prune, and has changed"


def check_reload(family: Family, model: PreTrainedModel, folder: Path) -> None:
    """What is saved and read again computes the same, and generates the same with a cache as without."""
    model.save_pretrained(folder)
    again = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted, got = (one(input_ids=family.windows[:1], use_cache=False).logits for one in (model, again))
    assert torch.isfinite(wanted).all(), "logits are not finite"
    # Weights at another alignment can be multiplied in another order.
    assert torch.allclose(wanted, got, atol=1e-5), (
        f"logits differ by {(wanted - got).abs().max():.3g} after reading it again"
    )
    if family.cache_agrees:
        assert _cache_agrees(model, family.windows), "logits with a cache differ from those without"


def check_logits(family: Family, model: PreTrainedModel) -> None:
    """A pruned model still computes numbers."""
    with torch.no_grad():
        logits = model(input_ids=family.windows[:1], use_cache=False).logits
    assert torch.isfinite(logits).all(), "logits are not finite"


def _cache_agrees(model: PreTrainedModel, windows: Tensor) -> bool | None:
    """Compare the logits of new tokens with and without a cache, up to where the texts part; None without a cache."""
    try:
        with_cache, without = (
            model.generate(  # type: ignore[operator]
                windows[:1],
                max_new_tokens=4,
                do_sample=False,
                use_cache=use_cache,
                eos_token_id=None,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            ).logits
            for use_cache in (True, False)
        )
    except Exception:
        return None
    for one, other in zip(with_cache, without, strict=True):
        if not torch.allclose(one, other, atol=1e-3):
            return False
        if not torch.equal(one.argmax(dim=-1), other.argmax(dim=-1)):
            break
    return True


def check_masks(family: Family, model: nn.Module) -> None:
    """Wanda's masks follow from norms of whole forward passes, of a model whose earlier blocks are pruned."""
    reference, pruned = family.copy(), dict(model.named_parameters())
    blocks = list(
        dict.fromkeys(_INDEX.match(name)[1] for name, _ in reference.named_parameters() if name in family.prunable)
    )
    parameters = dict(reference.named_parameters())
    for block in blocks:
        names = [name for name in parameters if name in family.prunable and name.startswith(f"{block}.")]
        inputs = observe(reference, family.windows)
        for (name, offset), record in inputs.items():
            if name not in names:
                continue
            dense, found = (_member(one[name], offset, record) for one in (parameters, pruned))
            score = dense.abs() * record.squares.sqrt()
            wanted = rows_by_score(dense, score, SPARSITY) == 0
            differing = int((wanted != (found == 0)).sum())
            # Sums in another order can exchange two equal scores.
            assert differing <= dense.numel() // 500, f"{name}+{offset}: {differing} of {dense.numel()} are not Wanda's"
        # Of its unused weights too: tokens may be routed to other experts after earlier blocks are pruned.
        for name, parameter in parameters.items():
            if name.startswith(f"{block}."):
                parameter.data.copy_(pruned[name])


def _member(parameter: Tensor, offset: int, record: Inputs) -> Tensor:
    """Return the matrix [out in] that begins `offset` elements into a parameter."""
    columns = record.squares.numel()
    if parameter.ndim == 2 and offset == 0 and parameter.shape in ((record.rows, columns), (columns, record.rows)):
        return parameter.T if record.transposed and parameter.shape[0] == columns else parameter
    flat = parameter.flatten()[offset : offset + record.rows * columns]
    return flat.reshape(columns, record.rows).T if record.transposed else flat.reshape(record.rows, columns)


def check_influence(family: Family, report: PruneReport) -> None:
    """LayerIF's scores follow from the gradients of parameters."""
    model = family.copy()
    training, held_out = family.windows[:-1], family.windows[-1:]
    names = [name for name, _ in model.named_parameters() if name in family.prunable]

    def gradients(window: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        model(input_ids=window[None], labels=window[None], use_cache=False).loss.backward()
        return {
            name: parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if name in names and parameter.grad is not None
        }

    direction = gradients(held_out[0])
    blocks = list(dict.fromkeys(_INDEX.match(name)[1] for name in names))
    scores = dict.fromkeys(blocks, 0.0)
    for window in training:
        own = gradients(window)
        for block in blocks:
            inside = [name for name in own if name.startswith(f"{block}.") and name in direction]
            scores[block] += max(
                0.0, sum(float((own[name].double() * direction[name].double()).sum()) for name in inside)
            )
    assert report.scores is not None
    found = report.scores.reshape(-1)
    found = found[found != 0] if len(found) != len(blocks) else found
    wanted = np.array([*scores.values()])
    if len(found) != len(wanted):
        wanted = wanted[wanted != 0]
    assert np.allclose(found, wanted, rtol=2e-3, atol=1e-9), f"scores {found} and not {wanted}"


def check_dropped(family: Family, model: PreTrainedModel, removed: frozenset[int], container: str) -> None:
    """A model without some blocks computes what the dense one computes when those return their input."""
    dense = family.copy()
    blocks = dense.get_submodule(container)
    with torch.no_grad(), bypassed([blocks[index] for index in removed]):
        wanted = dense(input_ids=family.windows[:1], use_cache=False).logits
    with torch.no_grad():
        got = model(input_ids=family.windows[:1], use_cache=False).logits
    assert torch.allclose(wanted, got, atol=1e-6), f"logits differ by {(wanted - got).abs().max():.3g} from a bypass"


@contextmanager
def bypassed(blocks: list[nn.Module]) -> Iterator[None]:
    """Let blocks return their hidden states unchanged."""

    def skip(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> object:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handles = [block.register_forward_hook(skip, with_kwargs=True) for block in blocks]
    yield
    for handle in handles:
        handle.remove()


def dense_baseline(family: Family, folder: Path) -> None:
    model, _ = family.pruned(method="none")
    check_counts(family, model, 0.0)


def magnitude(family: Family, folder: Path) -> None:
    model, _ = family.pruned(method="magnitude", sparsity=SPARSITY)
    check_counts(family, model, SPARSITY)
    check_logits(family, model)


def wanda(family: Family, folder: Path) -> None:
    model, _ = family.pruned(method="wanda", sparsity=SPARSITY)
    check_masks(family, model)
    check_reload(family, model, folder)


def sparsegpt(family: Family, folder: Path) -> None:
    model, _ = family.pruned(method="sparsegpt", sparsity=SPARSITY)
    check_counts(family, model, SPARSITY)
    check_logits(family, model)


def scope(family: Family, folder: Path) -> None:
    for part, other in (("attn", _MLP), ("mlp", _ATTENTION)):
        model, _ = family.pruned(method="magnitude", sparsity=SPARSITY, scope=part)
        dense = dict(family.model.named_parameters())
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, dense[name])}
        wrong = [
            name
            for name in changed
            if other.search(_path(name)) and not {"attn": _ATTENTION, "mlp": _MLP}[part].search(_path(name))
        ]
        assert not wrong, f"scope={part} prunes {wrong[0]}"


def _path(name: str) -> str:
    return _INDEX.sub("", name, count=1)


def layerif(family: Family, folder: Path) -> None:
    _, report = family.pruned(method="magnitude", alloc="layerif", sparsity=SPARSITY, layerif_groups="block")
    check_influence(family, report)


def owl(family: Family, folder: Path) -> None:
    model, report = family.pruned(method="wanda", alloc="owl", sparsity=SPARSITY, propagate="dense")
    assert math.isclose(report.achieved_sparsity, SPARSITY, abs_tol=0.05), report.achieved_sparsity
    check_logits(family, model)


def shortgpt(family: Family, folder: Path) -> None:
    model, report = family.pruned(method="shortgpt", num_blocks=1)
    container = report.blocks[0].name.rpartition(".")[0] if hasattr(report.blocks[0], "name") else _container(family)
    check_dropped(family, model, frozenset(report.removed_blocks), container)
    check_reload(family, model, folder)


def _container(family: Family) -> str:
    name = next(name for name, _ in family.model.named_parameters() if name in family.prunable)
    return _INDEX.match(name)[1].rpartition(".")[0]


def part_by_part(family: Family, folder: Path) -> None:
    """`prune` writes bit for bit what is in memory, and every tensor of its source."""
    source, output = folder / "dense", folder / "pruned"
    family.copy().save_pretrained(source)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_folder() / name, source)
    np.save(folder / "windows.npy", family.windows.numpy())
    output.mkdir()
    settings = PruneConfig(
        method="wanda", sparsity=SPARSITY, calib=str(folder / "windows.npy"), calib_samples=WINDOWS, calib_seqlen=SEQLEN
    )
    prune_pretrained(str(source), resolve(settings), RunConfig(artifacts="off"), LoadOptions(), output=output)
    dense, written = _tensors(source), _tensors(output)
    assert dense.keys() == written.keys(), f"tensors differ: {sorted(dense.keys() ^ written.keys())[:3]}"
    model, _ = family.pruned(method="wanda", sparsity=SPARSITY)
    again = type(model).from_pretrained(output, dtype=torch.float32)
    inside = dict(model.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, inside[name]), f"{name} is not what is in memory"


def plan(family: Family, folder: Path) -> None:
    """`lm-eval-pruned plan`, which sees no weights, counts what pruning then does, and refuses what it refuses."""
    for settings in ({"method": "wanda", "sparsity": SPARSITY}, {"method": "shortgpt", "num_blocks": 1}):
        planned = _counted(lambda settings=settings: _planned(PruneConfig(**settings), family.model))
        done = _counted(lambda settings=settings: family.pruned(**settings)[1])
        # Which blocks are dropped, and so whether they can be, is known with the weights.
        depends = "num_blocks" in settings and isinstance(done, str)
        assert planned == done or depends, f"{settings['method']}: plan says {planned}, pruning {done}"


def _planned(config: PruneConfig, model: PreTrainedModel) -> Plan:
    with init_empty_weights(include_buffers=False):
        empty = type(model)(deepcopy(model.config))
    empty.tie_weights()
    return make_plan(resolve(config), empty)


def _counted(run: Callable[[], Plan | PruneReport]) -> tuple[object, ...] | str:
    """Return the numbers of prunable weights and zeros, or the refusal."""
    try:
        counted = run()
    except PrunedEvalError as error:
        return str(error)
    zeros = counted.zero_weights if counted.config["method"] == "wanda" else None
    return counted.prunable_weights, zeros


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


SETTINGS: Mapping[str, Callable[[Family, Path], None]] = {
    "none": dense_baseline,
    "magnitude": magnitude,
    "wanda": wanda,
    "sparsegpt": sparsegpt,
    "scope": scope,
    "owl": owl,
    "layerif": layerif,
    "shortgpt": shortgpt,
    "prune": part_by_part,
    "plan": plan,
}


def try_setting(family: Family, setting: str, folder: Path) -> Outcome:
    """Run one setting and say how it went; `FOLDER` stands for the name of the folder."""
    try:
        SETTINGS[setting](family, folder)
    except PrunedEvalError as error:
        outcome = Outcome("refused", " ".join(str(error).split()))
    except AssertionError as error:
        outcome = Outcome("wrong", str(error).splitlines()[0])
    except Exception as error:
        outcome = Outcome("crashed", f"{type(error).__name__}: {' '.join(str(error).split())}")
    else:
        outcome = Outcome("right")
    return outcome._replace(detail=outcome.detail.replace(str(folder), "FOLDER"))
