"""Executors: run the cells of a sweep one after the other, or in parallel on Ray."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_pruned.errors import ArgumentError, EngineError, MissingPackageError
from lm_eval_pruned.sweeps.running import CellJob, CellOutcome, Harness, supervise

if TYPE_CHECKING:
    from types import ModuleType

EXECUTORS = ("ray", "local")

# A cell whose Ray worker or machine dies is retried this many times.
RAY_RETRIES = 3
POLL_SECONDS = 0.5
CONNECT_TIMEOUT_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost")
TOKEN_FILE = Path.home() / ".ray" / "auth_token"

# Ray speaks HTTP/2, where each side first sends its settings: a frame whose fourth byte is 4. Ours are empty.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def run_local(jobs: Sequence[CellJob], harness: Harness) -> Generator[CellOutcome | None]:
    """Run the cells one after the other; yield their outcomes, and None at every poll in between."""
    for job in jobs:
        with closing(supervise(job, harness)) as steps:
            yield from steps


def run_ray(jobs: Sequence[CellJob], harness: Harness, address: str) -> Generator[CellOutcome | None]:
    """Run the cells as Ray tasks that reserve CPUs, GPUs and memory; yield as `run_local` does.

    `address` is `local` to start a Ray for this sweep, or that of a cluster whose machines all see the output folder.

    Raises:
        MissingPackageError: Ray is not installed.
        EngineError: there is no Ray at that address.
        ArgumentError: none of its machines is large enough for a cell.
    """
    ray = _connect(address)
    try:
        _check_fits(jobs, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        remote = ray.remote(max_retries=RAY_RETRIES)(_run_to_end)
        waiting: dict[Any, CellJob] = {}
        for job in jobs:
            needs = job.cell.resources
            task = remote.options(num_cpus=needs.cpus, num_gpus=needs.gpus, memory=job.memory, name=job.label)
            waiting[task.remote(job, harness)] = job
        while waiting:
            finished, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
            for reference in finished:
                job = waiting.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()
                    yield CellOutcome(job.cell.id, 0.0, f"Ray: {reason[-1] if reason else type(error).__name__}")
            yield None
    finally:
        ray.shutdown()


def _run_to_end(job: CellJob, harness: Harness) -> CellOutcome:
    return next(outcome for outcome in supervise(job, harness) if outcome is not None)


def _connect(address: str) -> ModuleType:
    # Ray reports every start to its developers unless this is set.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "local":
        # Nobody reads its task events; Ray waits at shutdown to deliver them, and may crash meanwhile.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    elif address.partition(":")[0] in LOOPBACK and TOKEN_FILE.exists():
        # A Ray started on this machine leaves a token file, and clusters started later then require it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise MissingPackageError(
            "Ray is not installed: pip install 'ray>=2.40', or give --engine local to run one cell at a time"
        ) from None
    _check_address(address)
    try:
        with warnings.catch_warnings(action="ignore"):
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise EngineError(
            f"no Ray at --address {address}: start one with ray start --head, or set RAY_AUTH_MODE=token "
            f"if it wants a token ({reason:.300})"
        ) from None
    return ray


def _check_address(address: str) -> None:
    """Find out within seconds that nothing listens there, or not Ray; Ray itself takes minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(_HTTP2_PREFACE)
            if connection.recv(4)[3:] != b"\4":
                raise ConnectionError("what listens there is something else")
    except (OSError, OverflowError) as error:
        raise EngineError(f"no Ray at --address {address}: start one with ray start --head ({error})") from None


def _check_fits(jobs: Sequence[CellJob], machines: Sequence[dict[str, float]]) -> None:
    """Refuse a cell that would wait forever, since no machine is large enough."""
    for job in jobs:
        needs = {"CPU": job.cell.resources.cpus, "GPU": job.cell.resources.gpus, "memory": job.memory}
        if not any(all(machine.get(kind, 0.0) >= amount for kind, amount in needs.items()) for machine in machines):
            best = {kind: max((machine.get(kind, 0.0) for machine in machines), default=0.0) for kind in needs}
            raise ArgumentError(
                f"{job.label} needs {_words(needs)} on one machine, and Ray has at most {_words(best)}: change "
                "cpus, gpus or memory_gb, or give the --address of a larger cluster"
            )


def _words(amounts: dict[str, float]) -> str:
    return f"{amounts['CPU']:g} CPU, {amounts['GPU']:g} GPU and {amounts['memory'] / 1e9:.1f} GB"


def shared_environment() -> dict[str, str]:
    """Return the environment variables that every machine of a cluster needs with this machine's values."""
    wanted = ("LM_EVAL_PRUNED_DATA", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME")
    return {name: os.environ[name] for name in wanted if name in os.environ}
