"""Import hook that registers our models and tasks with lm-evaluation-harness when the harness is imported.

The one-line file lm_eval_pruned.pth in site-packages imports this module at every interpreter start. It therefore
imports only `sys`, inserts one finder into `sys.meta_path`, and lets no exception escape into a program that has
nothing to do with us. LM_EVAL_PRUNED_AUTOLOAD=0 in the environment turns it off.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

VARIABLE = "LM_EVAL_PRUNED_AUTOLOAD"

# Harness module -> the function of lm_eval_pruned/_harness.py to call after the module has been executed.
_HOOKS = {
    "lm_eval.models": "register_models",
    "lm_eval.tasks": "add_task_folder",
    "lm_eval.evaluator": "check_evaluations",
    "lm_eval._cli.harness": "report_errors",
}


class HarnessFinder:
    """Meta path finder that delegates to the other finders and hooks the loaders of the harness's modules."""

    def __init__(self) -> None:
        self._searches: set[tuple[int, str]] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return another finder's spec for one of the hooked modules, with its loader patched, else None."""
        if fullname not in _HOOKS:
            return None
        from _thread import get_ident

        # Another finder that delegates as this one does would ask us again: break the recursion.
        search = (get_ident(), fullname)
        if search in self._searches:
            return None
        self._searches.add(search)
        try:
            spec = self._delegate(fullname, path, target)
        finally:
            self._searches.discard(search)
        if spec is not None:
            _attempt(lambda: _patch_loader(spec), fullname)
        return spec

    def _delegate(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec and find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


def is_disabled() -> bool:
    """Return whether LM_EVAL_PRUNED_AUTOLOAD=0 is set; `os` is never imported for it, `site` has done that already."""
    os = sys.modules.get("os")
    return os is not None and os.environ.get(VARIABLE) == "0"


def install() -> None:
    """Hook the harness's modules, at once where they are already imported; calling it twice changes nothing."""
    # By name, not isinstance: a reloaded copy of this module has a class of its own.
    if not any(type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, HarnessFinder())
    for fullname in _HOOKS:
        if fullname in sys.modules:
            _apply(fullname)


def _patch_loader(spec: "ModuleSpec") -> None:
    loader = spec.loader
    if loader is None:
        raise ImportError(f"{spec.name} has no loader")
    execute = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        execute(module)
        # A loader may serve several modules (zipimport does).
        if module.__name__ == spec.name:
            _apply(spec.name)

    # Patch: docs/harness-hook.md.
    loader.exec_module = exec_module  # type: ignore[method-assign]


def _apply(fullname: str) -> None:
    def hook() -> None:
        from lm_eval_pruned import _harness

        getattr(_harness, _HOOKS[fullname])()

    _attempt(hook, fullname)


def _attempt(step: "Callable[[], None]", fullname: str) -> None:
    try:
        step()
    # The program being started may have nothing to do with us, so no error of ours may stop it. Logged and not warned,
    # because `warnings.warn` raises under -W error.
    except Exception as error:
        import logging

        logging.getLogger("lm_eval_pruned").warning("lm_eval_pruned could not extend %s: %r", fullname, error)


if not is_disabled():
    install()
