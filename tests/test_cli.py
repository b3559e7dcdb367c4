"""The `lm-eval-pruned` command line: exit codes, one-line errors, and what `run` passes to the harness."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import lm_eval.__main__
import pytest

from lm_eval_pruned import __version__, cli
from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.errors import ArgumentError
from tests.environments import HOST_PACKAGES, ROOT, Environment


def command(outcome: int | Exception) -> SimpleNamespace:
    """A command file whose `probe` command ends with `outcome`."""

    def main(_: argparse.Namespace) -> int:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def add_parser(subparsers: Subparsers) -> None:
        subparsers.add_parser("probe").set_defaults(main=main)

    return SimpleNamespace(add_parser=add_parser)


class TestMain:
    @pytest.mark.parametrize("code", [0, 1])
    def test_returns_the_commands_exit_code(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        monkeypatch.setattr(cli, "COMMANDS", (command(code),))
        assert cli.main(["probe"]) == code

    def test_a_mistake_is_one_line(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(cli, "COMMANDS", (command(ArgumentError("sparsity=2 is not\nbelow 1")),))
        assert cli.main(["probe"]) == 2
        assert capsys.readouterr() == ("", "lm-eval-pruned: error: sparsity=2 is not below 1\n")

    @pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.EACCES])
    def test_a_path_that_the_system_refuses_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
    ) -> None:
        monkeypatch.setattr(cli, "COMMANDS", (command(OSError(code, "no", "a/b")),))
        assert cli.main(["probe"]) == 2
        assert capsys.readouterr().err == "lm-eval-pruned: error: a/b cannot be opened: no\n"

    @pytest.mark.parametrize("defect", [KeyError(), OSError(errno.EACCES, "no"), OSError(errno.EIO, "no", "a")])
    def test_a_defect_keeps_its_traceback(self, monkeypatch: pytest.MonkeyPatch, defect: Exception) -> None:
        monkeypatch.setattr(cli, "COMMANDS", (command(defect),))
        with pytest.raises(type(defect)):
            cli.main(["probe"])

    @pytest.mark.parametrize("arguments", [[], ["walk"], ["--vers"]])
    def test_no_such_command(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
        assert "lm-eval-pruned: error: " in capsys.readouterr().err

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            cli.main(["--version"])
        assert stop.value.code == 0
        assert capsys.readouterr().out == f"lm-eval-pruned {__version__}\n"


class TestRun:
    @pytest.mark.parametrize(
        "line",
        [
            "",
            "--help",
            "-h",
            "--version",
            "ls tasks",
            "run --model hf --model_args pretrained=M,method=wanda --tasks tts",
            "--model pruned-hf -t tts --gen_kwargs a=1 -- --limit 1 --prog",
            "-t tts run",
        ],
    )
    def test_hands_everything_to_the_harness(self, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
        seen: list[list[str]] = []
        monkeypatch.setattr(lm_eval.__main__, "cli_evaluate", lambda: seen.append(sys.argv))
        monkeypatch.setattr(sys, "argv", ["lm-eval-pruned"])
        assert cli.main(["run", *line.split()]) == 0
        assert seen == [["lm_eval", *line.split()]]

    def test_registers_where_start_up_files_are_not_read_and_the_hook_is_disabled(self, tmp_path: Path) -> None:
        environment = Environment(tmp_path)
        paths = os.pathsep.join(map(str, (ROOT, environment.add_harness(), HOST_PACKAGES)))
        # -S: no site-packages, no .pth files.
        module = ("-S", "-m", "lm_eval_pruned")
        assert environment.output(*module, "--version", PYTHONPATH=paths) == f"lm-eval-pruned {__version__}\n"
        variables = {"PYTHONPATH": paths, "LM_EVAL_PRUNED_AUTOLOAD": "0"}
        output = environment.output(*module, "run", "validate", "--tasks", "tiny_tts", **variables)
        assert output.endswith("All tasks found and valid\n")
