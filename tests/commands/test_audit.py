"""`lm-eval-pruned grade --audit math-verify`, with a package in the place of math-verify that can hang and die."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.commands import math_verify
from lm_eval_pruned.commands.audit import GROUPS
from lm_eval_pruned.commands.math_verify import MathVerify
from lm_eval_pruned.errors import MissingPackageError

# Its answer is the last number, and it takes every 6 for a 9.
PEER = """
import os, re, time
print("a package may print" * 100)
class LatexExtractionConfig: pass
class ExprExtractionConfig: pass
class StringExtractionConfig: pass
def parse(text, config):
    print(text, config)
    if "hang" in text:
        time.sleep(60)
    if "die" in text:
        os._exit(1)
    if "raise" in text:
        raise TypeError(text)
    letters = any(isinstance(one, StringExtractionConfig) for one in config)
    return re.findall("[A-D]" if letters else "[0-9]+", text.replace("6", "9"))
def verify(gold, found):
    return gold[-1:] == found[-1:]
"""

ROWS = [
    {"gold": "25", "response": "So it is \\boxed{25}."},
    {"gold": ["8", "9"], "response": "So it is \\boxed{6}."},
    {"gold": "25", "response": "It may be 25 or so, who knows? Perhaps."},
    {"gold": "1/2", "answer": "0.5"},
    {"gold": "5", "response": "No idea at all."},
    {"gold": "C", "response": "The answer is (C).", "kind": "choice"},
]
EXPECTED = [
    "agree",
    "right only by theirs",
    "right only by theirs",
    "right only by ours",
    "both undecided",
    "agree",
]


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "math_verify-0.9.9.dist-info").mkdir(parents=True)
    (site / "math_verify-0.9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: math-verify\nVersion: 0.9.9\n"
    )
    (site / "math_verify.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setattr(math_verify, "ROW_SECONDS", 1.0)


def written(folder: Path, rows: list[dict[str, object]]) -> str:
    source = folder / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    return str(source)


@pytest.mark.usefixtures("peer")
class TestAudit:
    def test_the_groups(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        target = tmp_path / "out.jsonl"
        assert cli.main(["grade", written(tmp_path, ROWS), "--output", str(target), "--audit", "math-verify"]) == 0
        out, err = capsys.readouterr()
        graded = [json.loads(line) for line in target.read_text().splitlines()]
        assert [row["audit"]["group"] for row in graded] == EXPECTED
        assert {row["audit"]["grader"] for row in graded} == {"math-verify 0.9.9"}
        assert [row["gold"] for row in graded] == [row["gold"] for row in ROWS]
        assert out.count("row ") == 3
        assert "row 4: gold 1/2\n  ours:        right, 0.5 (same number)\n  math-verify: wrong, 5 (ok)\n" in out
        assert err.splitlines()[1] == (
            "6 rows against math-verify 0.9.9: 2 agree (33.3%), 1 right only by ours (16.7%), "
            "2 right only by theirs (33.3%), 1 both undecided (16.7%)"
        )
        assert set(EXPECTED) == set(GROUPS)

    def test_without_an_output_and_with_stdout(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = written(tmp_path, ROWS)
        assert cli.main(["grade", source, "--audit", "math-verify"]) == 0
        assert capsys.readouterr().out.startswith("row 2: gold 8 | 9\n")

    def test_what_hangs_or_dies_or_raises_costs_one_row(self, tmp_path: Path) -> None:
        texts = ["hang \\boxed{5}", "\\boxed{5}", "die \\boxed{5}", "\\boxed{5}", "raise \\boxed{5}", "\\boxed{5}"]
        target = tmp_path / "out.jsonl"
        source = written(tmp_path, [{"gold": "5", "response": text} for text in texts])
        assert cli.main(["grade", source, "--output", str(target), "--audit", "math-verify"]) == 0
        statuses = [json.loads(line)["audit"]["status"] for line in target.read_text().splitlines()]
        assert statuses == ["timeout", "ok", "timeout", "ok", "failed: TypeError", "ok"]

    def test_a_row_that_cannot_be_read_has_no_audit(self, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        source = written(tmp_path, [{"gold": "5"}, ROWS[0]])
        assert cli.main(["grade", source, "--output", str(target), "--audit", "math-verify"]) == 0
        assert ["audit" in json.loads(line) for line in target.read_text().splitlines()] == [False, True]

    def test_no_character_acts_on_the_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [{"gold": "9", "response": "\x1b[2J\u202e \\boxed{6}"}]
        assert cli.main(["grade", written(tmp_path, rows), "--audit", "math-verify"]) == 0
        assert not {"\x1b", "\u202e"} & set(capsys.readouterr().out)


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["grade", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path, ROWS)
    assert "--output is missing" in error(capsys, source)
    assert "unknown audit 'mathverify': did you mean 'math-verify'?" in error(capsys, source, "--audit", "mathverify")


def test_a_broken_install_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('antlr4 is too old')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    target = tmp_path / "out.jsonl"
    message = error(capsys, written(tmp_path, ROWS), "--output", str(target), "--audit", "math-verify")
    assert "(ImportError: antlr4 is too old): pip install 'math-verify[antlr4_13_2]'" in message
    assert not target.exists()


def test_the_real_one() -> None:
    with MathVerify() as peer:
        assert peer.judge(["1/2"], "\\frac12", is_response=False).correct
        assert peer.judge(["C"], "The answer is C.", "choice", is_response=True).correct
        assert not peer.judge(["5"], "It is \\boxed{6}.", is_response=True).correct


def test_an_interpreter_without_it() -> None:
    with pytest.raises(MissingPackageError, match="does not start"):
        MathVerify(python="/bin/false")
