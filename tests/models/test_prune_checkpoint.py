"""Pruning of a checkpoint to a new one: the generation config is copied unchanged."""

from __future__ import annotations

import json
import shutil

import pytest

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve

# Read by every transformers, and refused by most when it is to be written: nothing is sampled at this temperature.
ODD = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 258}


@pytest.mark.parametrize("trust", [False, True], ids=["offloaded", "loaded whole"])
@pytest.mark.parametrize("content", [None, ODD], ids=["none", "odd"])
def test_the_generation_config_stays_as_it_is(tmp_path, trust, content):
    source, output = tmp_path / "dense", tmp_path / "pruned"
    shutil.copytree(bundled_folder(), source)
    output.mkdir()
    (source / "generation_config.json").unlink(missing_ok=True)
    if content is not None:
        (source / "generation_config.json").write_text(json.dumps(content))
    recipe, run = resolve(PruneConfig(method="magnitude", sparsity=0.5)), RunConfig(artifacts="off")
    prune_pretrained(str(source), recipe, run, LoadOptions(trust_remote_code=trust), output=output)
    written = output / "generation_config.json"
    assert (json.loads(written.read_text()) if written.exists() else None) == content
