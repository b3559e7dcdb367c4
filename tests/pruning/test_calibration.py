from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, NotBuiltError
from lm_eval_pruned.pruning.calibration import check_source, load_windows, sample_windows


def encode(text: str) -> list[int]:
    return list(text.encode())


def load(calib, *, vocabulary=256, context=64, **settings):
    config = PruneConfig(method="wanda", sparsity=0.1, calib=str(calib), **settings)
    return load_windows(config, encode, vocabulary=vocabulary, context=context)


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
    ],
)
def test_a_wrong_jsonl_is_refused(tmp_path, content, message):
    (tmp_path / "text.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "text.jsonl")


def test_without_a_network_the_local_choices_are_named():
    with pytest.raises(MissingDataError, match=r"calib=c4 cannot be loaded .* Local choices: a \.jsonl file"):
        load("c4")


@pytest.mark.parametrize(
    ("calib", "error", "message"),
    [
        ("/nowhere.jsonl", MissingDataError, "calib=/nowhere.jsonl does not exist"),
        ("nowhere.npy", MissingDataError, "calib=nowhere.npy does not exist"),
        ("c5", ArgumentError, "calib='c5' is not known"),
        ("./text.txt", ArgumentError, "is not known"),
        ("pg19", NotBuiltError, "calib=pg19 is not built"),
        ("traces", NotBuiltError, "calib=traces is not built"),
    ],
)
def test_a_wrong_source_is_found_before_anything_is_loaded(calib, error, message):
    with pytest.raises(error, match=message):
        check_source(calib)


@pytest.mark.parametrize("calib", [None, "c4", "NeelNanda/pile-10k"])
def test_sources_that_may_exist_pass(calib):
    check_source(calib)
