from __future__ import annotations

import json
import shutil

import pytest

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.paths import bundled_folder

# Read by every transformers, and refused by most when it is to be written: nothing is sampled at this temperature.
ODD = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 258}


@pytest.mark.parametrize("loading", [{}, {"trust_remote_code": True}], ids=["part by part", "as a whole"])
@pytest.mark.parametrize("content", [None, ODD], ids=["none", "odd"])
def test_the_generation_config_stays_as_it_is(tmp_path, loading, content):
    source, output = tmp_path / "dense", tmp_path / "pruned"
    shutil.copytree(bundled_folder(), source)
    output.mkdir()
    (source / "generation_config.json").unlink(missing_ok=True)
    if content is not None:
        (source / "generation_config.json").write_text(json.dumps(content))
    config, run = PruneConfig(method="magnitude", sparsity=0.5), RunConfig(artifacts="off")
    prune_pretrained(str(source), config, run, dtype="auto", device="cpu", loading=loading, output=output)
    written = output / "generation_config.json"
    assert (json.loads(written.read_text()) if written.exists() else None) == content
