"""Syntax trees of the package: no pickle, no evaluation of text, no trust in remote code by default."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lm_eval_pruned"
SOURCES = sorted(PACKAGE.rglob("*.py"))

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "sympify"}
# Arguments that must not have these values, wherever they are given.
VALUES = {"allow_pickle": True, "trust_remote_code": True, "weights_only": False, "shell": True}


def dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                yield module
            case ast.Call(func=func, keywords=keywords):
                if dotted(func) in CALLS:
                    yield dotted(func)
                if dotted(func) == "np.load" and "allow_pickle" not in {keyword.arg for keyword in keywords}:
                    yield "np.load without allow_pickle=False"
                for keyword in keywords:
                    value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                    if keyword.arg in VALUES and value is VALUES[keyword.arg]:
                        yield f"{keyword.arg}={value}"
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    given = (part.value for part in (key, value) if isinstance(part, ast.Constant))
                    if tuple(given) in set(VALUES.items()):
                        yield ast.unparse(key)


def test_no_source_does():
    found = {path.name: list(offences(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert len(found) > 100
    assert not {name: what for name, what in found.items() if what}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load('x')",
        "yaml.load('x')",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "AutoConfig.from_pretrained('x', trust_remote_code=True)",
        "f(**{'trust_remote_code': True})",
        "subprocess.run('x', shell=True)",
    ],
)
def test_it_would_be_seen(text):
    assert list(offences(ast.parse(text)))
