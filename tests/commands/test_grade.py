"""The command `lm-eval-pruned grade`: rows, malformed rows, files, and resource use."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.commands import grade_rows
from lm_eval_pruned.commands.grade_rows import MAX_GOLDS, MAX_QUOTED_CHARACTERS
from lm_eval_pruned.files import numbered_lines
from lm_eval_pruned.grading import modes
from lm_eval_pruned.grading.verdict import Verdict

PROGRAM = [sys.executable, "-c", "import sys; from lm_eval_pruned.cli import main; sys.exit(main())"]
GOOD = '{"gold": "25", "response": "So it is \\\\boxed{25}."}'


def grade(folder: Path, content: str | bytes, *arguments: str) -> list[dict[str, object]]:
    """Run the command, which must succeed, and return the output rows."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    assert cli.main(["grade", str(source), "--output", str(target), *arguments]) == 0
    return [json.loads(line) for line in target.read_bytes().decode().split("\n")[:-1]]


def verdicts(folder: Path, *given: object, mode: str = "default") -> list[object]:
    content = "\n".join(json.dumps(row) for row in given)
    return [row["correct"] for row in grade(folder, content, "--mode", mode)]


def error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the command, which must exit with 2, and return its one-line message."""
    assert cli.main(["grade", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lm-eval-pruned: error: ")
    assert err.count("\n") == 1
    return err


class TestRows:
    def test_every_field_is_kept_and_five_are_added(self, tmp_path: Path) -> None:
        given = {"id": 7, "gold": "1/2", "more": {"é": [1.5, None]}, "response": "\\boxed{0.5}", "correct": "?"}
        (row,) = grade(tmp_path, json.dumps(given))
        judged = {"extracted": "0.5", "correct": True, "reason": row["reason"], "status": "ok", "stage": "explicit"}
        assert row == {**given, **judged}
        assert row["reason"]

    def test_order_is_kept(self, tmp_path: Path) -> None:
        content = "\n".join(json.dumps({"id": place, "gold": place % 3, "answer": "1"}) for place in range(300))
        graded = grade(tmp_path, content)
        assert [row["id"] for row in graded] == list(range(300))
        assert [row["correct"] for row in graded] == [place % 3 == 1 for place in range(300)]

    def test_a_response_comes_before_an_answer(self, tmp_path: Path) -> None:
        assert verdicts(tmp_path, {"gold": "5", "response": "\\boxed{6}", "answer": "5"}) == [False]

    @pytest.mark.parametrize("gold", ["25", 25, 25.0, ["7", 25], ["25", "7"], ["7", "25.0"]])
    def test_golds(self, tmp_path: Path, gold: object) -> None:
        right, wrong = {"gold": gold, "answer": "25"}, {"gold": gold, "answer": "26"}
        assert verdicts(tmp_path, right, {**right, "answer": 25}, wrong) == [True, True, False]

    def test_kinds(self, tmp_path: Path) -> None:
        letter = '{"gold": "C", "response": "Thus the answer is (C)."}'
        named = letter.replace("}", ', "kind": "choice"}')
        assert [row["extracted"] for row in grade(tmp_path, f"{letter}\n{named}", "--kind", "choice")] == ["C", "C"]
        assert [row["correct"] for row in grade(tmp_path, f"{GOOD}\n{named}")] == [True, True]

    def test_modes(self, tmp_path: Path) -> None:
        row = {"gold": "27", "response": "\\boxed{27.0}"}
        assert [verdicts(tmp_path, row, mode=mode) for mode in ("default", "s1", "prm800k")] == [
            [True],
            [False],
            [True],
        ]

    def test_line_ends_marks_and_blank_lines(self, tmp_path: Path) -> None:
        graded = grade(tmp_path, b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n  \n" + GOOD.encode() + b"\r\n[]")
        assert [row["correct"] for row in graded] == [True, True, False]
        assert graded[2]["reason"] == "line 5: the line is a list, not an object"

    def test_nothing_is_no_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert grade(tmp_path, "\n") == []
        assert capsys.readouterr() == ("", "0 rows, 0 correct\n")

    def test_the_summary(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        grade(tmp_path, f'{GOOD}\nx\n{GOOD}\n{{"gold": 5, "response": "No idea at all."}}')
        assert capsys.readouterr() == ("", "4 rows, 2 correct; status: 2 ok, 1 unparsed, 1 no_answer\n")


def sample(target: object, *responses: object, doc: object = None, **own: object) -> dict[str, object]:
    """A row of the harness's samples."""
    return {"doc_id": 0, "doc": doc or {}, "target": target, "resps": [list(responses)], "filter": "none", **own}


