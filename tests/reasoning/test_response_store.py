"""The response store: round trips, keys, concurrent and killed writers, damaged files."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.reasoning.budget import Responses
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.formats import FORMATS, ThinkingFormat
from lm_eval_pruned.reasoning.preparing import PreparedRequest
from lm_eval_pruned.reasoning.response_store import FILE, ResponseStore
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import BudgetSettings

MODEL = {"pruning": "0123", "dtype": "torch.float32"}
SETTINGS = BudgetSettings(budget=None)
DEADLINE = 30


def request(
    budget: int = 16,
    settings: BudgetSettings = SETTINGS,
    markers: ThinkingFormat = FORMATS["qwen3"],
    prompt: tuple[int, ...] = (1, 2, 3),
    sample: int = 0,
) -> dict[str, object]:
    return PreparedRequest(
        ids=list(prompt), sample=sample, seed=0, budget=budget, settings=settings, markers=markers, opening=""
    ).identity()


def completion(text: str = "text", **changed: object) -> Completion:
    content = {
        "text": text, "thinking": f"thinking {text}", "answer": f"answer {text}", "thinking_tokens": 3,
        "answer_tokens": 5, "thinking_finish": "closed", "answer_finish": "stop", **changed,
    }  # fmt: skip
    return Completion.from_dict(content)


def round_trip(folder: Path, written: Completion) -> Completion:
    """Write with one connection and read with another."""
    with ResponseStore.open(folder, MODEL) as store:
        store.put(request(), written)
    with ResponseStore.open(folder, MODEL) as store:
        read = store.get(request())
    assert isinstance(read, Completion)
    return read


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestRoundTrip:
    @pytest.mark.parametrize("thinking_finish", ["closed", "eos", "budget"])
    @pytest.mark.parametrize("answer_finish", ["stop", "length", "none"])
    def test_every_field_comes_back(self, tmp_path, thinking_finish, answer_finish):
        written = completion(thinking_finish=thinking_finish, answer_finish=answer_finish)
        read = round_trip(tmp_path / "new" / "folder", written)
        assert read.as_dict() == written.as_dict()
        assert read.as_dict().keys() == {"text", *Completion.__slots__}
        assert (read.budget_hit, read.answer_cut) == (thinking_finish == "budget", answer_finish == "length")

    @pytest.mark.parametrize(
        "text",
        ["", "a\0b\0", "é｜🤔\u2028\r\n\\\"'", "\ud83d", "x" * 5_000_000],
        ids=["empty", "NUL", "unicode", "lone surrogate", "long"],
    )
    def test_every_text_comes_back(self, tmp_path, text):
        written = completion(text)
        assert round_trip(tmp_path, written).as_dict() == written.as_dict()

    @settings(max_examples=20, deadline=None)
    @given(st.text(), st.text(), st.text(), st.integers(0), st.integers(0))
    def test_random_texts_come_back(self, text, thinking, answer, thinking_tokens, answer_tokens):
        written = completion(
            text, thinking=thinking, answer=answer, thinking_tokens=thinking_tokens, answer_tokens=answer_tokens
        )
        with tempfile.TemporaryDirectory() as folder:
            assert round_trip(Path(folder), written).as_dict() == written.as_dict()


OTHER_SETTINGS = {
    "budget": 16, "answer_room": 7, "until": ("\n",), "sampling": Sampling(seed=1), "thinking_sampling": Sampling(),
    "thinking_start": "<a>", "thinking_end": "</a>", "until_thinking": ("</b>",), "n_ignore": 1, "ignore_text": "Hm",
    "least_thinking": 1,
}  # fmt: skip
OTHER_SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1}
OTHER_MARKERS = {
    "opening": "<a>", "closings": ("</a>", "</b>"), "natural_close": None, "forced_close": "!", "forced_break": "\n",
    "forced_answer": "Answer:",
}  # fmt: skip
OTHER_REQUESTS = {
    "prompt": request(prompt=(1, 2, 4)),
    "longer prompt": request(prompt=(1, 2, 3, 0)),
    "sample": request(sample=1),
    "budget": request(budget=17),
    **{name: request(settings=replace(SETTINGS, **{name: value})) for name, value in OTHER_SETTINGS.items()},
    **{
        name: request(settings=replace(SETTINGS, sampling=replace(Sampling(), **{name: value})))
        for name, value in OTHER_SAMPLING.items()
    },
    **{name: request(markers=replace(FORMATS["qwen3"], **{name: value})) for name, value in OTHER_MARKERS.items()},
}


class TestKeys:
    @pytest.mark.parametrize("other", OTHER_REQUESTS.values(), ids=OTHER_REQUESTS)
    def test_another_request_is_not_found(self, tmp_path, other):
        with ResponseStore.open(tmp_path, MODEL) as store:
            store.put(request(), completion())
            assert store.get(other) is None
            assert store.get(request()) == completion()

    def test_every_setting_is_covered(self):
        assert OTHER_SETTINGS.keys() == {field.name for field in fields(BudgetSettings)}
        assert OTHER_SAMPLING.keys() == {field.name for field in fields(Sampling)}
        assert OTHER_MARKERS.keys() == {field.name for field in fields(ThinkingFormat)} - {"name", "summary"}

    @pytest.mark.parametrize("other", [{**MODEL, "pruning": "4567"}, {**MODEL, "more": 1}, {"pruning": "0123"}, {}])
    def test_the_response_of_another_model_is_not_found(self, tmp_path, other):
        with ResponseStore.open(tmp_path, MODEL) as store, ResponseStore.open(tmp_path, other) as others:
            store.put(request(), completion("ours"))
            assert others.get(request()) is None
            others.put(request(), completion("theirs"))
            assert (store.get(request()), others.get(request())) == ("ours", "theirs")

    def test_the_order_of_names_does_not_matter(self, tmp_path):
        with ResponseStore.open(tmp_path, MODEL) as store:
            store.put(request(), completion())
        with ResponseStore.open(tmp_path, dict(reversed(MODEL.items()))) as store:
            assert store.get(dict(reversed(request().items()))) == completion()

    def test_the_first_writer_counts(self, tmp_path):
        with ResponseStore.open(tmp_path, MODEL) as one, ResponseStore.open(tmp_path, MODEL) as other:
            one.put(request(), completion("first"))
            other.put(request(), completion("second"))
            one.put(request(), completion("third"))
            assert one.get(request()) == other.get(request()) == "first"

    def test_a_response_is_visible_at_once_to_other_connections(self, tmp_path):
        with ResponseStore.open(tmp_path, MODEL) as one, ResponseStore.open(tmp_path, MODEL) as other:
            assert isinstance(one, Responses)
            for sample, (writer, reader) in enumerate([(one, other), (other, one)] * 3):
                assert reader.get(request(sample=sample)) is None
                writer.put(request(sample=sample), completion(str(sample)))
                assert reader.get(request(sample=sample)) == str(sample)


# Prints the rows that it has written. It opens the file anew for each of the first rows, as short-lived processes do.
WRITER = """
import json, resource, sys
from pathlib import Path
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.response_store import ResponseStore

