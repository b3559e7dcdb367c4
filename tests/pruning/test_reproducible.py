"""Deterministic algorithms and full float32 precision hold for a `with` block, and then all is as it was."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch.utils import deterministic

from lm_eval_pruned.pruning.reproducible import reproducible


def state() -> dict[str, object]:
    """Return every setting that decides the order and the precision of sums."""
    backends = torch.backends
    settings: dict[str, Callable[[], object]] = {
        "products": torch.get_float32_matmul_precision,
        "products on CUDA": lambda: backends.cuda.matmul.allow_tf32,
        "convolutions": lambda: backends.cudnn.allow_tf32,
        "benchmark": lambda: backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled,
        "fills": lambda: deterministic.fill_uninitialized_memory,
    }
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        settings |= {
            "newer, products": lambda: backends.cuda.matmul.fp32_precision,
            "newer, products on CPU": lambda: backends.mkldnn.matmul.fp32_precision,
            "newer, convolutions": lambda: backends.cudnn.conv.fp32_precision,
            "newer, recurrent": lambda: backends.cudnn.rnn.fp32_precision,
        }
    return {name: read(setting) for name, setting in settings.items()}


def read(setting: Callable[[], object]) -> object:
    try:
        return setting()
    except RuntimeError:
        return "older and newer settings differ"


def set_newer(library: str, kind: str) -> None:
    module = getattr(getattr(torch.backends, library), kind, None)
    if not hasattr(module, "fp32_precision"):
        pytest.skip("before PyTorch 2.9 there are the older settings alone")
    module.fp32_precision = "tf32"


STARTS = {
    "defaults": lambda: None,
    "TF32 products": lambda: torch.set_float32_matmul_precision("high"),
    "TF32 products by the newer setting": lambda: set_newer("cuda", "matmul"),
    "float32 convolutions": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "TF32 convolutions by the newer setting": lambda: set_newer("cudnn", "conv"),
    "strict": lambda: torch.use_deterministic_algorithms(True),
    "benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
}


@pytest.fixture(autouse=True)
def as_before():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("start", STARTS)
def test_what_was_set_is_set_again(start):
    STARTS[start]()
    before = state()
    with reproducible():
        inside = state()
        with reproducible(strict=True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert state() == inside
    assert state() == before
    expected = {"products": "highest", "convolutions": False, "benchmark": False, "deterministic": True}
    assert {name: inside[name] for name in expected} == expected
    assert {value for name, value in inside.items() if name.startswith("newer")} <= {"ieee"}
    assert inside["only warns"]
    assert not inside["fills"]


def test_cublas_is_set_up_for_strict_mode_unless_the_user_did(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with reproducible():
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with reproducible(strict=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
