"""Sympy worker: deadlines, sandbox, replacement of workers, threads, forks and the end of the program."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from lm_eval_pruned.grading.limits import (
    MAX_SYMPY_CHARACTERS,
    WORKER_DEADLINE,
    WORKER_START_DEADLINE,
)
from lm_eval_pruned.grading.symbolic import worker
from lm_eval_pruned.grading.symbolic.worker import Outcome

# On a busy machine a worker may start slowly, which only the test of that is about.
ask = partial(worker.ask, patience=WORKER_START_DEADLINE)

# Seconds allowed for killing a worker on a busy machine.
SLACK = 1.5

# Sympy needs minutes for this.
ENDLESS = r"\int_0^\infty \frac{x^{7}}{(1+x^{13})^{17/3}\ln(2+x)} dx"

CANARY = Path("/tmp") / f"lm-eval-pruned-canary-{os.getpid()}"
CODE = [
    f"__import__('os').system('touch {CANARY}')",
    rf"\text{{__import__('os').system('touch {CANARY}')}}",
    f"open('{CANARY}','w')",
    f"exec(\"open('{CANARY}','w')\")",
    f"[c for c in ().__class__.__base__.__subclasses__() if open('{CANARY}','w')]",
    f"(lambda: open('{CANARY}','w'))()",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"; touch {CANARY}",
    rf"\write18{{touch {CANARY}}}",
    rf"\immediate\openout0={CANARY}",
    rf"\operatorname{{__import__('os').system('touch {CANARY}')}}(1)",
    rf"\variable{{__import__('os').system('touch {CANARY}')}}",
    rf"x_{{__import__('os').system('touch {CANARY}')}}",
    f"f(__import__('os').system('touch {CANARY}'))",
    r"\input{/etc/passwd}",
    r"\include{/etc/passwd}",
]
LARGE = [
    "5^{5^{5^{5^5}}}",
    "10^{10^{10}}",
    "-10^{-10^{10}}",
    "(x+y+z)^{99999999}",
    "1000000000!",
    "((9!)!)!",
    r"\binom{10^{12}}{10^{11}}",
    r"\prod_{k=1}^{10^{9}} k",
    r"\sum_{k=1}^{10^{9}} \sin(k^k)",
    r"e^{e^{e^{e^{e}}}}",
    "9" * 100_000,
    "0." + "3" * 1_900,
    "(" * 900 + "x" + ")" * 900,
    r"\frac{1}{" * 150 + "x" + "}" * 150,
    r"\sqrt{" * 29 + "x" + "}" * 29,
    "+".join(["x"] * 900),
    ",".join("123456789" * 100),
    "|" * 500,
    "-" * 1000 + "1",
]
ODD = [
    "",
    " ",
    "\0",
    "1\0",
    "\ud800",
    "\udfff1",
    "\u202e1",
    "\ufffe",
    "\U0001d7d9" * 50,
    "\x1b[2J",
    "\n\n",
    "{",
    r"\frac",
    "é" * 99,
    '"}\n',
]


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for_end(pid: int) -> bool:
    until = time.monotonic() + 5
    while running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not running(pid)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def worker_pids() -> set[int]:
    return {one.process.pid for one in worker._workers}


@pytest.fixture
def fresh() -> None:
    worker.close()
    ask("x+x", "2x")


def test_importing_the_module_loads_no_sympy_and_starts_no_process() -> None:
    script = "import sys, lm_eval_pruned.grading.symbolic.worker as w; print('sympy' in sys.modules, len(w._workers))"
    assert run(script) == "False 0"


def test_outcomes() -> None:
    assert ask(r"\sin^2 x+\cos^2 x", "1")[:2] == (True, "ok")
    assert ask("x", "y")[:2] == (False, "ok")
    assert ask("east", "seat")[:2] == (None, "unparsed")
    assert ask("x" * (MAX_SYMPY_CHARACTERS + 1), "x").status == ask("", "x").status == "unparsed"


@pytest.mark.parametrize("text", CODE + LARGE + ODD, ids=range(len(CODE + LARGE + ODD)))
def test_hostile_text_is_never_equal_late_or_executed(text: str) -> None:
    ask("x", "1+x")  # so that a worker has started
    began = time.monotonic()
    answer = ask(text, "y+7")
    assert time.monotonic() - began < WORKER_DEADLINE + SLACK
    assert not answer.equal
    assert not CANARY.exists()


def test_the_sandbox_forbids_files_processes_sockets_and_memory(tmp_path: Path) -> None:
    script = f"""
