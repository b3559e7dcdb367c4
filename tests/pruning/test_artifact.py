"""The artifact cache: round trips, damaged files, several processes, kills, and folders that cannot be written."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.pruning.artifacts import store as artifact_module
from lm_eval_pruned.pruning.artifacts.store import Artifact, Store, artifacts_folder
from lm_eval_pruned.pruning.masks.packing import pack

FINGERPRINT = "0123456789abcdef" * 4
ARTIFACT = Artifact(
    {"z": 0.1 + 0.2, "a": [1, None, True, "é"], "nested": {"y": 1e-300, "b": -0.0}},
    {"model.layers.0.q_proj": pack(torch.eye(5, 7) > 0), "model.layers.1.q_proj": torch.tensor([[-0.0, math.inf]])},
)
FILES = ["SHA256SUMS", "report.json", "tensors.safetensors"]
NOBODY = 65534
# Another process needs a moment to reach a lock; tests only wait longer where something is broken.
MOMENT, DEADLINE = 0.3, 30

# Children of a server that has torch loaded already start at once.
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "lm_eval_pruned.pruning.artifacts.store"])


class Fetched(NamedTuple):
    """An artifact, and whether it had to be made."""

    artifact: Artifact
    made: bool


def read_or_make(store: Store, fingerprint: str, make: Callable[[], Artifact]) -> Fetched:
    """Use a store as the engine does."""
    with store.reserve(fingerprint) as reservation:
        if reservation.artifact is not None:
            return Fetched(reservation.artifact, made=False)
        artifact = make()
        reservation.write(artifact)
        return Fetched(artifact, made=True)


def make() -> Artifact:
    return ARTIFACT


def never() -> Artifact:
    raise AssertionError("a good artifact was made again")


def same(one: Artifact, other: Artifact) -> bool:
    # As text: the order and the exact floats of a report count.
    return (
        json.dumps(one.report) == json.dumps(other.report)
        and one.tensors.keys() == other.tensors.keys()
        and all(bits(one.tensors[name]) == bits(other.tensors[name]) for name in one.tensors)
    )


def bits(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.contiguous().numpy().tobytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def wait_for(condition) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(folder=tmp_path / "not yet" / "there")


@pytest.fixture
def place(store: Store) -> Path:
    """The folder of an artifact that was made before."""
    assert read_or_make(store, FINGERPRINT, make).made
    return store.folder / FINGERPRINT


class TestGood:
    def test_made_once_then_read(self, store, caplog):
        assert store.read(FINGERPRINT) is None
        made = read_or_make(store, FINGERPRINT, make)
        read = read_or_make(store, FINGERPRINT, never)
        assert (made.made, read.made) == (True, False)
        for artifact in (made.artifact, read.artifact, store.read(FINGERPRINT)):
            assert same(artifact, ARTIFACT)
        assert store.read("f" * 64) is None
        assert not caplog.messages

    def test_files(self, place):
        assert sorted(path.name for path in place.iterdir()) == FILES
        assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o666 & ~umask()}
        assert {path.name for path in place.parent.iterdir()} == {FINGERPRINT, f"{FINGERPRINT}.lock"}

    @pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not installed")
    def test_coreutils_can_check_it(self, place):
        check = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
        answer = subprocess.run(check, cwd=place, check=True, capture_output=True, text=True)
        assert answer.stdout.splitlines() == [f"{name}: OK" for name in FILES[1:]]

    def test_other_files_in_the_folder_are_no_damage(self, store, place):
        (place / "notes.txt").write_text("mine")
        assert same(store.read(FINGERPRINT), ARTIFACT)

    def test_a_strided_tensor_and_none_at_all(self, store):
        strided = Artifact({}, {"weight": torch.arange(6.0).reshape(2, 3).t()})
        for fingerprint, artifact in (("a" * 64, strided), ("b" * 64, Artifact({"blocks": [1]}, {}))):
            read_or_make(store, fingerprint, lambda artifact=artifact: artifact)
            assert same(store.read(fingerprint), artifact)

    @settings(max_examples=30, deadline=None)
    @given(
        report=st.dictionaries(
            st.text(),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda values: st.lists(values) | st.dictionaries(st.text(), values),
                max_leaves=5,
            ),
        ),
        sizes=st.dictionaries(st.text("ab.", min_size=1), st.integers(0, 9), max_size=3),
    )
    def test_everything_comes_back_exactly(self, report, sizes):
        artifact = Artifact(report, {name: torch.arange(size, dtype=torch.uint8) for name, size in sizes.items()})
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder=Path(folder))
            read_or_make(store, FINGERPRINT, lambda: artifact)
            assert same(store.read(FINGERPRINT), artifact)

    @pytest.mark.parametrize("fingerprint", ["", "../etc", FINGERPRINT[:-1], FINGERPRINT.upper(), f"{FINGERPRINT}\n"])
    def test_a_fingerprint_is_no_path(self, store, fingerprint):
        with pytest.raises(ArgumentError, match="not a SHA-256"):
            store.read(fingerprint)
        with pytest.raises(ArgumentError, match="not a SHA-256"):
            read_or_make(store, fingerprint, never)
        assert not store.folder.exists()

    def test_the_default_folder_is_the_users_own_cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        assert artifacts_folder(None).is_relative_to(tmp_path)
        assert artifacts_folder(None).parts[-2:] == ("lm_eval_pruned", "artifacts")


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    def test_every_byte_is_checked(self, store, place, name, caplog):
        good = (place / name).read_bytes()
        for position in range(len(good)):
            caplog.clear()
            damaged = bytearray(good)
            damaged[position] ^= 1 << position % 8
            (place / name).write_bytes(damaged)
            assert store.read(FINGERPRINT) is None, position
            assert len(caplog.messages) == 1, position
        (place / name).write_bytes(good)
        assert same(store.read(FINGERPRINT), ARTIFACT)

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize(
        "damage",
        [
            lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]),
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"),
            lambda path: os.truncate(path, path.stat().st_size // 2),
            lambda path: os.truncate(path, 0),
            lambda path: path.write_bytes(path.read_bytes() * 2),
            lambda path: path.unlink(),
            lambda path: (path.unlink(), path.mkdir()),
        ],
        ids=["first byte", "last byte", "half", "empty", "twice", "missing", "a folder"],
    )
    def test_it_is_made_again_with_the_same_bytes(self, store, place, name, damage, caplog):
        before = contents(store.folder)
        damage(place / name)
        assert contents(store.folder) != before
        fetched = read_or_make(store, FINGERPRINT, make)
        assert fetched.made
        assert same(fetched.artifact, ARTIFACT)
        assert contents(store.folder) == before
        (message,) = caplog.messages
        assert str(place) in message
        assert "damaged" in message
        assert "rebuilt" in message
        assert not read_or_make(store, FINGERPRINT, never).made

    def test_the_warning_names_the_file(self, store, place, caplog):
        (place / "report.json").write_text("{}")
        (place / "tensors.safetensors").unlink()
        store.read(FINGERPRINT)
        shutil.copy(place / "report.json", place / "tensors.safetensors")
        store.read(FINGERPRINT)
        (place / "report.json").unlink()
        store.read(FINGERPRINT)
        one, two, three = caplog.messages
        assert f"No such file or directory: '{place / 'tensors.safetensors'}'" in one
        assert "(SHA256SUMS does not match report.json and tensors.safetensors)" in two
        assert f"No such file or directory: '{place / 'report.json'}'" in three

    def test_files_that_match_their_sums_but_are_no_artifact(self, store, place, caplog):
        for name in FILES[1:]:
            content = (place / name).read_bytes()
            (place / name).write_text("[")
            subprocess.run("sha256sum report.json tensors.safetensors > SHA256SUMS", shell=True, cwd=place, check=True)
            assert store.read(FINGERPRINT) is None, name
            (place / name).write_bytes(content)
        assert len(caplog.messages) == 2

    @pytest.mark.parametrize(
        ("where", "call"),
        [(artifact_module, "load_file"), (torch.UntypedStorage, "from_file")],
        ids=["opened", "mapped"],
    )
    def test_it_vanishes_after_the_check_before_it_is(self, store, place, where, call, monkeypatch, caplog):
        original = getattr(where, call)

        def vanish_first(*args: object, **named: object) -> object:
            shutil.rmtree(place)
            return original(*args, **named)

        monkeypatch.setattr(where, call, vanish_first)
        assert store.read(FINGERPRINT) is None
        assert len(caplog.messages) == 1

    @pytest.mark.parametrize("kind", ["file", "empty folder", "link"])
    def test_something_else_in_its_place(self, store, tmp_path, kind, caplog):
        store.folder.mkdir(parents=True)
        place, target = store.folder / FINGERPRINT, tmp_path / "mine"
        target.mkdir()
        {"file": place.touch, "empty folder": place.mkdir, "link": lambda: place.symlink_to(target)}[kind]()
        assert read_or_make(store, FINGERPRINT, make).made
        assert len(caplog.messages) == 1
        assert same(store.read(FINGERPRINT), ARTIFACT)
        assert target.exists()

    def test_an_error_of_make_passes_and_leaves_nothing(self, store):
        def fail() -> Artifact:
            raise FileNotFoundError("no calibration data")

        with pytest.raises(FileNotFoundError, match="no calibration data"):
            read_or_make(store, FINGERPRINT, fail)
        assert contents(store.folder) == {f"{FINGERPRINT}.lock": b""}
        assert read_or_make(store, FINGERPRINT, make).made


# What other processes run.


def kill_this_process() -> Artifact:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived")


def die_in_make(folder: Path) -> None:
    read_or_make(Store(folder=folder), FINGERPRINT, kill_this_process)


def die_in_write(folder: Path, call: str, count: int) -> None:
    """Die instead of the `count`-th call of a function of `os`."""
    calls, original = itertools.count(1), getattr(os, call)
    setattr(os, call, lambda *args: kill_this_process() if next(calls) == count else original(*args))
    read_or_make(Store(folder=folder), FINGERPRINT, make)


def make_for_ever(folder: Path) -> None:
    def sleep() -> Artifact:
        (folder / "making").touch()
        time.sleep(DEADLINE)
        return ARTIFACT

    read_or_make(Store(folder=folder), FINGERPRINT, sleep)


def rebuild(folder: Path, times: int) -> None:
    store = Store(folder=folder)
    for _ in range(times):
        read_or_make(store, FINGERPRINT, make)
        (folder / FINGERPRINT / "SHA256SUMS").unlink()


def race(folder: Path, others: int) -> tuple[bool, dict[str, object], list[int]]:
    def make_slowly() -> Artifact:
        with (folder / "makers").open("a") as file:
            file.write(f"{os.getpid()}\n")
        wait_for(lambda: len(list(folder.glob("arrived-*"))) == others)
        time.sleep(MOMENT)
        return Artifact({"maker": os.getpid()}, {"maker": torch.tensor([os.getpid()])})

    (folder / f"arrived-{os.getpid()}").touch()
    artifact, made = read_or_make(Store(folder=folder), FINGERPRINT, make_slowly)
    return made, dict(artifact.report), artifact.tensors["maker"].tolist()


def made_with_warnings(folder: Path, artifact: Artifact, prepare, *args) -> tuple[bool, list[str]]:
    """Prepare this process, make an artifact in it, and return whether it came out and what was logged."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("lm_eval_pruned").addHandler(handler)
    prepare(*args)
    fetched = read_or_make(Store(folder=folder), FINGERPRINT, lambda: artifact)
    return fetched.made and same(fetched.artifact, artifact), messages


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def drop_privileges() -> None:
    if os.geteuid() == 0:
        os.setuid(NOBODY)