class TestRowsOfTheHarness:
    @pytest.mark.parametrize(
        ("row", "gold", "kind"),
        [
            (sample("7", "The answer is 7."), "7", "math"),
            (sample(7, "\\boxed{7}"), "7", "math"),
            (sample("3 + 4 = 7\n#### 7", "#### 7"), "7", "math"),
            (sample("We add. " * 20 + "Thus $\\boxed{7}$.", "It is \\boxed{7}."), "7", "math"),
            (sample("", "The answer is 7.", doc={"Answer": 7}), "7", "math"),
            (sample("(B)", "The answer is (B)."), "B", "choice"),
            (sample("1", "The answer is (B).", doc={"choices": ["x", "y"]}), "B", "choice"),
        ],
    )
    def test_gold_and_kind(self, tmp_path: Path, row: dict[str, object], gold: str, kind: str) -> None:
        (graded,) = grade(tmp_path, json.dumps(row))
        assert (graded["gold"], graded["kind"], graded["correct"]) == (gold, kind, True)

    def test_one_row_a_response_and_one_filter(self, tmp_path: Path) -> None:
        rows = [sample("7", "The answer is 7.", "The answer is 8.", filter=name) for name in ("strict", "loose")]
        graded = grade(tmp_path, "\n".join(map(json.dumps, rows)))
        assert [(row["sample"], row["filter"], row["correct"]) for row in graded] == [
            (0, "strict", True), (1, "strict", False),
        ]  # fmt: skip

    def test_our_rows_have_their_answer(self, tmp_path: Path) -> None:
        ours = sample("7", "\\boxed{8}\n\nFinal Answer: 7", filtered_resps=[["7"]], thinking_tokens=5.0)
        (graded,) = grade(tmp_path, json.dumps(ours))
        assert (graded["extracted"], graded["correct"]) == ("7", True)

    def test_a_list_of_rows_and_several_files(self, tmp_path: Path) -> None:
        first, second, target = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "out"))
        first.write_text(json.dumps([sample("7", "The answer is 7.")] * 3, indent=2))
        second.write_text(GOOD)
        assert cli.main(["grade", str(first), str(second), "--output", str(target)]) == 0
        assert [json.loads(line)["correct"] for line in target.read_text().splitlines()] == [True] * 4

    def test_nothing_to_grade_is_an_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = tmp_path / "in.jsonl"
        for row, problem in (
            ({"a": 1}, "gold is missing"),
            (sample("0", ["-1.5", "True"]), "log-likelihoods"),
            (sample("", "5"), "the gold answer is empty"),
        ):
            source.write_text(json.dumps(row))
            assert cli.main(["grade", str(source), "--output", str(tmp_path / "out")]) == 2
            message = capsys.readouterr().err
            assert problem in message
            assert "samples_*.jsonl of lm_eval" in message


