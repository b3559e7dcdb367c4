"""Registries: read-only mappings from names to entries, extensible through entry points of other packages."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
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
        plugin = self._plugin(name)
        if plugin is not None:
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

    def _plugin(self, name: str) -> EntryPoint | None:
        """Return the entry point of a name that is not registered yet.

        Raises:
            MissingPackageError: several packages provide it.
        """
        if name in self._entries or self._group is None:
            return None
        # An editable install can list an entry point twice.
        distinct = {(_provider(plugin), plugin.value): plugin for plugin in entry_points(group=self._group, name=name)}
        if len(distinct) > 1:
            providers = " and ".join(sorted({provider for provider, _ in distinct}))
            raise MissingPackageError(f"{self._what} {name!r} is provided by {providers}: uninstall all but one")
        return next(iter(distinct.values()), None)

    def _load(self, plugin: EntryPoint) -> None:
        provider = _provider(plugin)
        try:
            plugin.load()
        # Importing another package's code can raise anything, and a library that exits must not end the program.
        except (Exception, SystemExit) as error:
            # What it registered before it failed must not be used.
            self._entries.pop(plugin.name, None)
            raise MissingPackageError(
                f"{self._what} {plugin.name!r} of the package {provider} cannot be loaded ({error!r}): upgrade it, "
                f"or pip uninstall {provider}"
            ) from error
        if plugin.name not in self._entries:
            raise MissingPackageError(
                f"the package {provider} promises {self._what} {plugin.name!r} and does not register it: its entry "
                f"point {plugin.value} must import the module that does"
            )


def plugin_names(group: str | None) -> set[str]:
    """Return the names that installed packages add to an entry point group; nothing is imported."""
    return set() if group is None else entry_points(group=group).names


def registered_names(what: str) -> set[str]:
    """Return the names that were registered in this process, by this package or at run time."""
    return _NAMES.get(what, set())


def summary_of(function: object) -> str:
    """Return the first line of a docstring.

    Raises:
        ValueError: there is no docstring.
    """
    lines = (function.__doc__ or "").strip().splitlines()
    if not lines:
        raise ValueError(f"{function!r} needs a docstring: its first line becomes the summary")
    return lines[0]


def source_digest(function: Callable[..., object]) -> str | None:
    """Return a SHA-256, in hex, of the code of another package that defines a function; "" for our own functions.

    All Python files of the top-level package count, since a function may import from any of them. None means that the
    code is in no file, as at a prompt or in a notebook. Our own functions are determined by our version.
    """
    given = ""
    while isinstance(function, partial):
        given += repr((function.args, sorted(function.keywords.items())))
        function = function.func
    name = getattr(function, "__module__", None) or type(function).__module__
    top = name.partition(".")[0]
    if top == _PACKAGE:
        return ""
    module = sys.modules.get(top)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    files = sorted(path for folder in folders for path in folder.rglob("*.py")) or ([Path(file)] if file else [])
    if not files:
        return None
    digest = hashlib.sha256(given.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _provider(plugin: EntryPoint) -> str:
    """Return the name of the package that declares an entry point."""
    return (plugin.dist and plugin.dist.name) or plugin.value
