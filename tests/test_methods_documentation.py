"""docs/methods.md has a section for each method and allocation that agrees with its docstring."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.methods import (
    METHODS,
    DropMethod,
    ExpertMethod,
    PositionMethod,
    ScoreMethod,
    SearchMethod,
    SolveMethod,
    WidthMethod,
)

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "methods.md").read_text()
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))


def function(name: str) -> Callable[..., object]:
    if name in ALLOCATIONS:
        return ALLOCATIONS[name].allocate
    match METHODS[name]:
        case ScoreMethod(score=score):
            return score
        case SolveMethod(solve=solve):
            return solve
        case DropMethod(influence=influence):
            return influence
        case PositionMethod(choose=choose):
            return choose
        case SearchMethod(search=search):
            return search
        case WidthMethod(score=score) | ExpertMethod(score=score):
            return score


def test_nothing_else_has_a_section():
    assert SECTIONS.keys() == {"none", "lists", *METHODS, *ALLOCATIONS}


@pytest.mark.parametrize("name", [*METHODS, *ALLOCATIONS])
def test_a_section_cites_and_costs(name):
    assert "\n- **Cost:** " in SECTIONS[name]
    docstring = function(name).__doc__
    cited = set(re.findall(r"arXiv (\d{4}\.\d{5})", docstring))
    assert cited <= set(re.findall(r"\d{4}\.\d{5}", SECTIONS[name]))
    assert ("Reference:" in docstring) == ("\n- **Source:** " in SECTIONS[name])
    assert ("Differs:" not in docstring) or "\n- **Differs:** " in SECTIONS[name]


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_a_section_names_the_arguments(name):
    allocation = ALLOCATIONS[name]
    for argument in (*allocation.settings, *([allocation.split_by] if allocation.split_by else [])):
        assert argument in SECTIONS[name], argument


def test_the_contents_lead_to_every_section():
    assert set(SECTIONS) <= set(re.findall(r"\]\(#([\w-]+)\)", TEXT))
    headings = {
        re.sub(r"[^\w -]", "", title).replace(" ", "-").lower() for title in re.findall(r"^#+ (.*)", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#(\S+)\)", TEXT)) <= headings


def test_the_picture_is_small():
    assert (ROOT / "docs" / "allocations.png").stat().st_size < 60_000