import os, socket, subprocess, sys
from lm_eval_pruned.grading.symbolic import worker_process
worker_process._enter_sandbox()
acts = [
    lambda: open({str(tmp_path / "canary")!r}, "w"), lambda: os.remove({str(tmp_path)!r}), os.fork,
    lambda: subprocess.run(["true"]), lambda: os.system("true"), lambda: socket.create_connection(("127.0.0.1", 9)),
]
for act in acts:
    try:
        act()
    except PermissionError:
        print("refused", end=" ")
try:
    bytearray(8 * 1024**3)
except MemoryError:
    print("no memory")
"""
    assert run(script) == "refused " * 6 + "no memory"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that allocate 8 GB for one pair and print for another."""
    patch = """
import os, sys
from lm_eval_pruned.grading.symbolic import compare as symbolic
real = symbolic.decide
def decide(left, right):
    if right == "memory":
        bytearray(8 * 1024**3)
    if right == "noise":
        os.write(1, b"noise"), print("noise"), sys.stdin.read()
    return real(left, right)
symbolic.decide = decide
"""
    start = worker._WORKER_PROGRAM.replace("worker_process.serve(", f"exec({patch!r}, {{}}); worker_process.serve(")
    monkeypatch.setattr(worker, "_WORKER_PROGRAM", start)
    worker.close()
    yield
    worker.close()


@pytest.mark.usefixtures("patched")
def test_exceeding_the_memory_limit_costs_one_verdict() -> None:
    assert ask("1", "memory") == Outcome(None, "timeout", "the worker was killed or needed too much memory")
    assert ask("x+x", "2x").equal


@pytest.mark.usefixtures("patched")
def test_library_output_does_not_reach_the_pipes() -> None:
    assert ask("1", "noise").status == "unparsed"
    assert ask("x+x", "2x").equal
    assert ask("x", "y").equal is False


@pytest.mark.usefixtures("fresh")
def test_a_deadline_kills_one_worker_and_the_next_pair_is_decided() -> None:
    before = worker_pids()
    began = time.monotonic()
    answer = ask(ENDLESS, "1", deadline=0.5)
    assert 0.4 < time.monotonic() - began < 0.5 + SLACK
    assert answer == Outcome(None, "timeout", "not decided in 0.5 s")
    assert ask("x+x", "2x").equal
    assert not before & worker_pids()
    assert all(not running(pid) for pid in before)


def test_a_worker_that_starts_slowly_costs_one_verdict_and_goes_on_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    worker.close()
    slow = worker._WORKER_PROGRAM.replace("from lm_eval_pruned", "import time; time.sleep(1); from lm_eval_pruned", 1)
    monkeypatch.setattr(worker, "_WORKER_PROGRAM", slow)
    began = time.monotonic()
    assert worker.ask("x+x", "2x", patience=0.2).status == "timeout"
    assert time.monotonic() - began < 1
    starting = worker_pids()
    assert ask("x+x", "2x").equal
    assert worker_pids() == starting


