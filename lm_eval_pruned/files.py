"""Files and JSON: canonical digests, atomic writes, JSON lines, and the exceptions that malformed JSON raises."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# What `json.loads` raises: syntax and encoding errors are ValueErrors; deep nesting is a RecursionError.
NOT_JSON = (ValueError, RecursionError)
# And what accessing the fields of JSON of an unexpected shape raises.
MALFORMED = (*NOT_JSON, LookupError, TypeError, AttributeError, OverflowError)

# The pruning report in the folder of a pruned checkpoint, and its key for the digests of the weights.
NOTE_FILE, NOTE_WEIGHTS = "pruning_report.json", "weight_files"
_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 1 << 30


def sha256_of_json(content: object, *, default: Callable[[object], object] | None = None) -> str:
    """Return the SHA-256, in hex, of `content` as JSON with sorted keys; `default` converts what JSON cannot hold.

    Example:
        >>> sha256_of_json({"b": 1, "a": 2}) == sha256_of_json({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=default).encode()).hexdigest()


def write_atomically(path: Path, content: str) -> None:
    """Write a UTF-8 file so that readers see either the old or the new content, never part of it.

    Raises:
        OSError: the file cannot be written; its old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; `Path.is_file` fails where the file system allows no name as long.

    Example:
        >>> is_file(Path(__file__)), is_file(Path("a" * 300))
        (True, False)
    """
    try:
        return path.is_file()
    except OSError:
        return False


def weight_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256, in hex, of each file of weights in a folder."""
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHT_ENDINGS and path.is_file():
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def numbered_lines(file: BinaryIO, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes]]:
    r"""Yield (line number from 1, stripped line) for each line that is not blank; a byte order mark is dropped.

    A line longer than `max_bytes` is cut to max_bytes + 1 bytes, so that the caller can tell; the rest is skipped.

    Example:
        >>> from io import BytesIO
        >>> list(numbered_lines(BytesIO(b"\xef\xbb\xbf{}\r\n\n[]")))
        [(1, b'{}'), (3, b'[]')]
    """
    number = 0
    while line := file.readline(max_bytes + 1):
        number += 1
        rest = line
        while len(rest) > max_bytes and not rest.endswith(b"\n"):
            rest = file.readline(max_bytes + 1)
        content = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip()
        if content:
            yield number, content
