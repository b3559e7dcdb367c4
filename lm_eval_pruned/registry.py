"""Registries: read-only mappings from names to entries, extensible through entry points of other packages."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from lm_eval_pruned.errors import MissingPackageError, unknown_name

T = TypeVar("T")

_PACKAGE = __name__.partition(".")[0]

# The names in every registry of this process, by the noun of the registry.
_NAMES: dict[str, set[str]] = {}


class Registry(Mapping[str, T], Generic[T]):
    """A mapping that entries are added to by decorators, and whose lookup errors name the nearest entry.

    Args:
        what: noun used in error messages.
        group: entry point group through which other packages add entries. The name of an entry point is the name of
            the entry, and loading it must register that entry. It is loaded when the name is first looked up.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> colours.add("red", 1)
        1
        >>> colours["red"]
        1
        >>> colours["rod"]
        Traceback (most recent call last):
        lm_eval_pruned.errors.UnknownNameError: unknown colour 'rod': did you mean 'red'? Known: red
    """

    def __init__(self, what: str, *, group: str | None = None) -> None:
        self._what, self._group = what, group
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Add `entry` under `name` and return it.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self._what} {name!r} is registered twice")
        self._entries[name] = entry
        _NAMES.setdefault(self._what, set()).add(name)
        return entry

    def __getitem__(self, name: str) -> T:
        for plugin in self._plugins(name):
            self._load(plugin)
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self._what, name, {*self._entries, *plugin_names(self._group)}) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in plugin_names(self._group)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._entries, *plugin_names(self._group)}))

    def __len__(self) -> int:
        return len({*self._entries, *plugin_names(self._group)})

    def _plugins(self, name: str) -> Iterable[EntryPoint]:
        return () if name in self._entries or self._group is None else entry_points(group=self._group, name=name)

    def _load(self, plugin: EntryPoint) -> None:
        distribution = plugin.dist.name if plugin.dist else plugin.value
        try:
            plugin.load()
        # Importing another package's code can raise anything.
        except Exception as error:
            raise MissingPackageError(
                f"{self._what} {plugin.name!r} of the package {distribution} cannot be loaded ({error!r}): upgrade it, "
                f"or pip uninstall {distribution}"
            ) from error
        if plugin.name not in self._entries:
            raise MissingPackageError(
                f"the package {distribution} promises {self._what} {plugin.name!r} and does not register it: its entry "
                f"point {plugin.value} must import the module that does"
            )


def plugin_names(group: str | None) -> set[str]:
    """Return the names that installed packages add to an entry point group; nothing is imported."""
    return set() if group is None else entry_points(group=group).names


def registered_names(what: str) -> set[str]:
    """Return the names that were registered in this process, by this package or at run time."""
    return _NAMES.get(what, set())


def source_digest(function: Callable[..., object]) -> str:
    """Return a SHA-256, in hex, of the source of a function that another package defines; "" for one of ours.

    What is computed by our own code is determined by our version; a plug-in is known by the file that defines it.
    """
    if function.__module__.partition(".")[0] == _PACKAGE:
        return ""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    try:
        source = Path(file).read_bytes() if file else inspect.getsource(function).encode()
    except OSError:
        # Defined at a prompt: only the bytecode is known.
        code = function.__code__
        source = repr((code.co_code, code.co_consts, code.co_names)).encode()
    return hashlib.sha256(source).hexdigest()
