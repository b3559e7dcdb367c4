"""Digests of the files of a checkpoint, made beside loading: those of the loaded weights, or none."""

from __future__ import annotations

import logging
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.pruning.artifacts.fingerprint import tensor_digest, weights_digest
from lm_eval_pruned.pruning.checkpoint.file_digests import FileDigests, hashed_beside
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.model.decoder import find_decoder
from tests.pruning.test_offloaded import checkpoint

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def source(model, tmp_path) -> Path:
    return checkpoint(model.to(torch.bfloat16), tmp_path / "dense", max_shard_size="20kB")


def finished(digests: FileDigests) -> FileDigests:
    wait(digests.digests.values())
    return digests


def open_shards(source: Path) -> Shards:
    return Shards.open(str(source), revision="main")


def test_loaded_weights_have_the_digests_of_the_files(source):
    loaded = AutoModelForCausalLM.from_pretrained(source)
    with hashed_beside(open_shards(source), "auto") as digests:
        finished(digests)
        for name, value in loaded.named_parameters():
            assert digests.of(name, value) == tensor_digest(value)


def test_what_is_not_what_is_stored_has_none(source):
    loaded = dict(AutoModelForCausalLM.from_pretrained(source).named_parameters())
    with hashed_beside(open_shards(source), "auto") as digests:
        finished(digests)
        changed = loaded[NAME].detach().clone()
        # 0.0 and -0.0 are equal numbers of other bytes.
        changed[-1, -1] = 0.0
        minus = changed.clone()
        minus[-1, -1] = -0.0
        for value in (changed, minus, loaded[NAME].float(), loaded[NAME].T, loaded[NAME][:-1]):
            assert digests.of(NAME, value) is None
        assert digests.of("model.layers.1.mlp.up.weight", loaded[NAME]) is None


def test_a_changed_weight_below_a_word_is_found(tmp_path):
    save_file({"odd": torch.arange(5, dtype=torch.bfloat16), "one": torch.tensor(2.0)}, tmp_path / "model.safetensors")
    with hashed_beside(open_shards(tmp_path), "auto") as digests:
        finished(digests)
        stored = load_file(tmp_path / "model.safetensors")
        assert {name: digests.of(name, value) for name, value in stored.items()} == {
            name: tensor_digest(value) for name, value in stored.items()
        }
        assert digests.of("odd", torch.tensor([0, 1, 2, 3, 4.5], dtype=torch.bfloat16)) is None


def test_what_is_converted_is_not_hashed(source):
    with hashed_beside(open_shards(source), "float32") as digests:
        assert not digests.digests


def test_a_file_that_is_torn_meanwhile_has_no_digests(source):
    loaded = {name: value.detach().clone() for name, value in load_file(file_of(source)).items()}
    with hashed_beside(open_shards(source), "auto") as digests:
        finished(digests)
        file_of(source).write_bytes(b"torn")
        assert all(digests.of(name, value) is None for name, value in loaded.items())


def file_of(source: Path) -> Path:
    return open_shards(source).files[NAME]


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_model_of_the_harness_has_the_digest_of_its_weights(source, dtype, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = PrunedHFLM(str(source), dtype=dtype, device="cpu", prefix_token_id=1)
    assert loaded.report.dense_sha256 == weights_digest(find_decoder(loaded.model))
