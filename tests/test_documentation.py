"""README, CONTRIBUTING and docs: their Python runs, their links and paths exist, their tables are complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from lm_eval_pruned.config import PruneConfig, RunConfig, field_names
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.calibration.statistics import InputStatistics
from lm_eval_pruned.pruning.methods.kinds import METHODS

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
GENERATION = (
    "max_gen_toks", "until", "temperature", "top_p", "top_k", "min_p", "seed", "thinking_n_ignore",
    "thinking_n_ignore_str", "min_tokens_thinking", "until_thinking",
)  # fmt: skip
# Files that patch other packages, and how many places of each do.
PATCHES = {
    "_autoload.py": 1, "_harness.py": 3, "models/rounds.py": 1, "models/run_check.py": 1,
    "models/vllm/compatibility.py": 1, "pruning/checkpoint/offload.py": 1, "pruning/calibration/running.py": 1,
}  # fmt: skip


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower() for heading in headings}


def test_the_python_of_the_readme_runs():
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.skipif(
    "keep_torch_compile" not in inspect.signature(Accelerator.unwrap_model).parameters,
    reason="the Trainer of transformers needs a newer accelerate",
)
def test_zeros_stay_zero_while_a_checkpoint_is_trained():
    code = blocks("docs/recovery.md", "python")[0]
    names: dict[str, object] = {}
    exec(compile(code, "docs/recovery.md", "exec"), names)
    assert names["zeros"] >= names["report"].zero_weights > 400_000
    # The other weights were trained.
    dense = AutoModelForCausalLM.from_pretrained(bundled_folder())
    weight, before = (one.get_parameter("model.layers.0.mlp.up_proj.weight") for one in (names["model"], dense))
    assert (weight != before)[weight != 0].any()


def test_every_argument_has_a_row():
    text = (ROOT / "docs" / "arguments.md").read_text()
    rows = {
        name for row in re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert field_names(PruneConfig) | field_names(RunConfig) <= rows


def test_every_generation_argument_has_a_row():
    text = (ROOT / "docs" / "arguments.md").read_text()
    for name in ("thinking_token_budget", "max_tokens_thinking", *GENERATION, "thinking_start", "thinking_end"):
        assert f"`{name}`" in text, name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) < 900


def test_every_patch_refers_to_its_table():
    """A line that replaces an attribute of another package has a comment that names docs/harness-hook.md."""
    text = (ROOT / "docs" / "harness-hook.md").read_text()
    for path, patches in PATCHES.items():
        assert path in text
        assert (ROOT / "lm_eval_pruned" / path).read_text().count("docs/harness-hook.md") >= patches, path


def test_the_method_shown_to_newcomers_works(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.items()))
    code = blocks("CONTRIBUTING.md", "python")[0]
    assert len(code.splitlines()) <= 40
    exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), {"__name__": "squared"})
    score = METHODS["squared"].score(torch.tensor([[1.0, -2.0]]), InputStatistics(norm=torch.tensor([3.0, 0.5])))
    assert score.tolist() == [[9.0, 1.0]]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", (ROOT / name).read_text()):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/design.md", "docs/harness-hook.md"])
def test_paths_of_the_package_exist(name):
    """`folder/file.py` in code style is a file of the package, of one of its rooms, or of the repository."""
    rooms = [ROOT, ROOT / "lm_eval_pruned", *(path.parent for path in (ROOT / "lm_eval_pruned").rglob("__init__.py"))]
    for path in re.findall(r"`([\w./-]+(?:\.py|/))`", (ROOT / name).read_text()):
        assert path.startswith("tasks/mine") or any((room / path).exists() for room in rooms), path
