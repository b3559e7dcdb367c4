"""The start-up hook: lm_eval gets our models and tasks as it is imported, every other program gets nothing.

The one-line file lm_eval_pruned.pth in site-packages imports this module at every interpreter start. So it is built
from `sys` alone, does one list insertion, and never lets an exception out into a program that did not ask for us.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Harness module -> the function of lm_eval_pruned/_harness.py that runs once the module has been executed.
_HOOKS = {
    "lm_eval.models": "register_models",
    "lm_eval.tasks": "add_task_folder",
    "lm_eval._cli.harness": "report_errors",
}


class HarnessFinder:
    """Lets the other finders find the harness's modules and sees to it that ours follows their execution."""

    def __init__(self) -> None:
        self._searches: set[tuple[int, str]] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Return the spec another finder has for one of the hooked modules, else None."""
        if fullname not in _HOOKS:
            return None
        from _thread import get_ident

        # A second finder that delegates as we do would ask us again, for ever.
        search = (get_ident(), fullname)
        if search in self._searches:
            return None
        self._searches.add(search)
        try:
            spec = self._delegate(fullname, path, target)
        finally:
            self._searches.discard(search)
        if spec is not None:
            _attempt(lambda: _follow_execution(spec), fullname)
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


def install() -> None:
    """Watch for the harness's modules; those already imported are hooked at once. Doing it twice changes nothing."""
    # By name, not isinstance: a reloaded copy of this module has a class of its own.
    if not any(type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, HarnessFinder())
    for fullname in _HOOKS:
        if fullname in sys.modules:
            _apply(fullname)


def _follow_execution(spec: "ModuleSpec") -> None:
    loader = spec.loader
    if loader is None:
        raise ImportError(f"{spec.name} has no loader")
    execute = loader.exec_module

    def exec_module(module: "ModuleType") -> None:
        execute(module)
        # A loader may serve several modules (zipimport does).
        if module.__name__ == spec.name:
            _apply(spec.name)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def _apply(fullname: str) -> None:
    def hook() -> None:
        from lm_eval_pruned import _harness

        getattr(_harness, _HOOKS[fullname])()

    _attempt(hook, fullname)


def _attempt(step: "Callable[[], None]", fullname: str) -> None:
    try:
        step()
    # The program being started may have nothing to do with us: whatever is wrong here must not stop it. A log record,
    # because `warnings.warn` raises under -W error.
    except Exception as error:
        import logging

        logging.getLogger("lm_eval_pruned").warning("lm_eval_pruned could not extend %s: %r", fullname, error)


install()
