"""Without a usable vLLM, `pruned-vllm` says what to install; nothing else of the package asks for it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.models.vllm import compatibility as vllm_builds

WITHOUT = "import sys; sys.modules['vllm'] = None; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"


def test_a_missing_vllm_is_one_line(tmp_path):
    command = [sys.executable, "-c", WITHOUT, "run", "--model", "pruned-vllm", "--tasks", "tiny_tts_16"]
    arguments = ["--model_args", "pretrained=tiny-reasoner", "--output_path", str(tmp_path)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "lm_eval: error: pruned-vllm needs vLLM: pip install 'lm-eval-pruned[vllm]', or use --model pruned-hf"
    )


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
