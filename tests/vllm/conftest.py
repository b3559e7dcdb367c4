"""Tests on real vLLM engines; they are collected only in an environment that has vLLM."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# For the processes of every engine; the first two have no effect on a GPU.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py", "weights_inside.py"]

# float32 as in the reference backend, and a fast start.
ENGINE = {"dtype": "float32", "enforce_eager": True}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def start(artifacts: Path) -> Iterator[Callable[..., object]]:
    """Start an engine, after stopping one that is running."""
    from lm_eval_pruned.models.vllm.compatibility import stop_engine
    from lm_eval_pruned.models.vllm.model import PrunedVLLM

    running: list[PrunedVLLM] = []

    def stop() -> None:
        while running:
            stop_engine(running.pop().model)

    def start(pretrained: str, **arguments: object) -> PrunedVLLM:
        stop()
        running.append(PrunedVLLM(pretrained, **{**ENGINE, "artifacts": str(artifacts), **arguments}))
        return running[0]

    yield start
    stop()
