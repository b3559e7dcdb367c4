"""Methods and allocations of another package: installed with pip, found by name, used by `prune`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoModelForCausalLM

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.errors import PruningError, UnknownNameError
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.constant import CONSTANT
from lm_eval_pruned.pruning.methods.kinds import METHODS, score_method
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.registry import Registry, source_digest
from tests.environments import HOST_PACKAGES, ROOT, Environment

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "smallest-first"
version = "1.0"

[tool.hatch.build]
include = ["*.py"]

[project.entry-points."lm_eval_pruned.methods"]
largest = "smallest_first:largest"
forgotten = "smallest_first"
broken = "smallest_first:nowhere"
exiting = "smallest_first_exits"

[project.entry-points."lm_eval_pruned.allocations"]
deepest = "smallest_first:deepest"
"""
MODULE = '''
import torch

from lm_eval_pruned.pruning.allocations.kinds import allocation
from lm_eval_pruned.pruning.allocations.signals.constant import CONSTANT
from lm_eval_pruned.pruning.methods.kinds import score_method


@score_method("largest", compare="matrix", needs_calibration=False)
def largest(weight, statistics):
    """Remove the largest weights first."""
    return FACTOR * weight.float().abs()


@allocation("deepest", signal=CONSTANT)
def deepest(signal, target, sizes):
    """Prune the last block alone."""
    sparsities = torch.zeros(len(sizes), dtype=torch.float64)
    sparsities[-1] = target * sizes.sum() / sizes[-1]
    return sparsities


FACTOR = -1
'''
TINY = ("--pretrained", "tiny-reasoner")
TENTH = ("--sparsity", "0.1")
LARGEST = ("--method", "largest", *TENTH)
WRONG = {
    "larges": "unknown method 'larges': did you mean 'largest'?",
    "forgotten": "the package smallest-first promises method 'forgotten' and does not register it",
    "broken": "method 'broken' of the package smallest-first cannot be loaded",
    "exiting": "method 'exiting' of the package smallest-first cannot be loaded (SystemExit('no'))",
}
SCRIPT = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from lm_eval_pruned.cli import main

done = []
for command in json.loads(sys.argv[1]):
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(command)
    done.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


class Outcome(NamedTuple):
    """What a command returned and wrote."""

    code: int
    out: str
    err: str


