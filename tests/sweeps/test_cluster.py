"""Sweeps on an existing Ray cluster: two real Ray nodes on the loopback address."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from uuid import uuid4

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.sweeps import executors
from tests.sweeps.small_sweeps import MARK, finish, left_behind, processes, start

RAY = Path(sysconfig.get_path("scripts")) / "ray"
HOST = "127.0.0.1"
DEADLINE = 300
# Ports that do not collide with another Ray on this machine.
PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
# The cluster rejects connections without its token.
ASKED = {"RAY_AUTH_MODE": "token"}

pytestmark = pytest.mark.slow


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with closing(socket.socket()) as caller:
        return caller.connect_ex((HOST, port)) == 0


@contextmanager
def node(arguments: Sequence[str], variables: Mapping[str, str]) -> Iterator[None]:
    """Run `ray start` in the foreground, and kill it with its descendants at the end."""
    ports = [f"--{name}={free_port()}" for name in PORTS]
    process = subprocess.Popen(
        [RAY, "start", "--block", "--num-cpus=1", *ports, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **variables, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
    )
    try:
        yield
    finally:
        # On SIGTERM a node waits half a minute for a cluster that is gone. Its children end with it.
        process.kill()
        process.wait(timeout=DEADLINE)


def nodes(address: str, home: str) -> int:
    """Return the number of nodes of the cluster, 0 while there is none."""
    code = (
        "import ray, logging; ray.init(address={!r}, log_to_driver=False, logging_level=logging.ERROR);"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    command = [sys.executable, "-c", code.format(address)]
    asked = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **ASKED, "HOME": home}
    )
    return int(asked.stdout.split()[-1]) if asked.returncode == 0 else 0


class Cluster(NamedTuple):
    """Address of the cluster, home folder with its token, and mark of its processes."""

    address: str
    home: str
    mark: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    port = free_port()
    # Names of Unix sockets must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    (folder / ".ray").mkdir()
    # As left by a Ray that was started on this machine before.
    (folder / ".ray/auth_token").write_text(uuid4().hex)
    made = Cluster(f"{HOST}:{port}", str(folder), uuid4().hex)
    variables = {"HOME": made.home, MARK: made.mark}
    head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.enter_context(node(head, variables))
        deadline = time.monotonic() + DEADLINE
        while not listens(port):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        stack.enter_context(node([f"--address={made.address}"], variables | ASKED))
        while nodes(made.address, made.home) < 2:
            assert time.monotonic() < deadline
        yield made
    assert left_behind(made.mark) == []


def test_the_cluster_does_the_work_and_is_left_running(cluster, tmp_path):
    variables = {"HOME": cluster.home, MARK: uuid4().hex}
    code, said = finish(start("smoke", tmp_path, "--address", cluster.address, **variables))
    assert (code, "3 done, 0 failed" in said) == (0, True), said
    assert (tmp_path / "leaderboard.html").exists()
    assert left_behind(variables[MARK]) == []
    assert processes(cluster.mark)
    assert nodes(cluster.address, cluster.home) == 2


@pytest.mark.parametrize("speaks", [True, False])
def test_what_listens_and_is_no_ray_is_one_sentence_and_2(tmp_path, capfd, monkeypatch, speaks):
    monkeypatch.setattr(executors, "CONNECT_TIMEOUT_SECONDS", 1.0)
    with ThreadingHTTPServer((HOST, 0), BaseHTTPRequestHandler) as server:
        if speaks:
            Thread(target=server.serve_forever).start()
        address = f"{HOST}:{server.server_port}"
        assert cli.main(["sweep", "smoke", "--output", str(tmp_path), "--address", address]) == 2
        if speaks:
            server.shutdown()
    err = capfd.readouterr().err
    assert f"no Ray at --address {address}" in err
    assert ("something else" in err, "timed out" in err) == (speaks, not speaks)
