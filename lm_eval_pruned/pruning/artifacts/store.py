"""The artifact cache: masks or solved weights of one pruning configuration, stored under its fingerprint."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
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
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.pruning.artifacts.checksummed_folder import check_seal, is_sealed, seal

REPORT = "report.json"
TENSORS = "tensors.safetensors"
# The one tensor that does not belong to a Linear: LayerIF's scores [groups blocks].
SCORES = "layerif_scores"

# ValueError is a wrong checksum of ours, or malformed JSON. PyTorch maps the tensor file and raises RuntimeError if it
# has just vanished; safetensors raises an error of its own for a full disk.
READ_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)
WRITE_ERRORS = (OSError, SafetensorError)

logger = logging.getLogger(__name__)


class Artifact(NamedTuple):
    """The outcome of pruning: its report as JSON, and a packed mask or a whole weight for each Linear by name."""

    report: Mapping[str, object]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The artifact that a store has under a fingerprint, on the CPU; None if it has to be made and written."""

    artifact: Artifact | None
    _store: Store
    _folder: Path | None

    def write(self, artifact: Artifact) -> None:
        """Store the artifact; if it cannot be stored, log a warning that says why."""
        if self._folder is not None:
            try:
                seal(self._folder, partial(_fill, artifact))
            except WRITE_ERRORS as error:
                self._store.warn_not_stored(error)


def artifacts_folder(given: str | None) -> Path | None:
    """Return the folder that the argument `artifacts` means: by default in the user's cache, None for `off`.

    Example:
        >>> artifacts_folder("off") is None
        True
    """
    if given == "off":
        return None
    return Path(given).expanduser() if given else user_cache_path("lm_eval_pruned", appauthor=False) / "artifacts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Artifacts on disk, a folder each; `sha256sum -c SHA256SUMS` checks its files as every read does."""

    folder: Path

    def read(self, fingerprint: str) -> Artifact | None:
        """Return an artifact after verifying every byte; None if there is none or, with a warning, it is damaged.

        Raises:
            ArgumentError: `fingerprint` is not a SHA-256 in hex.
        """
        folder = self._folder_of(fingerprint)
        try:
            return _load(folder) if folder.exists() else None
        except READ_ERRORS as error:
            logger.warning("the pruning artifact %s is damaged or unreadable (%s): it will be rebuilt", folder, error)
            return None

    @contextmanager
    def reserve(self, fingerprint: str) -> Iterator[Reservation]:
        """Look an artifact up; if it is absent or damaged, hold its lock, so that only one process makes it.

        An error in the `with` block leaves no artifact. If the lock cannot be created, a warning says why, and `write`
        does nothing.

        Raises:
            ArgumentError: `fingerprint` is not a SHA-256 in hex.
        """
        folder = self._folder_of(fingerprint)
        # A folder that looks damaged may be in the middle of being replaced: only the read under the lock is final.
        stored = _load_quietly(folder)
        with ExitStack() as stack:
            writable = False
            if stored is None:
                try:
                    stack.enter_context(self._lock(fingerprint))
                    writable = True
                except OSError as error:
                    self.warn_not_stored(error)
                stored = self.read(fingerprint)
            yield Reservation(stored, self, folder if writable else None)

    def is_intact(self, fingerprint: str) -> bool:
        """Return whether an artifact is there with every byte intact; it is not loaded."""
        return is_sealed(self._folder_of(fingerprint), REPORT, TENSORS)

    def holds(self, fingerprint: str) -> bool:
        """Return whether there is an artifact, which may be damaged."""
        return self._folder_of(fingerprint).exists()

    def dense_digests(self) -> set[str]:
        """Return the digests of the weights that the artifacts were made of, as far as they can be read."""
        found = set[str]()
        for report in self.folder.glob(f"*/{REPORT}"):
            with suppress(OSError, *MALFORMED):
                found.add(str(json.loads(report.read_bytes())["dense_sha256"]))
        return found

    def journal(self, fingerprint: str) -> Path:
        """Return the file in which a search notes its candidates until the artifact is written."""
        return self.folder / f"{fingerprint}.search.jsonl"

    def warn_not_stored(self, error: Exception) -> None:
        """Log why an artifact cannot be stored."""
        logger.warning(
            "the pruning artifact cannot be kept in %s (%s), going on without: give artifacts=off or another folder",
            self.folder,
            error,
        )

    def _folder_of(self, fingerprint: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", fingerprint):
            raise ArgumentError(f"fingerprint {fingerprint!r} is not a SHA-256: give its 64 digits in lower-case hex")
        return self.folder / fingerprint

    def _lock(self, fingerprint: str) -> AbstractContextManager[object]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # The kernel releases the lock of a process that dies. The empty lock file has to stay, or waiting processes and
        # later ones would hold different locks.
        lock = FileLock(self.folder / f"{fingerprint}.lock")
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            logger.info("another process is making the pruning artifact %s: waiting for it", fingerprint)
            return lock.acquire()


def spill(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Move tensors to an unlinked temporary file in `folder`, and return them memory-mapped."""
    with NamedTemporaryFile(dir=folder, suffix=".spill") as file:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file.name)
        return load_file(file.name)


def _load(folder: Path) -> Artifact:
    check_seal(folder, REPORT, TENSORS)
    return Artifact(json.loads((folder / REPORT).read_bytes()), load_file(folder / TENSORS))


def _load_quietly(folder: Path) -> Artifact | None:
    try:
        return _load(folder)
    except READ_ERRORS:
        return None


def _fill(artifact: Artifact, folder: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in artifact.tensors.items()}, folder / TENSORS)
    (folder / REPORT).write_text(json.dumps(dict(artifact.report), indent=2) + "\n", encoding="utf-8")
    # safetensors makes files that only their owner can read, whatever the umask; this folder may be shared.
    shutil.copymode(folder / REPORT, folder / TENSORS)