folder, name, rows, reopened, limit, model, content = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
sys.stdin.readline()

def write(store, row):
    store.put({"writer": name, "row": row}, Completion.from_dict(content))
    print(row, flush=True)

for row in range(reopened):
    with ResponseStore.open(Path(folder), model) as store:
        write(store, row)
with ResponseStore.open(Path(folder), model) as store:
    for row in range(reopened, rows):
        write(store, row)
"""
TEXT = "x" * 2000


@contextmanager
def writer(
    folder: Path, name: str, *, rows: int, reopened: int = 0, limit: int = resource.RLIM_INFINITY
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that begins to write when it reads a line."""
    task = json.dumps([str(folder), name, rows, reopened, limit, MODEL, completion(TEXT).as_dict()])
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", WRITER, task], text=True, bufsize=1, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            yield process
        finally:
            process.kill()


def stored_rows(folder: Path, name: str, rows: int) -> list[int]:
    with ResponseStore.open(folder, MODEL) as store:
        return [row for row in range(rows) if store.get({"writer": name, "row": row}) == completion(TEXT)]


class TestProcesses:
    def test_two_concurrent_writers_lose_nothing(self, tmp_path):
        rows = 400
        with (
            writer(tmp_path, "one", rows=rows, reopened=100) as one,
            writer(tmp_path, "two", rows=rows, reopened=100) as two,
        ):
            for process in (one, two):
                process.stdin.write("\n")
            for process in (one, two):
                written, errors = process.communicate(timeout=DEADLINE)
                assert process.returncode == 0, errors
                assert written.split() == [str(row) for row in range(rows)]
        assert stored_rows(tmp_path, "one", rows) == stored_rows(tmp_path, "two", rows) == list(range(rows))

    def test_a_killed_writer_keeps_what_it_wrote(self, tmp_path):
        rows = 100_000
        with writer(tmp_path, "killed", rows=rows) as process:
            process.stdin.write("\n")
            seen = [process.stdout.readline() for _ in range(100)]
            process.kill()
            seen += process.stdout.readlines()
            assert process.wait(DEADLINE) == -signal.SIGKILL
        written = len(seen)
        assert written < rows
        # It may have died between writing a row and printing it.
        assert stored_rows(tmp_path, "killed", written + 1)[:written] == list(range(written))
        with writer(tmp_path, "next", rows=1) as process:
            _, errors = process.communicate("\n", timeout=DEADLINE)
            assert process.returncode == 0, errors
        assert stored_rows(tmp_path, "next", 1) == [0]

    def test_a_writer_on_a_full_disk_keeps_what_it_wrote(self, tmp_path):
        with writer(tmp_path, "full", rows=1000, limit=500_000) as process:
            written, errors = process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 1
        last = errors.strip().splitlines()[-1]
        assert f"DataError: the response store {tmp_path / FILE} cannot be used" in last
        assert "make room" in last
        rows = len(written.split())
        assert 1 < rows < 1000
        assert stored_rows(tmp_path, "full", 1000) == list(range(rows))


