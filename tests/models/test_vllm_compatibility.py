"""Without a usable vLLM, `pruned-vllm` says what to install; nothing else of the package asks for it."""

from __future__ import annotations

import importlib.metadata
import sys
from types import SimpleNamespace

import psutil
import pytest
from lm_eval import simple_evaluate

from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.models.vllm import compatibility as vllm_builds


def test_a_missing_vllm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingPackageError) as raised:
        simple_evaluate(model="pruned-vllm", model_args={"pretrained": "tiny-reasoner"}, tasks=["tiny_tts_16"])
    assert str(raised.value) == ("pruned-vllm needs vLLM: pip install 'lm-eval-pruned[vllm]', or use --model pruned-hf")


def test_one_too_old_is_named(monkeypatch):
    monkeypatch.setattr(vllm_builds, "find_spec", lambda name: name)
    monkeypatch.setattr(vllm_builds, "version", lambda name: "0.18.1")
    with pytest.raises(MissingPackageError, match=r"needs vLLM 0\.19 or newer, here is 0\.18\.1: pip install"):
        vllm_builds.harness_class()


def test_one_that_cannot_be_imported_is_named(monkeypatch, tmp_path):
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('no device library')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(vllm_builds, "version", lambda name: "0.32.0")
    asked = importlib.metadata.version
    with pytest.raises(MissingPackageError, match="no device library"):
        vllm_builds.harness_class()
    assert importlib.metadata.version is asked


def test_a_build_goes_by_the_name_of_vllm(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"vllm": ["numpy"]})
    assert vllm_builds.version("vllm") == importlib.metadata.version("numpy")
    assert vllm_builds.version("torch") == importlib.metadata.version("torch")


@pytest.mark.parametrize("error", [None, psutil.NoSuchProcess(2**30), ValueError("another fault")])
def test_a_process_that_ends_while_vllm_kills_it_is_no_fault(error):
    ended = []

    def shutdown():
        ended.append(True)
        if error:
            raise error

    engine = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=shutdown)))
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="another fault"):
            vllm_builds.stop_engine(engine)
    else:
        vllm_builds.stop_engine(engine)
    assert ended
