"""Calibration sources: windows cut out of texts, token ids from `.npy`, the hub, and errors for each wrong source."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.pruning.calibration.source import CalibrationSource, CheckpointInfo
from lm_eval_pruned.pruning.calibration.windows import cut_chunks, sample_windows
from lm_eval_pruned.pruning.recipe import resolve


def encode(text: str) -> list[int]:
    return list(text.encode())


def load(calib, *, vocabulary=256, context=64, **settings):
    config = PruneConfig(method="wanda", sparsity=0.1, calib=str(calib), **settings)
    return windows_of(config, vocabulary=vocabulary, context=context)


def source_of(config: PruneConfig) -> CalibrationSource:
    return resolve(config).calibration_source("some/model")


def windows_of(config: PruneConfig, *, vocabulary=256, context: int):
    info = CheckpointInfo(vocabulary=vocabulary, context=context, encode=encode)
    return source_of(config).windows(info).windows()


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_the_draws_are_those_of_the_published_sampler():
    texts = ["ab" * 3, "abcdefghijklmnop" * 4, "qrstuvwxyz" * 9]
    windows = sample_windows(texts, encode, samples=6, seqlen=10, seed=0)
    random.seed(0)
    expected = []
    for _ in range(6):
        while True:
            index = random.randint(0, len(texts) - 1)
            if len(texts[index]) > 10:
                break
        start = random.randint(0, len(texts[index]) - 10 - 1)
        expected.append(encode(texts[index][start : start + 10]))
    assert windows.tolist() == expected


def test_documents_that_are_all_short_are_laid_end_to_end(caplog):
    texts = [letter * 4 for letter in "abcdefgh"]
    stream = encode("".join(texts))
    windows = sample_windows(texts, encode, samples=5, seqlen=10, seed=0)
    assert windows.tolist() == [stream[start : start + 10] for start in (0, 10, 20)]
    assert (
        "no calibration document is longer than 10 tokens: using 3 windows across documents, 5 were asked for"
        in caplog.text
    )
    few = sample_windows(texts, encode, samples=2, seqlen=10, seed=0).tolist()
    assert len(few) == 2
    assert all(row in windows.tolist() for row in few)
    assert few[0] != few[1]


def test_a_text_shorter_than_a_window_is_the_only_window(caplog):
    assert sample_windows(["abc", "de"], encode, samples=5, seqlen=10, seed=0).tolist() == [encode("abcde")]
    assert "only 5 tokens" in caplog.text


def test_documents_of_all_lengths_end_in_windows():
    texts = ["x" * length for length in range(30)]
    for seqlen in (1, 7, 28, 29, 40):
        windows = sample_windows(texts, encode, samples=9, seqlen=seqlen, seed=0)
        assert windows.shape == (9, seqlen)
    with pytest.raises(DataError, match="holds no text"):
        sample_windows(["", ""], encode, samples=1, seqlen=1, seed=0)


def test_the_window_is_capped_at_the_context(tmp_path, caplog):
    path = write_jsonl(tmp_path / "text.jsonl", ["abcdefghij" * 20])
    assert load(path, context=32, calib_samples=3).shape == (3, 32)
    assert "beyond the model's context: using 32" in caplog.text


def test_a_matrix_of_ids_is_used_verbatim(tmp_path):
    ids = np.arange(12, dtype=np.uint16).reshape(3, 4)
    np.save(tmp_path / "ids.npy", ids)
    windows = load(tmp_path / "ids.npy", calib_samples=1)
    assert windows.dtype == torch.int64
    assert windows.tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(4), r"holds int64 \[4\]"),
        (np.zeros((2, 3)), "holds float64"),
        (np.zeros((0, 3), dtype=int), r"\[0, 3\]"),
        (np.full((2, 3), 256), "token ids from 256 to 256, but the model knows 0 to 255"),
        (np.full((2, 3), -1), "token ids from -1"),
        (np.zeros((2, 65), dtype=int), "windows of 65 tokens, but the model's context is 64"),
    ],
)
def test_a_wrong_matrix_is_refused(tmp_path, array, message):
    np.save(tmp_path / "ids.npy", array)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "ids.npy")


@pytest.mark.parametrize("settings", [{"method": "wanda", "sparsity": 0.1}, {"method": "shortgpt", "num_blocks": 1}])
def test_token_ids_beyond_the_embedding_are_refused(tmp_path, settings):
    config = PruneConfig(calib=str(write_jsonl(tmp_path / "text.jsonl", ["abcz" * 30])), preset="paper", **settings)
    assert windows_of(config, vocabulary=ord("z") + 1, context=64) is not None
    with pytest.raises(DataError, match=r"writes token id 122, but the model knows 0 to 121: give the tokenizer"):
        windows_of(config, vocabulary=ord("z"), context=64)


def test_a_pickle_in_disguise_is_not_opened(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"is not a \.npy array of numbers"):
        load(tmp_path / "ids.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"text": ""}\n', "holds no text"),
        ('{"text": "a"}\nnot json\n', "line 2 is not JSON"),
        ('{"body": "a"}\n', "line 1 has no 'text'"),
        ('["a"]\n', "line 1 has no 'text'"),
        ('{"text": 3}\n', "line 1 has no 'text'"),
        ('{"text": "\xe9"}\n', "is not UTF-8"),
    ],
)
def test_a_wrong_jsonl_is_refused(tmp_path, content, message):
    (tmp_path / "text.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load(tmp_path / "text.jsonl")


def test_a_unicode_line_separator_inside_a_row_does_not_split_it(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load(path, calib_seqlen=5).tolist() == [encode("a\u2028b")]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stands for the hub with a folder laid out like emozilla/pg19; returns the paths that were asked for."""
    texts = {
        "train": ["train"],
        "validation": ["  A short line\n\nand another  \n", "abcdefghijklmnop " * 40, "qrstuvwxyz\n" * 250],
        "test": ["test"],
    }
    for split, rows in texts.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        datasets.Dataset.from_dict({"text": rows}).to_parquet(tmp_path / f"data/{split}-00000-of-00001-1a2b.parquet")
    card = [{"name": split, "num_bytes": 9, "num_examples": len(rows)} for split, rows in texts.items()]
    (tmp_path / "README.md").write_text(f"---\n{json.dumps({'dataset_info': {'splits': card}})}\n---\n")
    asked, real = [], datasets.load_dataset

    def load_dataset(path, **arguments):
        asked.append(path)
        return real(str(tmp_path), cache_dir=str(tmp_path / "cache"), **arguments)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked, texts


