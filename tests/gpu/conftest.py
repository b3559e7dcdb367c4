"""Tests that need one CUDA device, and neither the harness nor vLLM: `make test-gpu`, or `--device cpu` for a try.

They run with `--confcutdir=tests/gpu`, since the fixtures of the other tests read the harness.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cuda", help="device of tests/gpu: cpu runs what needs no GPU of them")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_test = collection_path.name.startswith("test_")
    return True if is_test and not available(config) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("gpu")


def available(config: pytest.Config) -> bool:
    return config.getoption("device", "cuda") != "cuda" or torch.cuda.is_available()


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return request.config.getoption("device")