class TestProcesses:
    def test_killed_while_making(self, store, caplog):
        process = PROCESSES.Process(target=die_in_make, args=(store.folder,))
        process.start()
        process.join(DEADLINE)
        assert process.exitcode == -signal.SIGKILL
        assert store.read(FINGERPRINT) is None
        assert read_or_make(store, FINGERPRINT, make).made
        assert not caplog.messages

    # Modes are set before the checksums are written; three files and their folder are synced before it is renamed, the
    # folder above after it.
    @pytest.mark.parametrize("damaged", [False, True], ids=["new", "replacing"])
    @pytest.mark.parametrize(
        ("call", "count", "made"),
        [
            ("chmod", 1, True),
            *(("fsync", count, True) for count in range(1, 5)),
            ("rename", 1, True),
            ("fsync", 5, False),
        ],
    )
    def test_killed_while_writing(self, store, call, count, made, damaged, caplog):
        store.folder.mkdir(parents=True)
        if damaged:
            read_or_make(store, FINGERPRINT, make)
            (store.folder / FINGERPRINT / "report.json").unlink()
        process = PROCESSES.Process(target=die_in_write, args=(store.folder, call, count))
        process.start()
        process.join(DEADLINE)
        assert process.exitcode == -signal.SIGKILL
        temporary = store.folder / f"{FINGERPRINT}.tmp"
        assert temporary.exists() == made
        assert (store.read(FINGERPRINT) is None) == made
        assert read_or_make(store, FINGERPRINT, make).made == made
        assert same(store.read(FINGERPRINT), ARTIFACT)
        assert not caplog.messages
        assert {path.name for path in store.folder.iterdir()} == {FINGERPRINT, f"{FINGERPRINT}.lock"}

    def test_of_several_one_makes_and_all_get_the_same(self, tmp_path):
        count = 3
        with ProcessPoolExecutor(count, mp_context=PROCESSES) as pool:
            results = [task.result(DEADLINE) for task in [pool.submit(race, tmp_path, count) for _ in range(count)]]
        (maker,) = (tmp_path / "makers").read_text().split()
        assert sorted(made for made, _, _ in results) == [False] * (count - 1) + [True]
        assert all(report == {"maker": int(maker)} and value == [int(maker)] for _, report, value in results)

    def test_who_waits_for_a_process_that_dies_makes_it(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        process = PROCESSES.Process(target=make_for_ever, args=(tmp_path,))
        process.start()
        wait_for((tmp_path / "making").exists)
        Timer(MOMENT, process.kill).start()
        started = time.monotonic()
        assert read_or_make(Store(folder=tmp_path), FINGERPRINT, make).made
        assert MOMENT / 2 < time.monotonic() - started < DEADLINE / 2
        assert any("another process" in message for message in caplog.messages)
        process.join(DEADLINE)

    def test_a_reader_survives_what_is_replaced_under_it(self, tmp_path):
        process = PROCESSES.Process(target=rebuild, args=(tmp_path, 50))
        process.start()
        seen = []
        while process.is_alive():
            seen.append(Store(folder=tmp_path).read(FINGERPRINT))
        assert process.exitcode == 0
        assert all(artifact is None or same(artifact, ARTIFACT) for artifact in seen)


class TestUnwritable:
    """The work of hours is not lost for want of a cache."""

    @pytest.mark.parametrize(
        ("blocker", "error"),
        [
            (lambda folder: folder.parent.write_text(""), "Not a directory"),
            (lambda folder: (folder.parent.mkdir(), folder.write_text("")), "File exists"),
            (lambda folder: (folder / f"{FINGERPRINT}.lock").mkdir(parents=True), "Is a directory"),
        ],
        ids=["goes through a file", "is a file", "no lock file"],
    )
    def test_no_folder_or_lock(self, tmp_path, blocker, error, caplog):
        folder = tmp_path / "parent" / "folder"
        blocker(folder)
        fetched = read_or_make(Store(folder=folder), FINGERPRINT, make)
        assert fetched.made
        assert same(fetched.artifact, ARTIFACT)
        (message,) = caplog.messages
        assert f"cannot be kept in {folder}" in message
        assert error in message
        assert "artifacts=off or another folder" in message

    @pytest.mark.parametrize(
        "artifact",
        [Artifact({}, {"weight": torch.zeros(9999)}), Artifact({"long": "x" * 9999}, {}), ARTIFACT],
        ids=["in the tensors", "in the report", "in both"],
    )
    def test_no_room_on_the_disk(self, tmp_path, artifact):
        limit = 10 if artifact is ARTIFACT else 1000
        with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
            task = pool.submit(made_with_warnings, tmp_path, artifact, limit_file_size, limit)
            whole, messages = task.result(DEADLINE)
        assert whole
        (message,) = messages
        assert f"cannot be kept in {tmp_path}" in message
        assert "File too large" in message
        assert contents(tmp_path) == {f"{FINGERPRINT}.lock": b""}

    def test_no_permission(self, tmp_path):
        # Root is let in everywhere, so that it becomes somebody else first.
        folder = tmp_path / "closed"
        folder.mkdir(mode=0)
        try:
            with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
                whole, messages = pool.submit(made_with_warnings, folder, ARTIFACT, drop_privileges).result(DEADLINE)
        finally:
            folder.chmod(0o700)
        assert whole
        assert any(f"cannot be kept in {folder}" in message and "Permission denied" in message for message in messages)
        assert not contents(folder)
