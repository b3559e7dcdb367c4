"""The response store: every finished response in one SQLite file, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.reasoning.completion import Completion

logger = logging.getLogger(__name__)

FILE = "responses.sqlite"
SCHEMA = 1
# Seconds that one writer waits for another.
PATIENCE = 60.0

_TABLE = """CREATE TABLE responses (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, response TEXT NOT NULL, sha256 TEXT NOT NULL
)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStore:
    """Responses of one model in a file that any number of models and processes share.

    A response is found again by everything about the model and about the request that decides its text. It is written
    as soon as it is finished; of two writers of the same response the first one counts.
    """

    path: Path
    model: Mapping[str, object]
    connection: sqlite3.Connection

    @classmethod
    @contextmanager
    def open(cls, folder: Path, model: Mapping[str, object]) -> Iterator[ResponseStore]:
        """Open `folder`, made if need be, for the responses of `model`: what identifies it, as what JSON can hold.

        Raises:
            DataError: the file is no response store, of another version, damaged, or cannot be written.
        """
        path = folder / FILE
        with _explained(path):
            folder.mkdir(parents=True, exist_ok=True)
            # Every statement is a transaction of its own.
            connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        with closing(connection):
            with _explained(path):
                _prepare(connection)
            yield cls(path=path, model=model, connection=connection)

    def get(self, request: Mapping[str, object]) -> Completion | None:
        """Return the response to this very request, if it is there; one that is damaged is dropped, with a warning."""
        key = self._key(request)
        with _explained(self.path):
            row = self.connection.execute("SELECT response, sha256 FROM responses WHERE key = ?", [key]).fetchone()
            if row is None:
                return None
            response, digest = row
            if _sha256(response) == digest:
                return Completion.from_dict(json.loads(response))
            logger.warning("a response in %s is damaged: it is written anew", self.path)
            self.connection.execute("DELETE FROM responses WHERE key = ? AND sha256 = ?", [key, digest])
            return None

    def put(self, request: Mapping[str, object], completion: Completion) -> None:
        """Keep a response."""
        response = _canonical(completion.as_dict())
        row = [self._key(request), _canonical(self.model), _canonical(request), response, _sha256(response)]
        with _explained(self.path):
            self.connection.execute("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)", row)

    def _key(self, request: Mapping[str, object]) -> str:
        return _sha256(_canonical([self.model, request]))


def check_store(folder: Path) -> None:
    """Find out whether `folder` can be used before anything is done whose outcome it is to keep.

    Raises:
        DataError: it cannot.
    """
    with ResponseStore.open(folder, {}):
        pass


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table in a file that is new; one that is not ours stays as it is."""
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been faster.
        if _version(connection) == 0:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                raise sqlite3.DatabaseError("it belongs to another program")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
        # Readers and a writer do not wait for each other, and what a killed process had written stays.
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA):
        raise sqlite3.DatabaseError(f"it has version {version}, this package writes {SCHEMA}")
    return int(version)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say which file it is and what to do; what was kept before is not touched."""
    try:
        yield
    except (sqlite3.Error, OSError, json.JSONDecodeError, TypeError) as error:
        raise DataError(
            f"the response store {path} cannot be used ({error}): make room or make it writable; if it is damaged or "
            "of another version, move it away or give another folder as responses="
        ) from error


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
