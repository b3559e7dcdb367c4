"""Subcommands of lm-eval-pruned, one file each.

Each module has `add_parser(subparsers)`, which declares the arguments and sets `main` as their default `main`, and
`main(args) -> int`, which does the work and returns the exit code. Heavy imports belong inside `main`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

Subparsers: TypeAlias = "_SubParsersAction[ArgumentParser]"
