"""Engines: what runs the cells of a sweep, here one after the other or on Ray side by side."""

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
from lm_eval_pruned.sweeps.running import Harness, Job, Outcome, supervise

if TYPE_CHECKING:
    from types import ModuleType

ENGINES = ("ray", "local")

# A worker of Ray that died, or its machine, costs its cell so many further tries.
RAY_RETRIES = 3
SECONDS_A_LOOK = 0.5
SECONDS_TO_CONNECT = 10.0
LOOPBACK = ("127.0.0.1", "localhost")
TOKEN_FILE = Path.home() / ".ray" / "auth_token"

# Ray speaks HTTP/2, in which each side begins with its settings: a frame whose fourth byte is 4. Ours are empty.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def run_local(jobs: Sequence[Job], harness: Harness) -> Generator[Outcome | None]:
    """Run the cells one after the other; yield their outcomes, and None now and then."""
    for job in jobs:
        with closing(supervise(job, harness)) as steps:
            yield from steps


def run_ray(jobs: Sequence[Job], harness: Harness, address: str) -> Generator[Outcome | None]:
    """Run the cells on Ray, each a task with its share of processors, GPUs and memory.

    `address` is `local` for a Ray of this sweep's own, or that of a cluster, all of whose machines see the output.

    Raises:
        MissingPackageError: Ray is not installed.
        EngineError: there is no Ray at that address.
        ArgumentError: no machine of it is large enough for a cell.
    """
    ray = _start(address)
    try:
        _check_fits(jobs, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        remote = ray.remote(max_retries=RAY_RETRIES)(_run_to_end)
        waiting: dict[Any, Job] = {}
        for job in jobs:
            needs = job.cell.resources
            task = remote.options(num_cpus=needs.cpus, num_gpus=needs.gpus, memory=job.memory, name=job.cell.label)
            waiting[task.remote(job, harness)] = job
        while waiting:
            finished, _ = ray.wait(list(waiting), timeout=SECONDS_A_LOOK)
            for reference in finished:
                job = waiting.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()
                    yield Outcome(job.cell.id, 0.0, f"Ray: {reason[-1] if reason else type(error).__name__}")
            yield None
    finally:
        ray.shutdown()


def _run_to_end(job: Job, harness: Harness) -> Outcome:
    return next(outcome for outcome in supervise(job, harness) if outcome is not None)


def _start(address: str) -> ModuleType:
    # Ray tells its makers of every start unless asked not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "local":
        # Nobody reads the events of its tasks; Ray waits at its end to hand them in, and may crash meanwhile.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    elif address.partition(":")[0] in LOOPBACK and TOKEN_FILE.exists():
        # Any Ray that was started here for itself has left a token, and the next cluster then wants to see it.
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
    """Find out in seconds that nobody listens or that it is no Ray, which Ray itself takes minutes for."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS_TO_CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(_GREETING)
            if connection.recv(4)[3:] != b"\4":
                raise ConnectionError("what listens there is something else")
    except (OSError, OverflowError) as error:
        raise EngineError(f"no Ray at --address {address}: start one with ray start --head ({error})") from None


def _check_fits(jobs: Sequence[Job], machines: Sequence[dict[str, float]]) -> None:
    """Refuse a cell that would wait for ever."""
    for job in jobs:
        needs = {"CPU": job.cell.resources.cpus, "GPU": job.cell.resources.gpus, "memory": job.memory}
        if not any(all(machine.get(kind, 0.0) >= amount for kind, amount in needs.items()) for machine in machines):
            best = {kind: max((machine.get(kind, 0.0) for machine in machines), default=0.0) for kind in needs}
            raise ArgumentError(
                f"{job.cell.label} needs {_words(needs)} on one machine, and Ray has at most {_words(best)}: change "
                "cpus, gpus or memory_gb, or give the --address of a larger cluster"
            )


def _words(amounts: dict[str, float]) -> str:
    return f"{amounts['CPU']:g} CPU, {amounts['GPU']:g} GPU and {amounts['memory'] / 1e9:.1f} GB"


def shared_environment() -> dict[str, str]:
    """Return the variables that every machine of a cluster must have as this one has them."""
    wanted = ("LM_EVAL_PRUNED_DATA", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME")
    return {name: os.environ[name] for name in wanted if name in os.environ}
