"""The artifact cache: what one pruning configuration made, kept under its fingerprint for the next load to read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm_eval_pruned.errors import ArgumentError, DataError

REPORT = "report.json"
TENSORS = "tensors.safetensors"
SUMS = "SHA256SUMS"

# ValueError is ours for a wrong checksum, and json's. Torch maps the file of tensors into memory and words one that has
# just vanished as RuntimeError; safetensors words a full disk as its own error.
READ_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)
WRITE_ERRORS = (OSError, SafetensorError)

logger = logging.getLogger(__name__)


class Artifact(NamedTuple):
    """The outcome of pruning: its report, as JSON can hold it, and under each name a packed mask or a whole weight."""

    report: Mapping[str, object]
    tensors: Mapping[str, Tensor]


class Fetched(NamedTuple):
    """An artifact, and whether it had to be made; one that was read has its tensors on the CPU."""

    artifact: Artifact
    made: bool


def artifacts_folder(given: str | None) -> Path | None:
    """Return the folder that the argument `artifacts` means: by default in the platform's cache, none for `off`.

    Example:
        >>> artifacts_folder("off") is None
        True
    """
    if given == "off":
        return None
    return Path(given).expanduser() if given else user_cache_path("lm_eval_pruned", appauthor=False) / "artifacts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Artifacts on disk: a folder each, whose files `sha256sum -c SHA256SUMS` checks as every read does."""

    folder: Path

    def read(self, fingerprint: str) -> Artifact | None:
        """Return an artifact whose every byte was verified; None if there is none or, with a warning, it is damaged.

        Raises:
            ArgumentError: `fingerprint` is not a SHA-256 in hex.
        """
        place = self._place(fingerprint)
        try:
            return _load(place) if place.exists() else None
        except READ_ERRORS as error:
            logger.warning("the pruning artifact %s is damaged or unreadable (%s): it will be rebuilt", place, error)
            return None

    def read_or_make(self, fingerprint: str, make: Callable[[], Artifact]) -> Fetched:
        """Return an artifact, made and kept if it is absent or damaged; of several processes at once only one makes it.

        What was made is returned even where it cannot be kept; a warning says why. Errors of `make` leave no artifact.

        Raises:
            ArgumentError: `fingerprint` is not a SHA-256 in hex.
        """
        place = self._place(fingerprint)
        # What looks damaged may just be being replaced by another process: only the look under the lock is final.
        with suppress(*READ_ERRORS):
            return Fetched(_load(place), made=False)
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock(fingerprint))
                writable = True
            except OSError as error:
                self._warn_not_kept(error)
                writable = False
            found = self.read(fingerprint)
            if found is not None:
                return Fetched(found, made=False)
            artifact = make()
            if writable:
                try:
                    _write(artifact, place)
                except WRITE_ERRORS as error:
                    self._warn_not_kept(error)
            return Fetched(artifact, made=True)

    def _place(self, fingerprint: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", fingerprint):
            raise ArgumentError(f"fingerprint {fingerprint!r} is not a SHA-256: give its 64 digits in lower-case hex")
        return self.folder / fingerprint

    def _lock(self, fingerprint: str) -> AbstractContextManager[object]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # The kernel frees the lock of a process that dies. Its empty file must stay, or those who wait for it and those
        # who come later would hold different locks.
        lock = FileLock(self.folder / f"{fingerprint}.lock")
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            logger.info("another process is making the pruning artifact %s: waiting for it", fingerprint)
            return lock.acquire()

    def _warn_not_kept(self, error: Exception) -> None:
        logger.warning(
            "the pruning artifact cannot be kept in %s (%s), going on without: give artifacts=off or another folder",
            self.folder,
            error,
        )


def _load(place: Path) -> Artifact:
    listed = (place / SUMS).read_bytes().splitlines(keepends=True)
    computed = [_sum_line(place / name) for name in (REPORT, TENSORS)]
    if listed != computed:
        wrong = [name for name, line in zip((REPORT, TENSORS), computed, strict=True) if line not in listed]
        raise DataError(f"{SUMS} does not match {' and '.join(wrong) or 'the files'}")
    return Artifact(json.loads((place / REPORT).read_bytes()), load_file(place / TENSORS))


def _write(artifact: Artifact, place: Path) -> None:
    """Write an artifact so that it appears at `place` at once and whole; the caller holds the lock."""
    temporary = place.with_name(f"{place.name}.tmp")
    # Left by a process that was killed while writing, and a damaged artifact.
    for stale in (temporary, place):
        _delete(stale)
    try:
        temporary.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in artifact.tensors.items()}, temporary / TENSORS)
        (temporary / REPORT).write_text(json.dumps(dict(artifact.report), indent=2) + "\n", encoding="utf-8")
        # safetensors lets only the owner read, whatever the umask; others may share this folder.
        shutil.copymode(temporary / REPORT, temporary / TENSORS)
        (temporary / SUMS).write_bytes(b"".join(_sum_line(temporary / name) for name in (REPORT, TENSORS)))
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        temporary.rename(place)
        _sync(place.parent)
    finally:
        _delete(temporary)


def _sum_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n".encode()


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
