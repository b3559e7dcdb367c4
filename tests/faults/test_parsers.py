"""Fuzzing of every parser of user input: on a mutated file it returns a value or raises one of our own errors.

`python -m pytest --hypothesis-profile=default tests/faults/test_parsers.py` tries new files.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_eval_pruned.commands.grade_rows import grade_line
from lm_eval_pruned.errors import PrunedEvalError
from lm_eval_pruned.files import numbered_lines
from lm_eval_pruned.grading.extract.extract import extract
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.models.documents import read_rows, shuffle_choices
from lm_eval_pruned.models.traces import read_questions
from lm_eval_pruned.models.vllm.prepare import _read
from lm_eval_pruned.pruning.allocations import listed
from lm_eval_pruned.pruning.artifacts.checksummed_folder import SUMS
from lm_eval_pruned.pruning.artifacts.store import REPORT, Store
from lm_eval_pruned.pruning.calibration.readers import read_jsonl, read_token_ids
from lm_eval_pruned.pruning.calibration.source import Traces
from lm_eval_pruned.pruning.recipe import read_scores
from lm_eval_pruned.reasoning.settings import parse_gen_kwargs
from lm_eval_pruned.results.gate.baseline_file import dump_baseline, load_baseline
from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.leaderboard.page.content import page_content
from lm_eval_pruned.results.leaderboard.page.document import render_page
from lm_eval_pruned.results.leaderboard.published import read_reference
from lm_eval_pruned.results.leaderboard.tables import FORMATS
from lm_eval_pruned.results.measurement import measure
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples import find_rows, read_samples
from lm_eval_pruned.sweeps.grid import read_sweep
from lm_eval_pruned.sweeps.running import DONE_FILE, is_done
from tests.results.written_runs import row, write_run

FINGERPRINT = "0123456789abcdef" * 4

SWEEP = """
description: a grid
defaults: {models: tiny-reasoner, batch_size: 4, model_args: {dtype: float32}, gen_kwargs: {temperature: 1}}
grids:
  - {methods: [wanda, magnitude], allocations: [owl, uniform], sparsities: [0.1, 0.2], tasks: [tiny_tts], seeds: [1, 2]}
  - {methods: shortgpt, num_blocks: [1], tasks: tiny_tts_16, limit: 4, gen_kwargs: {temperature: 0.5}}
variants: {near: {metadata: {num_samples: 2}}, far: {cpus: 2, memory_gb: 1.5}}
overrides:
  - match: {method: wanda, sparsity: [0.1]}
    set: {gpus: 0.5, system_instruction: "Think."}
"""
REFERENCE = "model,method,allocation,sparsity,budget,task,acc,std,source\nm,wanda,owl,0.1,512,aime24,0.5,0.01,paper\n"
GRADED = '{"gold": "1/2", "response": "so \\\\boxed{0.5}"}\n{"gold": ["A", 3], "answer": "A", "kind": "choice"}\n'

# What a parser of JSON, YAML, CSV, numbers or text is most likely to fail on.
HOSTILE = [
    *(b"NaN", b"-Infinity", b"1e999", b"-1e-999", b"9" * 5000, b"1" + b"0" * 400, b"-0", b"1_0", b"true", b"null"),
    *(b"[" * 3000, b'{"a":' * 3000, b"]", b"{}", b"[]", b'""', b'"', b"\\", b"\n", b"\r\n", b"\r", b"\x00", b"\x1b[2J"),
    *(b'"\\ud800"', b'"\\u0000"', b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9"),
    *(b"!!python/object/apply:os.system [ls]", b"&a [*a]", b"<<: *a", b"*a", b"? [a]", b"2024-99-99", b"2024-01-01"),
    *(b"!!binary aGk=", b"!!set {a}", b".nan", b".inf", b"---\n", b"../../x", b"=cmd", b"|", b",", b"'", b"<script>"),
]  # fmt: skip


class Parser(NamedTuple):
    """A parser of a file, the name the file must have, and valid files."""

    name: str
    parse: Callable[[Path], object]
    file: str
    samples: Sequence[bytes]


def array(values: object, dtype: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values, dtype=dtype))
    return file.getvalue()


def archive(text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("rows.jsonl", text)
    return file.getvalue()


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def made(file: str) -> bytes:
    """A file that this package or the harness has written."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_run(Path(folder), {"t_tts_16": [1, 0, 1], "t_tts_32": [1, 1, 1]}, method="wanda", sparsity=0.2)
        if file == "baseline":
            return dump_baseline(measure(read_records([path]).records)).encode()
        return path.read_bytes()


def parse_results(path: Path) -> object:
    """Make everything that can be made of a results file."""
    (path.parent / f"samples_t_tts_16_{path.stem.rpartition('_')[2]}.jsonl").write_bytes(
        lines(*(row("t_tts_16", question, 1.0) for question in range(3)))
    )
    return leaderboards(path, [])


def parse_samples(path: Path) -> object:
    list(find_rows(path, {1, 2**63}, "none"))
    return read_samples(path, {"none": "acc"})


def parse_reference(path: Path) -> object:
    return leaderboards(write_run(path.parent / "runs", {"t_tts_16": [1, 0]}), read_reference(path))


def leaderboards(place: Path, references: Sequence[object]) -> object:
    records = read_records([place]).records
    board = build_entries(records, references)
    tables = [table([entry.line for entry in board]) for table in FORMATS.values()]
    return tables, render_page(page_content(board, records, extract))


def parse_rows(path: Path) -> object:
    with path.open("rb") as file:
        rows = [row for n, line in numbered_lines(file) for row in grade_line(line, n, mode="default", kind="math")]
    return [json.loads(row.line) for row in rows]


