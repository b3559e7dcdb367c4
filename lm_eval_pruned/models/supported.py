"""Versions of lm-eval that are known, and what is said of a model that enforces no thinking budget."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from lm_eval_pruned.errors import MissingPackageError

# The range of pyproject.toml. lm-eval 0.5 changed what a task is handed, and graded characters as samples.
KNOWN_HARNESSES = ">=0.4.10,<0.6"


def check_harness() -> None:
    """Refuse a harness whose interface is not known, which might be graded without an error and wrongly.

    Raises:
        MissingPackageError: the installed version is not in the range.
    """
    try:
        installed = version("lm_eval")
    except PackageNotFoundError:
        return
    if not SpecifierSet(KNOWN_HARNESSES).contains(installed, prereleases=True):
        raise MissingPackageError(
            f"lm-eval {installed} is installed, and this version of lm-eval-pruned knows {KNOWN_HARNESSES}: "
            f"pip install 'lm-eval{KNOWN_HARNESSES}', or a newer lm-eval-pruned"
        )


def not_enforced(tasks: Iterable[str], model: str) -> str:
    """Describe the mistake of giving tasks with a thinking budget to a model that would ignore it.

    Example:
        >>> not_enforced(["aime24_tts"], "--model hf").partition(": ")[0]
        "--model hf does not enforce the thinking budget of 'aime24_tts'"
    """
    names = sorted(tasks)
    shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"{model} does not enforce the thinking budget of {shown}: use --model pruned-hf or pruned-vllm, with "
        "method=none in --model_args for the dense model"
    )