class Installed:
    """An environment in which our package and one that extends it are installed."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "pyproject.toml").write_text(PROJECT)
        self.environment = Environment(folder / "environment")
        self.environment.add_path(ROOT)
        self.environment.add_path(HOST_PACKAGES)

    def install(self, module: str) -> None:
        (self.source / "smallest_first.py").write_text(module)
        (self.source / "smallest_first_exits.py").write_text('raise SystemExit("no")')
        self.environment.pip(
            "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall", self.source
        )

    def run(self, *commands: Sequence[str | Path]) -> list[Outcome]:
        """Run commands one after the other in a fresh interpreter, which imports once."""
        given = json.dumps([[*map(str, command)] for command in commands])
        return [Outcome(*one) for one in json.loads(self.environment.output("-W", "ignore", "-c", SCRIPT, given))]

    def prune(self, output: Path, *settings: Sequence[str]) -> list[dict[str, object]]:
        """Prune the bundled model with each of the settings, and return the reports."""
        folders = [output / str(place) for place in range(len(settings))]
        stored = ("--artifacts", output / "artifacts")
        done = self.run(
            *(
                ("prune", *TINY, *one, "--output", folder, *stored)
                for one, folder in zip(settings, folders, strict=True)
            )
        )
        assert [one.code for one in done] == [0] * len(settings), done
        return [json.loads((folder / "pruning_report.json").read_text()) for folder in folders]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    there = Installed(tmp_path_factory.mktemp("plugins"))
    there.install(MODULE)
    return there


def test_a_method_and_an_allocation_of_another_package_prune(installed, tmp_path):
    """And masks of an older version of the package are not reused."""
    report, deepest = installed.prune(tmp_path, LARGEST, ("--method", "magnitude", "--alloc", "deepest", *TENTH))
    assert report["achieved_sparsity"] == pytest.approx(0.1, abs=1e-4)
    assert [block["achieved"] > 0 for block in deepest["blocks"]] == [False] * 4 + [True]
    (again,) = installed.prune(tmp_path / "again", LARGEST)
    assert again["fingerprint"] == report["fingerprint"]
    installed.install(MODULE.replace("FACTOR = -1", "FACTOR = -2"))
    (changed,) = installed.prune(tmp_path / "changed", LARGEST)
    assert changed["fingerprint"] != report["fingerprint"]


def test_what_another_package_offers_is_listed_and_a_wrong_entry_point_is_one_sentence(installed, tmp_path):
    listed, *wrong = installed.run(
        ("list",), *(("prune", *TINY, "--method", name, *TENTH, "--output", tmp_path / name) for name in WRONG)
    )
    assert "Remove the largest weights first." in listed.out
    assert "Prune the last block alone." in listed.out
    for done, message in zip(wrong, WRONG.values(), strict=True):
        assert done.code == 2
        assert message in done.err
        assert done.err.count("\n") == 1


def test_a_method_defined_at_run_time_is_known_at_once():
    registry: Registry[int] = Registry("fruit")
    registry.add("apple", 1)
    with pytest.raises(UnknownNameError, match="unknown fruit 'appel': did you mean 'apple'"):
        registry["appel"]
    with pytest.raises(ValueError, match="fruit 'apple' is registered twice"):
        registry.add("apple", 2)


def test_the_source_of_another_package_is_digested_whole(tmp_path, monkeypatch):
    package = tmp_path / "someones_plugin"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "score.py").write_text("from someones_plugin.scale import SCALE\ndef score(): return SCALE\n")
    (package / "scale.py").write_text("SCALE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    score = importlib.import_module("someones_plugin.score").score
    first = source_digest(score)
    assert source_digest(partial(score, 1)) not in (first, source_digest(partial(score, 2)))
    (package / "scale.py").write_text("SCALE = 2\n")
    assert len({first, source_digest(score)}) == 2
    assert source_digest(Registry.add) == ""


def test_masks_of_code_that_is_in_no_file_are_not_stored(tmp_path, monkeypatch):
    namespace: dict[str, object] = {"__name__": "notebook"}
    exec('def prompted(weight, statistics):\n    "Prune by size."\n    return weight.float().abs()', namespace)
    assert source_digest(namespace["prompted"]) is None
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    score_method("prompted", compare="row", needs_calibration=False)(namespace["prompted"])
    model = AutoModelForCausalLM.from_pretrained(bundled_folder())
    report = prune_model(model, PruneConfig(method="prompted", sparsity=0.2), artifacts=tmp_path / "artifacts")
    assert report.zero_weights > 0
    assert not (tmp_path / "artifacts").exists()


def test_a_wrong_declaration_is_named():
    def undocumented(signal, target, sizes):
        return sizes

    with pytest.raises(ValueError, match="my_alpha: no such model argument"):
        allocation("wrong", signal=CONSTANT, settings=("my_alpha",))
    with pytest.raises(ValueError, match="needs a docstring"):
        allocation("wrong", signal=CONSTANT)(undocumented)


def test_sparsities_out_of_range_are_named():
    def excessive(signal, target, sizes):
        """Prune too much."""
        return sizes

    wrong = replace(resolve(PruneConfig(method="magnitude", sparsity=0.2)).allocation, allocate=excessive)
    recipe = replace(resolve(PruneConfig(method="magnitude", sparsity=0.2)), allocation=wrong)
    with pytest.raises(PruningError, match="it must give 5 numbers from 0 to 1"):
        prune_model(AutoModelForCausalLM.from_pretrained(bundled_folder()), recipe)


def test_unknown_names_are_listed_once():
    with pytest.raises(UnknownNameError, match="Known: angular, greedy, magnitude, none, ") as caught:
        PruneConfig(method="wandaa")
    assert str(caught.value).count("magnitude") == 1
