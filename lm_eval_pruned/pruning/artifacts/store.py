"""The artifact cache: what one pruning configuration made, kept under its fingerprint for the next load to read."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.artifacts.checksummed_folder import check_seal, is_sealed, seal

REPORT = "report.json"
TENSORS = "tensors.safetensors"
# The one tensor that belongs to no matrix: what LayerIF has computed [groups blocks].
SCORES = "layerif_scores"

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
                    seal(place, partial(_fill, artifact))
                except WRITE_ERRORS as error:
                    self._warn_not_kept(error)
            return Fetched(artifact, made=True)

    def is_intact(self, fingerprint: str) -> bool:
        """Tell whether an artifact is there, every byte of it; it is not loaded."""
        return is_sealed(self._place(fingerprint), REPORT, TENSORS)

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
    check_seal(place, REPORT, TENSORS)
    return Artifact(json.loads((place / REPORT).read_bytes()), load_file(place / TENSORS))


def _fill(artifact: Artifact, place: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in artifact.tensors.items()}, place / TENSORS)
    (place / REPORT).write_text(json.dumps(dict(artifact.report), indent=2) + "\n", encoding="utf-8")
    # safetensors lets only the owner read, whatever the umask; others may share this folder.
    shutil.copymode(place / REPORT, place / TENSORS)


def spill(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return the same tensors, mapped from a file in `folder` that nobody sees and that ends with the last of them."""
    with NamedTemporaryFile(dir=folder, suffix=".spill") as file:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file.name)
        return load_file(file.name)
