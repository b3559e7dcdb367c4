"""What README and CONTRIBUTING show is run; what they list exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lm_eval_pruned.config import PruneConfig, RunConfig, field_names
from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import METHODS

ROOT = Path(__file__).parent.parent


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def test_the_python_of_the_readme_runs():
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})


def test_the_readme_lists_every_argument():
    text = (ROOT / "README.md").read_text()
    for name in field_names(PruneConfig) | field_names(RunConfig):
        assert f"`{name}`" in text, name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_method_shown_to_newcomers_works(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.items()))
    code = blocks("CONTRIBUTING.md", "python")[0]
    assert len(code.splitlines()) <= 40
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), {"__name__": "squared"})
    score = METHODS["squared"].score(torch.tensor([[1.0, -2.0]]), InputStatistics(norm=torch.tensor([3.0, 0.5])))
    assert score.tolist() == [[9.0, 1.0]]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/methods.md"])
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text()):
        assert ((ROOT / name).parent / target).exists(), target