def filled(folder: Path) -> Path:
    with ResponseStore.open(folder, MODEL) as store:
        for sample in range(40):
            store.put(request(sample=sample), completion(TEXT))
    return folder / FILE


def read_all(folder: Path) -> list[Completion | None]:
    with ResponseStore.open(folder, MODEL) as store:
        return [store.get(request(sample=sample)) for sample in range(40)]


def other_database(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def overwrite(path: Path, position: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"\xff" * length)


DAMAGE = {
    "text": lambda folder: (folder / FILE).write_text("no database\n" * 99),
    "short text": lambda folder: (folder / FILE).write_text("no"),
    "cut in its header": lambda folder: os.truncate(filled(folder), 50),
    "cut to a page": lambda folder: os.truncate(filled(folder), 4096),
    "cut to half": lambda folder: os.truncate(path := filled(folder), path.stat().st_size // 2),
    "cut by a page": lambda folder: os.truncate(path := filled(folder), path.stat().st_size - 4096),
    "cut by a byte": lambda folder: os.truncate(path := filled(folder), path.stat().st_size - 1),
    "first page": lambda folder: overwrite(filled(folder), 100, 3996),
    "all but the first page": lambda folder: overwrite(path := filled(folder), 4096, path.stat().st_size - 4096),
    "later version": lambda folder: (filled(folder), other_database(folder, "PRAGMA user_version=2")),
    "later version, rollback journal": lambda folder: other_database(
        folder, "CREATE TABLE responses (key, response)", "PRAGMA user_version=2"
    ),
    "other database": lambda folder: other_database(folder, "CREATE TABLE bookmarks (title)"),
    "other database, same table": lambda folder: other_database(folder, "CREATE TABLE responses (title)"),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
    def test_a_damaged_file_is_named_and_not_changed(self, tmp_path, damage):
        damage(tmp_path)
        before = contents(tmp_path)
        with pytest.raises(DataError) as caught:
            read_all(tmp_path)
        assert f"the response store {tmp_path / FILE} cannot be used" in str(caught.value)
        assert "move it away or give another folder as responses=" in str(caught.value)
        assert contents(tmp_path) == before

    def test_a_damaged_response_is_generated_again(self, tmp_path, caplog):
        filled(tmp_path)
        other_database(tmp_path, "UPDATE responses SET response = replace(response, 'a', 'b') WHERE rowid = 7")
        known = read_all(tmp_path)
        assert known.count(None) == 1
        assert f"a response in {tmp_path / FILE} is damaged" in caplog.text
        with ResponseStore.open(tmp_path, MODEL) as store:
            store.put(request(sample=known.index(None)), completion(TEXT))
        assert None not in read_all(tmp_path)

    @pytest.mark.parametrize(
        ("blocker", "reason"),
        [
            (lambda folder: folder.parent.write_text(""), "Not a directory"),
            (lambda folder: (folder.parent.mkdir(), folder.write_text("")), "File exists"),
            (lambda folder: (folder / FILE).mkdir(parents=True), "unable to open database file"),
        ],
        ids=["parent is a file", "is a file", "database is a folder"],
    )
    def test_a_folder_that_cannot_be_written(self, tmp_path, blocker, reason):
        folder = tmp_path / "parent" / "folder"
        blocker(folder)
        with pytest.raises(DataError) as caught, ResponseStore.open(folder, MODEL):
            pytest.fail("the store was opened")
        assert f"the response store {folder / FILE} cannot be used" in str(caught.value)
        assert reason in str(caught.value)
        assert "make it writable" in str(caught.value)