def test_pg19_is_the_validation_split_sampled_like_any_text(hub):
    asked, texts = hub
    windows = load("pg19", calib_samples=20, calib_seqlen=50)
    assert asked == ["emozilla/pg19"]
    assert torch.equal(windows, sample_windows(texts["validation"], encode, samples=20, seqlen=50, seed=0))


def reference_chunks(text, limit):
    """The chunks of the paper's code, for lines shorter than a chunk."""
    chunks, current, length = [], [], 0
    for line in (line.strip() for line in text.split("\n")):
        if not line:
            continue
        if length + len(line) + 1 <= limit:
            current.append(line)
            length += len(line) + 1
        else:
            chunks.append(" ".join(current))
            current, length = [line], len(line)
    return [*chunks, " ".join(current)] if current else chunks


def test_chunks_of_pg19_are_those_of_the_papers_code(hub):
    asked, texts = hub
    config = PruneConfig(method="shortgpt", num_blocks=1, calib_samples=4, preset="paper")
    chunks = windows_of(config, context=4096)
    everything = [chunk for text in texts["validation"] for chunk in reference_chunks(text, 1024)]
    random.seed(0)
    assert [bytes(chunk.tolist()).decode() for chunk in chunks] == random.sample(everything, 4)
    assert asked == ["emozilla/pg19"]
    assert len({len(chunk) for chunk in chunks}) > 1
    assert all(chunk.dtype == torch.int64 for chunk in chunks)


def test_chunks_of_a_file_are_capped_at_the_context(tmp_path, caplog):
    path = write_jsonl(tmp_path / "text.jsonl", ["a" * 50, "b" * 20, ""])
    config = PruneConfig(method="shortgpt", num_blocks=1, calib=str(path), preset="paper")
    chunks = windows_of(config, context=32)
    assert sorted(bytes(chunk.tolist()).decode() for chunk in chunks) == ["a" * 32, "b" * 20]
    assert "makes only 2 chunks, 128 were asked for" in caplog.text
    with pytest.raises(DataError, match="holds no text"):
        windows_of(replace(config, calib=str(write_jsonl(path, ["", "\n"]))), context=32)


