"""`lm-eval-pruned sweep`: run a grid of harness runs described by one YAML file, skipping cells that are done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from lm_eval_pruned.commands import Subparsers, leaderboard, run
from lm_eval_pruned.commands import diverge as diverge_command
from lm_eval_pruned.errors import ArgumentError, unknown_name

if TYPE_CHECKING:
    from lm_eval_pruned.results.statistics.early import StoppingRule
    from lm_eval_pruned.sweeps.cell import Cell
    from lm_eval_pruned.sweeps.running import CellJob, Harness

LEADERBOARD = "leaderboard"
EARLY = "early"
EQUIVALENCE = 0.1


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `sweep` and its flags."""
    parser = subparsers.add_parser(
        "sweep",
        help="a grid of runs that goes on where it was",
        description="Every cell of the grid is a run of the harness in a process and a folder of its own. Exit code 0: "
        "all cells are done. 1: a cell failed; the same command tries it again. 2: bad input.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="the grid, or the name of one of ours: demo, smoke, paper"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the sweep, new or begun")
    parser.add_argument("--engine", default="ray", help="ray: cells side by side; local: one after the other [ray]")
    parser.add_argument("--address", metavar="ADDR", help="a Ray that runs, or auto [one of its own, on this machine]")
    parser.add_argument(
        "--stop",
        metavar="WHEN",
        help="early: end a pruned cell when its verdict against the dense cell is certain; the same sweep without it "
        "asks the questions that are left [all questions]",
    )
    parser.add_argument(
        "--equivalence",
        type=float,
        metavar="MARGIN",
        help="with --stop early: call a cell equivalent where a difference of this size is excluded; 0.05 is five "
        f"points of accuracy [{EQUIVALENCE}]",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run and what it would take")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Read and check the configuration, run the cells that are not done, and write the leaderboards.

    Raises:
        PrunedEvalError: the configuration, the folder or Ray is invalid; raised before any cell runs.
        KeyboardInterrupt: Ctrl-C; the message says how many cells are done.
    """
    from lm_eval_pruned.sweeps.early import EarlyStop
    from lm_eval_pruned.sweeps.estimate import estimate_lines, memory_request
    from lm_eval_pruned.sweeps.executors import EXECUTORS, shared_environment
    from lm_eval_pruned.sweeps.grid import find_config, read_sweep
    from lm_eval_pruned.sweeps.running import RESULTS, CellJob, cell_folder

    if args.engine not in EXECUTORS:
        raise unknown_name("--engine", args.engine, EXECUTORS)
    if args.address and args.engine != "ray":
        raise ArgumentError(f"--address {args.address} is of Ray: leave it out, or give --engine ray")
    _check_stop(args)
    sweep = read_sweep(find_config(args.config))
    stops = _stops(sweep.cells, args)
    if args.dry_run:
        print("\n".join(estimate_lines(sweep.cells)))
        if args.stop:
            count = sum(stop is not None for stop in stops)
            print(f"{count} cells may be stopped early; the estimates are those of all questions")
        return 0
    if args.output is None:
        raise ArgumentError("--output DIR is missing: give the folder of the sweep, new or begun, or --dry-run")
    output = _make_folder(args.output)
    start = uuid4().hex
    jobs = [
        CellJob(
            cell=cell,
            folder=cell_folder(output, cell),
            start=start,
            memory=memory_request(cell),
            environment=shared_environment(),
            stop=EarlyStop(rule=stop.rule, dense=cell_folder(output, stop.dense) / RESULTS) if stop else None,
        )
        for cell, stop in zip(sweep.cells, stops, strict=True)
    ]
    failed = _run_cells(str(sweep.path), jobs, args)
    diverging = divergence_jobs(jobs)
    if diverging:
        failed += _run("divergence", diverging, diverge, args)
    write_leaderboards([job for job in jobs if job.is_done], output)
    return int(failed > 0)


class _Stop(NamedTuple):
    rule: StoppingRule
    dense: Cell


def _check_stop(args: argparse.Namespace) -> None:
    if args.stop not in (None, EARLY):
        raise unknown_name("--stop", args.stop, [EARLY])
    if args.equivalence is not None and args.stop is None:
        raise ArgumentError(
            f"--equivalence {args.equivalence} says when to stop: give --stop {EARLY} too, or leave it out"
        )
    if args.equivalence is not None and not 0 < args.equivalence < 1:
        raise ArgumentError(f"--equivalence {args.equivalence}: give 0 < margin < 1; 0.05 is five points")


def _stops(cells: Sequence[Cell], args: argparse.Namespace) -> list[_Stop | None]:
    """Return for each cell the rule that stops it and its dense cell, None where it asks all questions."""
    from lm_eval_pruned.sweeps.early import can_stop, dense_twin, stopping_rule

    if args.stop is None:
        return [None] * len(cells)
    rule = stopping_rule(cells, EQUIVALENCE if args.equivalence is None else args.equivalence)
    return [_Stop(rule, dense_twin(cell, cells)) if can_stop(cell) else None for cell in cells]


def _run_cells(name: str, jobs: Sequence[CellJob], args: argparse.Namespace) -> int:
    """Run the cells that ask all questions, dense ones among them, and then those that are compared with them."""
    whole, stopping = ([job for job in jobs if (job.stop is not None) is is_stopped] for is_stopped in (False, True))
    failed = _run(name, whole, harness, args)
    if not stopping:
        return failed
    done = {job.folder for job in whole if job.is_done}
    comparable = [job for job in stopping if job.stop and job.stop.dense.parent in done]
    for job in stopping:
        if job not in comparable:
            sys.stderr.write(f"failed: {job.label}: its dense cell failed, so there is nothing to compare it with\n")
    failed += len(stopping) - len(comparable)
    return failed + _run(f"{name}, stopping early", comparable, harness, args)


def _run(name: str, jobs: Sequence[CellJob], work: Harness, args: argparse.Namespace) -> int:
    """Run the jobs that are not done, name those that failed on stderr, and return their number."""
    from lm_eval_pruned.sweeps.executors import run_local, run_ray
    from lm_eval_pruned.sweeps.progress_display import ProgressDisplay

    remaining = [job for job in jobs if not job.is_done]
    print(f"{name}: {len(jobs)} cells, {len(jobs) - len(remaining)} of them done before", flush=True)
    if not remaining:
        return 0
    progress = ProgressDisplay(remaining, done_before=len(jobs) - len(remaining))
    events = run_ray(remaining, work, args.address or "local") if args.engine == "ray" else run_local(remaining, work)
    try:
        with progress:
            for event in events:
                progress.show(event)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{progress.done} of {len(jobs)} cells are done; the same command goes on") from None
    finally:
        events.close()
    print(progress.summary())
    for line in progress.failure_lines():
        sys.stderr.write(f"{line}\n")
    return len(progress.failed)


def divergence_jobs(jobs: Sequence[CellJob]) -> list[CellJob]:
    """Return a job for each divergence that the sweep asks for and whose cells, pruned and dense, are done."""
    from lm_eval_pruned.sweeps.divergence import DIVERGENCE_BYTES, dense_cell, is_diverging
    from lm_eval_pruned.sweeps.running import RESULTS

    done = {job.cell.id: job for job in jobs if job.is_done}
    cells = [job.cell for job in jobs]
    found = []
    for job in done.values():
        dense = done.get(dense_cell(job.cell, cells).id) if is_diverging(job.cell) else None
        if dense is not None:
            found.append(replace(job, traces=dense.folder / RESULTS, memory=job.memory + DIVERGENCE_BYTES))
    return found


def harness(arguments: Sequence[str]) -> None:
    """Run the harness in this process, as `lm-eval-pruned run` does."""
    run.main(argparse.Namespace(arguments=arguments))


def diverge(arguments: Sequence[str]) -> None:
    """Measure a divergence in this process, as `lm-eval-pruned diverge` does."""
    parser = argparse.ArgumentParser()
    diverge_command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["diverge", *arguments])
    args.main(args)


def write_leaderboards(done: Sequence[CellJob], output: Path) -> None:
    """Write the leaderboard of the cells that are done, in the formats that people read."""
    from lm_eval_pruned.grading.extract.extract import extract
    from lm_eval_pruned.results.leaderboard.write import write
    from lm_eval_pruned.sweeps.running import RESULTS

    places = [job.folder / RESULTS for job in done]
    for ending in (".md", ".html") if places else ():
        leaderboard.report(write(places, output / (LEADERBOARD + ending), extract=extract))


def _make_folder(output: Path) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"--output {output} cannot be made: {error.strerror}") from None
    return output.resolve()
