"""Temporary virtual environments, for tests of what an installation does to a fresh interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOST_PACKAGES = Path(sysconfig.get_path("purelib"))
START_UP_LINE = "import lm_eval_pruned._autoload\n"


class Environment:
    """A virtual environment without pip, whose site-packages starts empty."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        names = {"base": str(folder), "platbase": str(folder)}
        self.site_packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=names))
        self.scripts = Path(sysconfig.get_path("scripts", scheme="venv", vars=names))
        self.python = self.scripts / "python"
        self.folder = folder

    def add_path(self, path: Path) -> None:
        """Append `path` to sys.path; .pth files inside it are not read, so no start-up file of its packages runs."""
        # Leading underscore: read before lm_eval_pruned.pth, as the path file of an editable install is.
        (self.site_packages / f"_{path.name}.pth").write_text(f"{path}\n")

    def add_harness(self) -> Path:
        """Put a harness without its 13,000 task files, which take ten seconds to read, before the host's packages."""
        installed = Path(str(find_spec("lm_eval").origin)).parent
        copy = self.folder / "harness"

        def task_folders(folder: str, names: list[str]) -> list[str]:
            return [name for name in names if "." not in name] if Path(folder) == installed / "tasks" else []

        shutil.copytree(installed, copy / "lm_eval", ignore=task_folders)
        self.add_path(copy)
        self.add_path(HOST_PACKAGES)
        return copy

    def add_start_up_file(self) -> None:
        """Write the start-up file as the wheel contains it."""
        (self.site_packages / "lm_eval_pruned.pth").write_text(START_UP_LINE)

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python outside the checkout and without the caller's Python settings."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
        return subprocess.run(
            [self.python, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={**clean, "HF_HUB_OFFLINE": "1", **variables},
        )

    def output(self, *arguments: str | Path, **variables: str) -> str:
        """Run as above and return stdout; anything on stderr or a non-zero exit code fails the test."""
        run = self.run(*arguments, **variables)
        assert (run.returncode, run.stderr) == (0, "")
        return run.stdout

    def pip(self, *arguments: str | Path) -> None:
        """Run the host's pip on this environment."""
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", self.python, *arguments],
            capture_output=True,
            check=True,
            cwd=self.folder,
        )
