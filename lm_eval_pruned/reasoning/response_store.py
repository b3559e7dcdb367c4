"""Response store: every finished response in one SQLite file, so that a killed run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.reasoning.completion import Completion

logger = logging.getLogger(__name__)

FILE = "responses.sqlite"
SCHEMA = 1
# Seconds that a writer waits for the lock of another.
LOCK_TIMEOUT = 60.0

_TABLE = """CREATE TABLE responses (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, response TEXT NOT NULL, sha256 TEXT NOT NULL
)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStore:
    """Responses of one model, in a file that any number of models and processes can share.

    The key of a response is a digest of everything about the model and the request that decides its text. A response is
    written as soon as it is finished; if two processes write the same one, the first counts.
    """

    path: Path
    model: Mapping[str, object]
    connection: sqlite3.Connection

    @classmethod
    @contextmanager
    def open(cls, folder: Path, model: Mapping[str, object]) -> Iterator[ResponseStore]:
        """Open the store in `folder`, created if missing; `model` is the model's identity as JSON values.

        Raises:
            DataError: the file is not a response store, has another version, is damaged, or cannot be written.
        """
        path = folder / FILE
        with _explained(path):
            folder.mkdir(parents=True, exist_ok=True)
            # Autocommit: every statement is a transaction of its own.
            connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None)
        with closing(connection):
            with _explained(path):
                _prepare(connection)
            yield cls(path=path, model=model, connection=connection)

    def get(self, request: Mapping[str, object]) -> Completion | None:
        """Return the stored response to a request, or None; a damaged one is deleted, with a warning."""
        key = self._key(request)
        with _explained(self.path):
            row = self.connection.execute("SELECT response, sha256 FROM responses WHERE key = ?", [key]).fetchone()
            if row is None:
                return None
            response, digest = row
            if hashlib.sha256(response.encode()).hexdigest() == digest:
                return Completion.from_dict(json.loads(response))
            logger.warning("a response in %s is damaged: it is written anew", self.path)
            self.connection.execute("DELETE FROM responses WHERE key = ? AND sha256 = ?", [key, digest])
            return None

    def put(self, request: Mapping[str, object], completion: Completion) -> None:
        """Store a response, unless the store has one to this request."""
        response = completion.as_dict()
        columns = [json.dumps(content, sort_keys=True) for content in (self.model, request, response)]
        row = [self._key(request), *columns, sha256_of_json(response)]
        with _explained(self.path):
            self.connection.execute("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)", row)

    def _key(self, request: Mapping[str, object]) -> str:
        return sha256_of_json([self.model, request])


def check_store(folder: Path) -> None:
    """Check that `folder` can hold a response store, before any work is done whose results it is to hold.

    Raises:
        DataError: it cannot.
    """
    with ResponseStore.open(folder, {}):
        pass


class StoredResponse(NamedTuple):
    """A response with the identities of its model and of its request, as they were stored."""

    model: Mapping[str, object]
    request: Mapping[str, object]
    response: Completion


def read_store(path: Path) -> Iterator[StoredResponse]:
    """Yield all responses of a store file, of all models, in the order in which they were stored.

    Raises:
        DataError: the file is not a response store, has another version, or is damaged.
    """
    with _explained(path), closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None)) as connection:
        if _version(connection) == 0:
            raise sqlite3.DatabaseError("it is not a response store")
        for model, request, response in connection.execute(
            "SELECT model, request, response FROM responses ORDER BY rowid"
        ):
            yield StoredResponse(json.loads(model), json.loads(request), Completion.from_dict(json.loads(response)))


def _prepare(connection: sqlite3.Connection) -> None:
    """Create the table in a new file; raise an error, without a change, if the file belongs to another program."""
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have created it since.
        if _version(connection) == 0:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                raise sqlite3.DatabaseError("it belongs to another program")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
        # Write-ahead log: readers and a writer do not block each other, and what a killed process wrote stays.
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA):
        raise sqlite3.DatabaseError(f"it has version {version}, this package writes {SCHEMA}")
    return int(version)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into one that names the file and the remedy; the file is not changed."""
    try:
        yield
    except (sqlite3.Error, OSError, json.JSONDecodeError, TypeError) as error:
        raise DataError(
            f"the response store {path} cannot be used ({error}): make room or make it writable; if it is damaged or "
            "of another version, move it away or give another folder as responses="
        ) from error