@given(st.lists(st.text("ab \t", max_size=11), max_size=12))
def test_chunks_of_short_lines_are_the_references(lines):
    text = "\n".join(lines)
    assert cut_chunks(text, characters=12) == reference_chunks(text, 12)


@given(st.text("ab \n", max_size=60), st.integers(1, 12))
def test_chunks_lose_nothing_and_never_exceed_their_length(text, characters):
    chunks = cut_chunks(text, characters=characters)
    assert all(0 < len(chunk) <= characters for chunk in chunks)
    assert "".join(chunks).replace(" ", "") == text.replace(" ", "").replace("\n", "")


@pytest.mark.parametrize("calib", ["c4", "pg19", "some/dataset"])
def test_without_a_network_the_local_choices_are_named(calib):
    with pytest.raises(MissingDataError, match=rf"calib={calib} cannot be loaded .* Local choices: a \.jsonl file"):
        load(calib)


def test_a_data_set_without_a_text_is_refused(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: datasets.Dataset.from_dict({"body": ["a"], "id": [1]}))
    with pytest.raises(DataError, match="calib=some/dataset has no column 'text', only body, id"):
        load("some/dataset")


@pytest.mark.parametrize("calib", ["traces", "traces:questions.jsonl"])
def test_traces_are_made_elsewhere(tmp_path, monkeypatch, calib):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "questions.jsonl", ["1+1?"])
    with pytest.raises(ArgumentError, match=rf"calib={calib} is written by the dense model .*models\.traces"):
        load(calib)


WRONG = [
    ("/nowhere.jsonl", MissingDataError, "calib=/nowhere.jsonl does not exist"),
    ("nowhere.npy", MissingDataError, "calib=nowhere.npy does not exist"),
    ("traces:/nowhere.jsonl", MissingDataError, "calib=traces:/nowhere.jsonl does not exist"),
    ("traces:questions.txt", ArgumentError, r"calib=traces:questions.txt names no questions: give .*FILE\.jsonl"),
    ("traces:", ArgumentError, "calib=traces: names no questions"),
    ("c5", ArgumentError, "calib='c5' is not known.* or c4, pg19, traces, or a hub data set id"),
    ("./text.txt", ArgumentError, "is not known"),
]


@pytest.mark.parametrize(("calib", "error", "message"), WRONG)
def test_a_wrong_source_is_found_before_anything_is_loaded(calib, error, message):
    for method in ({"method": "wanda"}, {"method": "magnitude"}):
        with pytest.raises(error, match=message):
            source_of(PruneConfig(**method, sparsity=0.1, calib=calib)).check()


@pytest.mark.parametrize("calib", [None, "c4", "pg19", "traces", "NeelNanda/pile-10k"])
def test_sources_that_may_exist_pass(calib):
    source_of(PruneConfig(method="wanda", sparsity=0.1, calib=calib)).check()


def test_a_file_of_questions_that_exists_passes(tmp_path):
    calib = f"traces:{write_jsonl(tmp_path / 'questions.jsonl', ['1+1?'])}"
    source_of(PruneConfig(method="wanda", sparsity=0.1, calib=calib)).check()


@pytest.mark.parametrize("alloc", ["search", "layerif"])
def test_one_window_is_too_few_to_hold_some_out(tmp_path, alloc):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.zeros((1, 8), dtype=np.int64))
    for source in ({"calib": "c4", "calib_samples": 1}, {"calib": "traces", "calib_samples": 1}, {"calib": str(rows)}):
        config = PruneConfig(method="wanda", sparsity=0.5, alloc=alloc, **source)
        with pytest.raises(ArgumentError, match=r"gives too few calibration windows \(1\): .* at least 2"):
            resolve(config).calibration_source("x/y").check()
        resolve(replace(config, alloc="owl")).calibration_source("x/y").check()
    measured = PruneConfig(method="magnitude", sparsity=0.5, calib="c4", calib_samples=1)
    resolve(measured).calibration_source("x/y").check()
