"""Prune a reasoning model at load time and measure what that does to its test-time scaling."""

# The start-up hook imports this file at every interpreter start, so it imports nothing, not even `typing`:
# exports are loaded on first use.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lm_eval_pruned.config import PruneConfig
    from lm_eval_pruned.grading import grade, verify
    from lm_eval_pruned.pruning.engine import prune_model

__version__ = "0.1.0"

__all__ = ["PruneConfig", "__version__", "grade", "prune_model", "verify"]

_EXPORTS = {
    "PruneConfig": "lm_eval_pruned.config",
    "grade": "lm_eval_pruned.grading",
    "prune_model": "lm_eval_pruned.pruning.engine",
    "verify": "lm_eval_pruned.grading",
}


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    export: object = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = export
    return export


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
