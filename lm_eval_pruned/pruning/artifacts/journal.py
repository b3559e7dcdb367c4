"""The journal of a search: what it has measured, a line each in a file, from which an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Journal:
    """Numbers by the name of what they were measured on.

    A search is deterministic, so it asks for the same numbers again, and those in the file are not measured.

    Attributes:
        path: the file; None keeps the numbers in memory alone.
        known: the numbers.
    """

    path: Path | None
    known: dict[str, float]

    @classmethod
    def read(cls, path: Path | None) -> Journal:
        """Read a file, without a line that was cut off; there may be none."""
        known: dict[str, float] = {}
        lines: list[str] = []
        if path is not None:
            with suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            with suppress(ValueError, TypeError):
                name, number = json.loads(line)
                known[str(name)] = float(number)
        return cls(path, known)

    def once(self, name: str, measure: Callable[[], float]) -> float:
        """Return the number of that name, measured if it is not known.

        Where nothing can be written, an interruption costs what was measured, and the search goes on.
        """
        if name not in self.known:
            self.known[name] = measure()
            if self.path is not None:
                with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                    # The line break comes first, so that a line that was cut off spoils no other one.
                    file.write("\n" + json.dumps([name, self.known[name]]))
        return self.known[name]