def parse_artifact(path: Path) -> object:
    place = path.parent / FINGERPRINT
    place.mkdir()
    path.rename(place / SUMS)
    (place / REPORT).write_text("{}")
    return Store(folder=path.parent).read(FINGERPRINT)


def parse_done(path: Path) -> object:
    (cell, *_) = CELLS
    (path.parent / "results").mkdir()
    return is_done(path.parent, cell)


with tempfile.TemporaryDirectory() as _folder:
    Path(_folder, "sweep.yaml").write_text(SWEEP)
    CELLS = read_sweep(Path(_folder, "sweep.yaml")).cells

GPQA = {"Question": "q", "Correct Answer": "a", **{f"Incorrect Answer {number}": str(number) for number in (1, 2, 3)}}
PARSERS = [
    Parser("alloc", lambda path: listed(str(path)), "list.json", [b"[0.1, 0.3, 0.2]"]),
    Parser("calib text", read_jsonl, "text.jsonl", [lines({"text": "one two"}, {"text": "three"})]),
    Parser(
        "calib traces",
        lambda path: read_questions(Traces(calib=f"traces:{path}", samples=1, seqlen=8, seed=0, is_bundled=False)),
        "q.jsonl",
        [lines({"question": "1+1"})],
    ),
    Parser(
        "calib ids",
        lambda path: read_token_ids(path, vocabulary=50, context=8),
        "ids.npy",
        [array([[1, 2], [3, 4]], "int64"), array([[1]], "uint8")],
    ),
    Parser("layerif scores", read_scores, "scores.npy", [array([[0.5, 1], [2, 3]], "float32"), array([1, 2], "int8")]),
    Parser("sweep", read_sweep, "sweep.yaml", [SWEEP.encode()]),
    Parser("results", parse_results, "results_2026-01-01T10-00-00.000007.json", [made("results")]),
    Parser(
        "samples",
        parse_samples,
        "samples_t.jsonl",
        [lines(row("t", 0, 1.0), row("t", 1, 0.5)), lines({"doc_id": 1, "acc": 1})],
    ),
    Parser("baseline", load_baseline, "baseline.json", [made("baseline")]),
    Parser("reference", parse_reference, "reference.csv", [REFERENCE.encode()]),
    Parser("rows to grade", parse_rows, "rows.jsonl", [GRADED.encode()]),
    Parser(
        "questions", read_rows, "q.jsonl", [lines({"problem": "1+1", "answer": 2}, {"problem": "2+2", "answer": 4})]
    ),
    Parser(
        "questions in an archive", lambda path: shuffle_choices(read_rows(path)), "q.zip", [archive(json.dumps(GPQA))]
    ),
    Parser(
        "note on what was made", _read, "note.json", [b'{"pretrained": "a", "kept": null, "report": {"blocks": []}}']
    ),
    Parser("sums", parse_artifact, "sums", [f"{'0' * 64}  {REPORT}\n{'1' * 64}  ../x\n".encode()]),
    Parser("done", parse_done, DONE_FILE, [json.dumps({"cell": CELLS[0].id, "files": {"a": 1}}).encode()]),
]


@st.composite
def mutated(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """A valid file with pieces removed, doubled, or replaced by adversarial ones; or arbitrary bytes."""
    content = draw(st.sampled_from(samples))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 5, 20, 1000])))
        piece = draw(st.sampled_from([b"", content[start:end] * 2, *HOSTILE]) | st.binary(max_size=4))
        content = content[:start] + piece + content[end:]
    return content


def outcome(parser: Parser, content: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, parser.file)
        path.write_bytes(content)
        try:
            return parser.parse(path)
        except PrunedEvalError as error:
            return error


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_mutated_files(parser):
    @settings(deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(parser.samples))
    def holds(content: bytes) -> None:
        outcome(parser, content)

    for sample in parser.samples:
        assert not isinstance(outcome(parser, sample), PrunedEvalError)
    holds()


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_folder_or_nothing_in_place_of_the_file(parser, tmp_path):
    (tmp_path / parser.file).mkdir()
    for path in (tmp_path / parser.file, tmp_path / "not" / parser.file):
        if parser.name in ("sums", "results", "done", "rows to grade"):
            continue
        with suppress(PrunedEvalError):
            parser.parse(path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", 10**400, ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("parse", "names"),
    [
        (
            lambda arguments: parse_model_args(arguments, parent=["dtype"]),
            "method alloc sparsity pattern scope num_blocks compare propagate calib calib_samples calib_seqlen "
            "calib_seed calib_tokens owl_m owl_lambda layerif_min layerif_max layerif_direction layerif_scores preset "
            "thinking share_traces artifacts responses dtype trust_remote_code x",
        ),
        (
            parse_gen_kwargs,
            "thinking_token_budget max_tokens_thinking max_gen_toks until do_sample temperature top_p top_k min_p seed "
            "thinking_start thinking_end until_thinking thinking_n_ignore thinking_n_ignore_str min_tokens_thinking "
            "temperature_thinking x",
        ),
    ],
    ids=["model_args", "gen_kwargs"],
)
def test_any_arguments(parse, names):
    known = st.sampled_from(["wanda", "shortgpt", "0.2", "2:4", "owl", "1", 64, 0.5, "x.json", "paper", True])

    @settings(deadline=None)
    @given(st.dictionaries(st.sampled_from(names.split()), JSON | known, max_size=6))
    def holds(arguments: dict[str, object]) -> None:
        with suppress(PrunedEvalError):
            parse(arguments)

    holds()
