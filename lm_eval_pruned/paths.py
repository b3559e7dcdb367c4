"""Locate the data folders of the package, which are inside it in a wheel and next to it in a checkout."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lm_eval_pruned.errors import MissingDataError

PACKAGE = Path(__file__).parent

# The name of the bundled model and of its benchmark.
BUNDLED = "tiny-reasoner"
# On the hub, names without an owner are those of its first models.
_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def tasks_folder() -> Path:
    """Return the folder of our task YAML files; raises MissingDataError if the installation lacks it."""
    return _shipped(PACKAGE / "_tasks", PACKAGE.parent / "tasks")


@cache
def our_tasks() -> frozenset[str]:
    """Return the names of the tasks and groups that ship with the package."""
    return frozenset(path.stem for path in tasks_folder().rglob("*.yaml"))


def configs_folder() -> Path:
    """Return the folder of sweeps and baselines; raises MissingDataError if the installation lacks it."""
    return _shipped(PACKAGE / "_configs", PACKAGE.parent / "configs")


def assets_folder() -> Path:
    """Return the folder of the bundled model; raises MissingDataError if the installation lacks it."""
    return _shipped(PACKAGE / "assets")


def bundled_folder() -> Path:
    """Return the folder of the model and benchmark BUNDLED; raises MissingDataError if the installation lacks it."""
    return assets_folder() / "tiny_reasoner"


def is_there(path: Path) -> bool:
    """Return whether a path given by a user exists; a text that cannot be a path (too long, a NUL in it) does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_hub_id(name: str) -> bool:
    """Return whether a name can be that of a repository on the hub, and is neither a path here nor the bundled model.

    Example:
        >>> [is_hub_id(name) for name in ("Qwen/Qwen3-8B", "gpt2", "/models/mine", "a/b/c", "tiny-reasoner")]
        [True, True, False, False, False]
    """
    return name != BUNDLED and has_form_of_hub_id(name) and not is_there(Path(name))


def has_form_of_hub_id(name: str) -> bool:
    """Return whether a name has the form of a repository on the hub, even if a path here has it too.

    Example:
        >>> [has_form_of_hub_id(name) for name in ("Qwen/Qwen3-8B", "gpt2", "/models/mine", "a/b/c", "./mine")]
        [True, True, False, False, False]
    """
    return _HUB_ID.fullmatch(name) is not None


def without_folders(text: str) -> str:
    """Return a setting unchanged, but of a path only the last part, so that folders of this machine are not published.

    Example:
        >>> without_folders("allenai/c4"), without_folders("/home/me/mine.json"), without_folders("./lists/mine.json")
        ('allenai/c4', 'mine.json', 'mine.json')
    """
    is_path = text.startswith((".", "/", "~")) or text.count("/") > 1 or ("/" in text and is_there(Path(text)))
    return Path(text).name if is_path else text


def _shipped(*candidates: Path) -> Path:
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = " nor ".join(str(folder) for folder in candidates)
    raise MissingDataError(
        f"lm_eval_pruned is incomplete, there is no folder {looked}: "
        "reinstall it with pip install --force-reinstall --no-deps lm-eval-pruned"
    )
