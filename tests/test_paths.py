"""The package's data folders, in a checkout, in a wheel, and missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lm_eval_pruned import paths
from lm_eval_pruned.errors import MissingDataError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lm_eval_pruned"
    folder.mkdir()
    monkeypatch.setattr(paths, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize(("find", "name"), [(paths.tasks_folder, "tasks"), (paths.configs_folder, "configs")])
class TestDataFolders:
    def test_checkout(self, package: Path, find: Callable[[], Path], name: str) -> None:
        (package.parent / name).mkdir()
        assert find() == package.parent / name

    def test_wheel_has_its_own(self, package: Path, find: Callable[[], Path], name: str) -> None:
        # site-packages/tasks would be some other project's.
        (package.parent / name).mkdir()
        (package / f"_{name}").mkdir()
        assert find() == package / f"_{name}"

    def test_missing(self, package: Path, find: Callable[[], Path], name: str) -> None:
        (package.parent / name).write_text("a file is no folder")
        with pytest.raises(MissingDataError, match="pip install") as caught:
            find()
        assert str(package.parent / name) in str(caught.value)
        assert str(package / f"_{name}") in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError)


def test_assets_are_in_the_package(package: Path) -> None:
    with pytest.raises(MissingDataError):
        paths.assets_folder()
    (package / "assets").mkdir()
    assert paths.assets_folder() == package / "assets"


def test_this_installation_is_complete() -> None:
    assert list(paths.tasks_folder().rglob("*.yaml"))
    assert (paths.configs_folder() / "README.md").is_file()
    assert (paths.assets_folder() / "__init__.py").is_file()
