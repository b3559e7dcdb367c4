"""Checksummed folders: written atomically, and verified byte for byte by `sha256sum -c SHA256SUMS`."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lm_eval_pruned.errors import DataError

SUMS = "SHA256SUMS"


def seal(folder: Path, fill: Callable[[Path], object]) -> None:
    """Replace a folder atomically by one whose files `fill` writes, with their checksums; the caller holds a lock."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    # The first was left by a process that was killed while writing; the second is damaged.
    for stale in (temporary, folder):
        _delete(stale)
    try:
        temporary.mkdir()
        fill(temporary)
        (temporary / SUMS).write_bytes(b"".join(_sum_line(temporary, name) for name in _files(temporary)))
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        temporary.rename(folder)
        _sync(folder.parent)
    finally:
        _delete(temporary)


def check_seal(folder: Path, *names: str) -> None:
    """Verify the files of a checksummed folder, which must include those named.

    Raises:
        DataError: a file does not match its checksum.
        OSError: the folder or a file of it is missing, or cannot be read.
    """
    listed = (folder / SUMS).read_bytes().splitlines(keepends=True)
    stated = {line.partition(b"  ")[2].rstrip(b"\n") for line in listed}
    present = {name for name in _files(folder) if name.encode() in stated}
    computed = {name: _sum_line(folder, name) for name in sorted({*names, *present})}
    if listed != [*computed.values()]:
        wrong = [name for name, line in computed.items() if line not in listed]
        raise DataError(f"{SUMS} does not match {' and '.join(wrong) or 'the files'}")


def is_sealed(folder: Path, *names: str) -> bool:
    """Return whether a checksummed folder exists with every byte intact."""
    try:
        check_seal(folder, *names)
    except (OSError, ValueError):
        return False
    return True


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _sum_line(folder: Path, name: str) -> bytes:
    with (folder / name).open("rb") as file:
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