@pytest.mark.usefixtures("fresh")
def test_a_worker_killed_while_idle_costs_nothing() -> None:
    (idle,) = worker._workers
    os.kill(idle.process.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while idle.is_usable and time.monotonic() < until:
        time.sleep(0.01)
    assert ask(r"\sqrt8", r"2\sqrt2").equal


@pytest.mark.usefixtures("fresh")
def test_a_worker_killed_while_busy_costs_one_verdict() -> None:
    (pid,) = worker_pids()
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    assert ask(ENDLESS, "1") == Outcome(None, "timeout", "the worker was killed or needed too much memory")
    killer.join()
    assert ask(r"\sqrt8", r"2\sqrt2").equal


@pytest.mark.usefixtures("fresh")
def test_a_stopped_worker_is_replaced() -> None:
    (pid,) = worker_pids()
    os.kill(pid, signal.SIGSTOP)
    assert ask("x", "y", deadline=0.3).status == "timeout"
    assert wait_for_end(pid)
    assert ask("x", "y").equal is False


def test_a_worker_is_replaced_after_its_number_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    worker.close()
    monkeypatch.setattr(worker, "MAX_PAIRS_PER_WORKER", 2)
    pids = []
    for _ in range(4):
        pids.append(min(worker_pids(), default=0))
        assert ask("x+x", "2x").equal
    first, *_, last = pids[1:]
    assert first != last
    assert wait_for_end(first)


def test_threads_get_the_outcomes_of_their_own_pairs() -> None:
    pairs = [(f"{n}x+{n}x", f"{2 * n + n % 2}x") for n in range(1, 201)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda pair: ask(*pair), pairs))
    assert [answer.equal for answer in answers] == [n % 2 == 0 for n in range(1, 201)]
    assert len(worker._workers) == 1


def test_asyncio_is_not_blocked() -> None:
    async def ticks_until_answered() -> int:
        pair = asyncio.create_task(asyncio.to_thread(ask, ENDLESS, "1", deadline=0.5))
        ticks = 0
        while not pair.done():
            await asyncio.sleep(0.02)
            ticks += 1
        assert pair.result().status == "timeout"
        return ticks

    assert asyncio.run(ticks_until_answered()) >= 5


def test_a_script_without_a_main_guard_and_a_spawned_child() -> None:
    script = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from lm_eval_pruned.grading.symbolic.worker import ask
print(ask("x+x", "2x", patience=60).equal)
with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
    print(pool.submit(ask, "x+x", "2x", patience=60).result().equal)
"""
    assert run(script) == "True\nTrue"


def test_a_forked_child_starts_its_own_workers_and_leaves_its_parents_alone() -> None:
    script = """
import os, warnings
warnings.simplefilter("error")
from lm_eval_pruned.grading.symbolic import worker
assert worker.ask("x+x", "2x", patience=60).equal
(pid,) = (one.process.pid for one in worker._workers)
child = os.fork()
if not child:
    assert not worker._workers
    assert worker.ask("x+x", "2x", patience=60).equal
    assert pid not in {one.process.pid for one in worker._workers}
    worker.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert worker.ask("x", "y", patience=60).equal is False
print([one.process.pid for one in worker._workers] == [pid])
"""
    assert run(script) == "True"


@pytest.mark.parametrize("pair", ["'x', 'y'", f"{ENDLESS!r}, '1', deadline=60"], ids=["idle", "busy"])
def test_workers_die_with_a_parent_that_is_killed(pair: str) -> None:
    script = f"""
import threading, time
from lm_eval_pruned.grading.symbolic import worker
worker.ask("x", "1+x", patience=60)
threading.Thread(target=worker.ask, args=("x", "y"), daemon=True).start()
threading.Thread(target=lambda: worker.ask({pair}), daemon=True).start()
time.sleep(0.5)
print(*(one.process.pid for one in worker._workers), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        assert all(running(pid) for pid in pids)
        parent.kill()
    assert all(wait_for_end(pid) for pid in pids)


def test_workers_end_with_the_program() -> None:
    script = """
from lm_eval_pruned.grading.symbolic import worker
worker.ask("x", "1+x", patience=60)
print(*(one.process.pid for one in worker._workers))
"""
    assert all(wait_for_end(int(pid)) for pid in run(script).split())
