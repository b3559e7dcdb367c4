"""Measure what lm_eval_pruned.pth adds to the start of every Python program.

    python benchmarks/autoload.py [--rounds 300] [--limit-ms 1.0]

Three temporary environments differ only in their start-up file: none, ours, and, for comparison, setuptools'
distutils-precedence.pth. Each round starts `python -c pass` once in each, so that a busy machine slows all three alike;
the figures are medians. The exit code is 1 if ours adds more than the limit.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
OURS = ("lm_eval_pruned/__init__.py", "lm_eval_pruned/_autoload.py", "lm_eval_pruned.pth")
PEER = ("_distutils_hack/__init__.py", "distutils-precedence.pth")


def environment(folder: Path, source: Path, files: tuple[str, ...]) -> Path:
    """Create an environment with copies of `files` in site-packages, compiled as by pip, and return its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    names = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=names))
    for file in files:
        (site_packages / file).parent.mkdir(exist_ok=True)
        shutil.copy(source / file, site_packages / file)
    compileall.compile_dir(site_packages, quiet=1)
    return Path(sysconfig.get_path("scripts", scheme="venv", vars=names)) / "python"


def start_ms(python: Path) -> float:
    """Time one `python -c pass` from the outside."""
    begin = time.perf_counter()
    subprocess.run([python, "-c", "pass"], check=True)
    return (time.perf_counter() - begin) * 1000


def import_us(python: Path) -> int:
    """Sum the self time that `-X importtime` gives for our modules, in microseconds."""
    run = subprocess.run([python, "-X", "importtime", "-c", "pass"], check=True, capture_output=True, text=True)
    return sum(int(us) for us in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+lm_eval_pruned", run.stderr))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--limit-ms", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pythons = {
            "none": environment(folder / "none", ROOT, ()),
            "ours": environment(folder / "ours", ROOT, OURS),
        }
        setuptools = importlib.util.find_spec("_distutils_hack")
        if setuptools is not None and setuptools.origin is not None:
            pythons["setuptools"] = environment(folder / "peer", Path(setuptools.origin).parents[1], PEER)
        times: dict[str, list[float]] = {name: [] for name in pythons}
        for _ in range(args.rounds):
            for name, python in pythons.items():
                times[name].append(start_ms(python))
        imports = median(import_us(pythons["ours"]) for _ in range(args.rounds // 10 or 1))
    # Differences within a round, since load on the machine changes slowly.
    added = {
        name: median(ms - bare for ms, bare in zip(times[name], times["none"], strict=True))
        for name in times
        if name != "none"
    }
    print(f"python -c pass, {args.rounds} interleaved rounds, Python {sys.version.split()[0]}")
    print(f"  no start-up file             {median(times['none']):7.2f} ms")
    for name, ms in added.items():
        print(f"  {name:<28} {median(times[name]):7.2f} ms  {ms:+6.2f} ms")
    print(f"  of ours, in -X importtime    {imports / 1000:7.2f} ms")
    if "setuptools" in added:
        print(f"  ours / setuptools            {added['ours'] / added['setuptools']:7.2f}")
    print(f"  limit                        {args.limit_ms:7.2f} ms")
    return int(added["ours"] > args.limit_ms)


if __name__ == "__main__":
    sys.exit(main())
