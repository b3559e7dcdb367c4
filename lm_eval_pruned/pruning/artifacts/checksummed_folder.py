"""Checksummed folders: written atomically, and verified byte for byte by `sha256sum -c SHA256SUMS`."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lm_eval_pruned.errors import DataError

SUMS = "SHA256SUMS"


def seal(place: Path, fill: Callable[[Path], object]) -> None:
    """Replace the folder `place` atomically by one whose files `fill` writes; the caller holds a lock."""
    temporary = place.with_name(f"{place.name}.tmp")
    # Left by a process that was killed while writing; and a damaged folder.
    for stale in (temporary, place):
        _delete(stale)
    try:
        temporary.mkdir()
        fill(temporary)
        (temporary / SUMS).write_bytes(b"".join(_sum_line(temporary, name) for name in _files(temporary)))
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        temporary.rename(place)
        _sync(place.parent)
    finally:
        _delete(temporary)


def check_seal(place: Path, *names: str) -> None:
    """Verify the files of a sealed folder, among which there must be those named.

    Raises:
        DataError: a file does not match its checksum.
        OSError: the folder or a file of it is missing, or cannot be read.
    """
    listed = (place / SUMS).read_bytes().splitlines(keepends=True)
    stated = {line.partition(b"  ")[2].rstrip(b"\n") for line in listed}
    there = {name for name in _files(place) if name.encode() in stated}
    computed = {name: _sum_line(place, name) for name in sorted({*names, *there})}
    if listed != [*computed.values()]:
        wrong = [name for name, line in computed.items() if line not in listed]
        raise DataError(f"{SUMS} does not match {' and '.join(wrong) or 'the files'}")


def is_sealed(place: Path, *names: str) -> bool:
    """Return whether a sealed folder is there with every byte intact."""
    try:
        check_seal(place, *names)
    except (OSError, ValueError):
        return False
    return True


def _files(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def _sum_line(place: Path, name: str) -> bytes:
    with (place / name).open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n".encode()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
