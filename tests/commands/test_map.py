"""The command `lm-eval-pruned map`: every part of every block alone, the model as it was after each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_eval_pruned import PruneConfig, prune_model
from lm_eval_pruned.cli import main
from lm_eval_pruned.config import TRACES
from lm_eval_pruned.divergence.head import divide
from lm_eval_pruned.divergence.measure import dense_traces, mean_kl
from lm_eval_pruned.models import sensitivity
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.results.divergence.summary import MEANING
from tests.dense_samples import write_samples


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_samples(tmp_path)


def test_the_map_of_the_bundled_model(tmp_path, samples, capsys, monkeypatch):
    kept = []
    measure = sensitivity.diverge
    monkeypatch.setattr(
        sensitivity, "diverge", lambda model, along: kept.append((model, along)) or measure(model, along)
    )
    flags = ["--traces", str(samples), "--output", str(tmp_path / "map"), "--sparsities", "0.9,0.5", "--parts", "block"]
    assert main(["map", "--pretrained", "tiny-reasoner", *flags]) == 0
    content = json.loads((tmp_path / "map" / "map.json").read_text())
    cells = {(cell["block"], cell["sparsity"]): cell for cell in content["cells"]}
    assert sorted(cells) == [(block, sparsity) for block in range(5) for sparsity in (0.5, 0.9)]
    model, along = kept[0]
    # The same cell by the ordinary way, in which all other blocks are left alone.
    alone = AutoModelForCausalLM.from_pretrained(bundled_folder()).eval()
    prune_model(alone, PruneConfig(method="magnitude", sparsity=0.9, exclude=r"layers\.[0-24]"))
    assert cells[3, 0.9]["kl"] == pytest.approx(mean_kl(divide(alone, torch.tensor([[1, 2]])), along), rel=1e-4)
    # The model is dense again.
    assert mean_kl(model, along) == 0
    assert mean_kl(model, dense_traces(model, along.traces)) == 0
    output = capsys.readouterr().out
    assert "most changed: 0 > 1" in output
    assert MEANING in output
    assert (tmp_path / "map" / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--parts", "head"], "unknown parts 'head'"),
        (["--sparsity", "0.5"], "give --sparsities 0.5"),
        (["--sparsities", "0.5,1"], "are not fractions between 0 and 1"),
        (["--sparsities", "half"], "are not fractions between 0 and 1"),
        (["--method", "shortgpt"], "removes no single weights"),
        (["--method", "wanda", "--calib", f"{TRACES}:nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_mistakes_are_found_before_any_weight_is_read(tmp_path, samples, monkeypatch, capsys, flags, error):
    monkeypatch.setattr("lm_eval_pruned.models.prune_checkpoint.load_checkpoint", None)
    given = ["--pretrained", "tiny-reasoner", "--traces", str(samples), "--output", str(tmp_path / "out")]
    assert main(["map", *given, *flags]) == 2
    assert error in capsys.readouterr().err