class TestHostileRows:
    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b"x", "the line is no JSON: Expecting value at character 1"),
            (b'{"gold": 1,', "the line is no JSON: "),
            (b'{"gold": NaN}', "the line has a number that cannot be read: NaN is no JSON"),
            (b'{"gold": 1e999}', "the line has a number that cannot be read: 1e999 is beyond a float"),
            (b'{"gold": ' + b"1" * 5000 + b"}", "the line has a number that cannot be read: "),
            (b'"text"', "the line is text, not an object"),
            (b"null", "the line is null, not an object"),
            (b'{"gold": "\xff"}', "the line is not UTF-8 at byte 11"),
            (b'{"gold": "\xed\xa0\x80"}', "the line is not UTF-8 at byte 11"),
            (b'{"gold": "\x00", "answer": ""}', "the line is no JSON: Invalid control character"),
            (b"[" * 100_000, "the line is nested too deeply"),
            (b'{"a":' * 100_000, "the line is nested too deeply"),
        ],
    )  # fmt: skip
    def test_what_is_no_row_is_kept_in_part(self, tmp_path: Path, line: bytes, problem: str) -> None:
        before, row, after = grade(tmp_path, GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode())
        assert before["correct"] is after["correct"] is True
        assert row.keys() == {"line", "extracted", "correct", "reason", "status", "stage"}
        assert row["line"] == line.decode(errors="replace")[:MAX_QUOTED_CHARACTERS]
        assert (row["extracted"], row["correct"], row["status"]) == (None, False, "unparsed")
        assert str(row["reason"]).startswith(f"line 2: {problem}")

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ({}, "gold is missing"),
            ({"gold": "5"}, "response and answer are both missing"),
            ({"response": "5"}, "gold is missing"),
            ({"gold": "5", "response": None}, "response is null, not text"),
            ({"gold": "5", "response": ["5"]}, "response is a list, not text"),
            ({"gold": "5", "response": 5}, "response is a number, not text"),
            ({"gold": "5", "answer": {}}, "answer is an object, not text or a number"),
            ({"gold": True, "answer": "5"}, "gold is a boolean, not text or a number"),
            ({"gold": None, "answer": "5"}, "gold is null, not text or a number"),
            ({"gold": [], "answer": "5"}, f"gold has 0 members: give 1 to {MAX_GOLDS}"),
            ({"gold": ["5"] * (MAX_GOLDS + 1), "answer": "5"}, f"gold has {MAX_GOLDS + 1} members"),
            ({"gold": ["5", None], "answer": "5"}, "gold is null, not text or a number"),
            ({"gold": "5", "answer": "5", "kind": "poem"}, "unknown kind 'poem': Known: brackets, choice, math"),
            ({"gold": "5", "answer": "5", "kind": None}, "kind is null, not text"),
            ({"gold": "5", "response": "5", "finished": "yes"}, "finished is text: give true, false or null"),
        ],
    )
    def test_an_unusable_row_is_kept_whole(self, tmp_path: Path, row: dict[str, object], problem: str) -> None:
        graded, _ = grade(tmp_path, json.dumps(row) + "\n" + GOOD)
        reason = str(graded["reason"])
        judged = {"extracted": None, "correct": False, "reason": reason, "status": "unparsed", "stage": None}
        assert graded == {**row, **judged}
        assert reason.startswith(f"line 1: {problem}")

    @pytest.mark.parametrize("extra", ["\ud800", "\x00", "\udfff\ud800", "\u202e", "\u2028", "\U0001f600"])
    def test_odd_characters_are_kept_and_hide_no_answer(self, tmp_path: Path, extra: str) -> None:
        given = {"gold": "25", "response": f"{extra} so it is \\boxed{{25}} {extra}", "note": extra}
        (row,) = grade(tmp_path, json.dumps(given))
        assert {name: row[name] for name in given} == given
        assert row["correct"] is True

    @pytest.mark.parametrize("mode", ["default", "hendrycks", "minerva", "prm800k", "s1"])
    def test_huge_texts(self, tmp_path: Path, mode: str) -> None:
        huge = "\\frac{1}" * 1_250_000
        given = [{"gold": "5", "response": huge}, {"gold": "5", "answer": huge}, {"gold": huge, "answer": "5"}]
        start = time.process_time()
        graded = grade(tmp_path, "\n".join(map(json.dumps, given)), "--mode", mode)
        assert time.process_time() - start < 5
        assert [row["correct"] for row in graded] == [False, False, False]
        assert [row["status"] for row in graded[1:]] == ["unparsed", "unparsed"]

    def test_a_defect_of_the_grader_costs_one_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def verify(gold: str, answer: str, **rest: object) -> Verdict:
            if gold == "0":
                raise ZeroDivisionError("by nothing")
            return modes.verify(gold, answer, **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(grade_rows, "verify", verify)
        graded = grade(tmp_path, f'{GOOD}\n{{"gold": 0, "answer": "5"}}\n{GOOD}')
        assert [row["correct"] for row in graded] == [True, False, True]
        assert graded[1]["gold"] == 0
        assert graded[1]["reason"] == "line 2: the grader failed: ZeroDivisionError: by nothing"

    def test_a_line_beyond_the_limit_is_skipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(grade_rows, "MAX_LINE_BYTES", 100)
        long = GOOD.replace("So", "So" * 200)
        graded = grade(tmp_path, f"{GOOD}\n{long}\n{GOOD}\n{long}")
        assert [row["correct"] for row in graded] == [True, False, True, False]
        assert graded[3]["reason"] == "line 4: the line is longer than 100 bytes"
        assert long.startswith(str(graded[3]["line"]))

    def test_a_line_at_the_limit_is_read(self) -> None:
        lines = [
            line for _, line in numbered_lines(io.BytesIO(b"1234\n1234\n12345\n1\n123456789012345\n2"), max_bytes=4)
        ]
        assert lines == [b"1234", b"1234", b"12345", b"1", b"12345", b"2"]


class TestFiles:
    def test_no_such_input(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        target = tmp_path / "out.jsonl"
        target.write_text("kept")
        assert "in.jsonl' cannot be opened: No such file" in error(capsys, tmp_path / "in.jsonl", "--output", target)
        assert target.read_text() == "kept"

    def test_a_folder_is_no_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "in.jsonl").write_text(GOOD)
        assert "cannot be opened: Is a directory" in error(capsys, tmp_path, "--output", tmp_path / "out")
        assert "cannot be written: Is a directory" in error(capsys, tmp_path / "in.jsonl", "--output", tmp_path)
        missing = tmp_path / "no" / "out"
        assert "cannot be written: No such file" in error(capsys, tmp_path / "in.jsonl", "--output", missing)

    @pytest.mark.parametrize("other", ["in.jsonl", "sym", "hard"])
    def test_the_input_is_never_overwritten(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
    ) -> None:
        source = tmp_path / "in.jsonl"
        source.write_text(GOOD)
        (tmp_path / "sym").symlink_to(source)
        (tmp_path / "hard").hardlink_to(source)
        assert "is the input" in error(capsys, source, "--output", tmp_path / other)
        assert source.read_text() == GOOD

    def test_unknown_names(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        target = tmp_path / "out"
        message = error(capsys, "-", "--output", target, "--mode", "hendricks")
        assert "unknown mode 'hendricks': did you mean 'hendrycks'?" in message
        assert "unknown kind 'maths': did you mean 'math'?" in error(capsys, "-", "--output", target, "--kind", "maths")
        assert not target.exists()


class TestProcess:
    def run(self, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, check=False, timeout=60, **options)  # type: ignore[call-overload, no-any-return]

    def test_standard_streams(self) -> None:
        done = self.run("grade", "-", "--output", "-", input=f"{GOOD}\nx\n".encode())
        assert (done.returncode, done.stderr) == (0, b"2 rows, 1 correct; status: 1 ok, 1 unparsed\n")
        assert [json.loads(line)["correct"] for line in done.stdout.splitlines()] == [True, False]

    def test_standard_streams_are_never_one_file(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        source.write_text(GOOD + "\n")
        with source.open("ab") as target:
            done = subprocess.run(
                [*PROGRAM, "grade", source, "--output", "-"],
                stdout=target,
                stderr=subprocess.PIPE,
                check=False,
                timeout=20,
            )
        assert done.returncode == 2
        with source.open("rb") as stream:
            done = self.run("grade", "-", "--output", source, stdin=stream)
        assert done.returncode == 2
        assert source.read_text() == GOOD + "\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    def test_a_full_disk_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_text(GOOD)
        done = self.run("grade", tmp_path / "in.jsonl", "--output", "/dev/full")
        assert done.returncode == 2
        assert (
            done.stderr == b"lm-eval-pruned: error: --output '/dev/full' cannot be written: No space left on device\n"
        )

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    @pytest.mark.parametrize("arguments", [["list"], ["grade", "-", "--output", "-"]])
    def test_a_full_stdout_is_one_sentence(self, arguments: list[str]) -> None:
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [*PROGRAM, *arguments], input=GOOD.encode(), stdout=full, stderr=subprocess.PIPE, check=False
            )
        message = b"lm-eval-pruned: error: stdout cannot be written: No space left on device\n"
        assert (done.returncode, done.stderr) == (2, message)

    def test_a_killed_run_leaves_what_was_graded(self, tmp_path: Path) -> None:
        target = tmp_path / "out.jsonl"
        command = [*PROGRAM, "grade", "-", "--output", str(target)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin
            process.stdin.write(f"{GOOD}\n{GOOD}\n".encode())
            process.stdin.flush()
            deadline = time.monotonic() + 20
            while not (target.exists() and target.read_bytes().count(b"\n") == 2) and time.monotonic() < deadline:
                time.sleep(0.02)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert [json.loads(line)["correct"] for line in target.read_text().splitlines()] == [True, True]

    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        row = json.dumps({"gold": "5", "answer": "5", "more": "x" * 1_000_000}).encode() + b"\n"
        with source.open("wb") as file:
            for _ in range(200):
                file.write(row)

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (150 * 2**20, 150 * 2**20))

        done = self.run("grade", source, "--output", tmp_path / "out", preexec_fn=limit)
        assert (done.returncode, done.stderr) == (0, b"200 rows, 200 correct; status: 200 ok\n")

    @pytest.mark.parametrize(
        ("arguments", "unbuffered"),
        [(["list"], ""), (["list"], "1"), (["--help"], ""), (["grade", "-", "--output", "-"], "")],
    )
    def test_a_reader_that_leaves_ends_it_silently(self, arguments: list[str], unbuffered: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*PROGRAM, *arguments],
            input=(GOOD + "\n").encode() * 9,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, b"")


def test_another_broken_pipe_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(BrokenPipeError):
        cli.main(["list"])


def test_the_command_judges_as_grade_does(tmp_path):
    boxes = {"gold": "2, -3", "response": "Hence $x=\\boxed{2}$ or $x=\\boxed{-3}$."}
    assert verdicts(tmp_path, boxes) == [True]
    assert verdicts(tmp_path, boxes, mode="hendrycks") == [False]
