"""Wheel, sdist and installations of this checkout, made by pip in temporary environments."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from lm_eval_pruned import __version__
from lm_eval_pruned._harness import MODELS
from lm_eval_pruned.models.supported import KNOWN_HARNESSES
from tests.environments import HOST_PACKAGES, ROOT, START_UP_LINE, Environment

WHEEL = f"lm_eval_pruned-{__version__}-py3-none-any.whl"
METADATA = f"lm_eval_pruned-{__version__}.dist-info"
REGISTERED = (
    "import lm_eval.models; from lm_eval.api.registry import model_registry; from lm_eval_pruned.paths import *;"
    "print('pruned-hf' in model_registry, tasks_folder(), configs_folder(), sep='\\n')"
)


def build(source: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def shipped(folder: str) -> set[str]:
    """Files of a data folder of the checkout, without what Python writes there."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT / folder).as_posix() for path in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build(ROOT, "wheel", folder)
    return folder / WHEEL


class TestWheel:
    def test_start_up_file(self, wheel: Path) -> None:
        assert contents(wheel)["lm_eval_pruned.pth"].decode() == START_UP_LINE

    def test_top_level(self, wheel: Path) -> None:
        assert {name.split("/")[0] for name in contents(wheel)} == {"lm_eval_pruned", "lm_eval_pruned.pth", METADATA}

    @pytest.mark.parametrize("folder", ["tasks", "configs"])
    def test_data_folders(self, wheel: Path, folder: str) -> None:
        prefix = f"lm_eval_pruned/_{folder}/"
        packed = {name.removeprefix(prefix) for name in contents(wheel) if name.startswith(prefix)}
        assert packed == shipped(folder) != set()

    def test_package(self, wheel: Path) -> None:
        packed = contents(wheel)
        assert {f"lm_eval_pruned/{file}" for file in shipped("lm_eval_pruned")} <= packed.keys()
        assert "lm_eval_pruned/py.typed" in packed
        assert not [name for name in packed if "__pycache__" in name]

    def test_entry_points_are_the_models_of_the_hook(self, wheel: Path) -> None:
        points = ConfigParser()
        points.read_string(contents(wheel)[f"{METADATA}/entry_points.txt"].decode())
        assert dict(points["lm_eval.models"]) == MODELS
        assert dict(points["console_scripts"]) == {"lm-eval-pruned": "lm_eval_pruned.cli:main"}

    def test_metadata(self, wheel: Path) -> None:
        metadata = message_from_string(contents(wheel)[f"{METADATA}/METADATA"].decode())
        assert metadata["Version"] == __version__
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Requires-Python"] == ">=3.11"
        required = [name for name in metadata.get_all("Requires-Dist", []) if "extra ==" not in name]
        declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        assert {str(Requirement(one)) for one in required} == {str(Requirement(one)) for one in declared}
        assert next(one.specifier for one in map(Requirement, declared) if one.name == "lm-eval") == KNOWN_HARNESSES
        assert "TERMS AND CONDITIONS" in contents(wheel)[f"{METADATA}/licenses/LICENSE"].decode()

    def test_sdist_builds_the_same(self, wheel: Path, tmp_path: Path) -> None:
        build(ROOT, "sdist", tmp_path)
        with tarfile.open(tmp_path / f"lm_eval_pruned-{__version__}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        build(tmp_path / f"lm_eval_pruned-{__version__}", "wheel", tmp_path)
        assert contents(tmp_path / WHEEL) == contents(wheel)


class TestInstall:
    def test_normal(self, wheel: Path, tmp_path: Path) -> None:
        environment = Environment(tmp_path)
        environment.pip("install", "--no-deps", "--no-index", wheel)
        environment.add_harness()
        package = environment.site_packages / "lm_eval_pruned"
        assert environment.output("-c", REGISTERED).splitlines() == [
            "True",
            str(package / "_tasks"),
            str(package / "_configs"),
        ]
        assert environment.output(environment.scripts / "lm-eval-pruned", "--version").endswith(f"{__version__}\n")
        validated = environment.output("-m", "lm_eval", "validate", "--tasks", "tiny_tts")
        assert validated.endswith("All tasks found and valid\n")
        assert_uninstalls(environment)

    def test_editable(self, tmp_path: Path) -> None:
        environment = Environment(tmp_path)
        environment.add_path(HOST_PACKAGES)
        environment.pip("install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", ROOT)
        assert (environment.site_packages / "lm_eval_pruned.pth").read_text() == START_UP_LINE
        assert not (environment.site_packages / "lm_eval_pruned").exists()
        assert environment.output("-c", REGISTERED).splitlines() == [
            "True",
            str(ROOT / "tasks"),
            str(ROOT / "configs"),
        ]
        assert_uninstalls(environment)


def assert_uninstalls(environment: Environment) -> None:
    finders = "import sys; print([type(finder).__name__ for finder in sys.meta_path].count('HarnessFinder'))"
    assert environment.output("-c", finders) == "1\n"
    environment.pip("uninstall", "--yes", "lm-eval-pruned")
    assert environment.output("-c", finders) == "0\n"
    assert [path.name for path in environment.site_packages.glob("*lm_eval_pruned*")] == []
