"""The KV cache that grows in place computes what transformers' own cache computes, bit for bit, and copies less."""

from __future__ import annotations

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import DynamicCache, PreTrainedModel

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.backends import kv_batch
from lm_eval_pruned.reasoning.backends.growing_layers import GrowingLayer
from lm_eval_pruned.reasoning.backends.kv_batch import Batch
from lm_eval_pruned.reasoning.backends.kv_cache import grow_in_place, rearrange
from lm_eval_pruned.reasoning.backends.last_logits import only_last_logits
from lm_eval_pruned.reasoning.backends.limits import MIN_ROOM
from tests.architectures.families import VOCABULARY, families, tiny_model

# Full attention, windows, delta nets, convolutions, Mamba beside attention, rotary and learned positions, keys and
# values of different widths.
KINDS = ["qwen3", "gemma2", "gemma3_text", "mistral", "qwen3_5_text", "gpt_neox", "opt", "deepseek_v3"]
# Before transformers 5, the cache of the first fails when it is reordered, and the second has other names of layers.
KINDS += ["lfm2", "granitemoehybrid"] * (Version(transformers.__version__) >= Version("5"))
# Full attention, windows alone and beside it, learned positions, keys and values of different widths.
JOINING = ["qwen3", "opt", "deepseek_v3", "mistral", "gemma3_text"]
# States alone, of convolutions, and in one layer with keys and values; earlier releases keep them in another way.
JOINING += ["mamba", "lfm2", "falcon_h1"] * (Version(transformers.__version__) >= Version("5.17"))
ALSO_JOINING = ["gemma2", "gpt_oss", "gemma4_text", "cohere2", "olmo3", "llama4_text", "exaone4"]
ALSO_JOINING += ["qwen3_next", "qwen3_5_text", "jamba", "bamba", "nemotron_h", "mamba2", "falcon_mamba", "zamba2"] * (
    Version(transformers.__version__) >= Version("5.17")
)
# Sequences that go on after a number of steps; one that is named twice forks.
ORDERS = {2: [0, 1, 2, 3, 1], 5: [4, 0, 2, 3], 8: [0, 3, 2], 11: [2, 1, 0, 0, 1, 2, 2]}
STEPS = MIN_ROOM + 4


def decoded(model: PreTrainedModel, lengths: tuple[int, ...]) -> tuple[torch.Tensor, Batch]:
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, VOCABULARY - 2, (length,), generator=generator).tolist() for length in lengths]
    batch = Batch.prefill(model, prompts, autocast=None)
    logits = []
    for step in range(STEPS):
        if step in ORDERS:
            batch.select(ORDERS[step])
        tokens = torch.randint(3, VOCABULARY - 2, (len(batch.paddings),), generator=generator)
        batch.step(tokens.tolist())
        logits.append(batch.logits)
    return torch.cat(logits), batch


@pytest.mark.parametrize("lengths", [(9, 5, 14, 7), (9, 9, 9, 9)], ids=["padded", "unpadded"])
@pytest.mark.parametrize("name", [name for name in KINDS if name in families()])
@torch.inference_mode()
def test_logits_are_those_of_the_cache_of_transformers(name, lengths, monkeypatch):
    model = tiny_model(name)
    found, batch = decoded(model, lengths)
    assert any(isinstance(layer, GrowingLayer) for layer in batch.cache.layers)
    monkeypatch.setattr(kv_batch, "grow_in_place", lambda _: None)
    wanted, batch = decoded(model, lengths)
    assert not any(isinstance(layer, GrowingLayer) for layer in batch.cache.layers)
    assert torch.equal(found, wanted)


# States alone, which take no mask in a step, states beside the layers of a cache, and convolutions.
STATES = ["mamba", "falcon_mamba", "minimax", "lfm2"]


@pytest.mark.parametrize("name", [name for name in STATES if name in families()])
@torch.inference_mode()
def test_a_text_that_was_forked_is_continued_as_if_it_were_read_whole(name):
    model = tiny_model(name)
    generator = torch.Generator().manual_seed(1)

    def draw(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY - 2, (count,), generator=generator).tolist()

    rows = [draw(7), draw(7)]
    try:
        batch = Batch.prefill(model, rows, autocast=None)
    except EngineError:
        pytest.skip("this release of transformers returns the states of such a model under another name")
    # A fork, an order of as many sequences, and an eviction.
    for order in ([0, 1, 1], [2, 0, 0], [2, 0]):
        batch.select(order)
        rows = [list(rows[index]) for index in order]
        for _ in range(2):
            tokens = draw(len(rows))
            batch.step(tokens)
            rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        for logits, row in zip(batch.logits, rows, strict=True):
            whole = model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
            assert torch.allclose(logits, whole, atol=1e-4)


def cache_of(sequences: int, tokens: int) -> tuple[DynamicCache, torch.Tensor]:
    cache = DynamicCache()
    keys = torch.randn(sequences, 2, tokens, 4)
    cache.update(keys, -keys, 0)
    grow_in_place(cache)
    return cache, keys


def test_a_step_writes_in_place_until_the_room_is_used_up():
    cache, keys = cache_of(3, 10)
    places = set()
    for _ in range(2 * MIN_ROOM):
        new = torch.randn(3, 2, 1, 4)
        keys = torch.cat([keys, new], dim=-2)
        found, values = cache.update(new, -new, 0)
        places.add(found.data_ptr())
        assert torch.equal(found, keys)
        assert torch.equal(values, -keys)
    assert len(places) == 2


@pytest.mark.parametrize("order", [[2, 1], [3, 1, 2], [1, 0, 3, 2], [0, 1, 2, 3, 3, 0]], ids=str)
def test_rows_are_kept_swapped_and_copied(order):
    cache, keys = cache_of(4, 10)
    rearrange(cache, order, torch.device("cpu"))
    assert torch.equal(cache.layers[0].keys, keys[order])
    new = torch.randn(len(order), 2, 1, 4)
    found, values = cache.update(new, -new, 0)
    assert torch.equal(found, torch.cat([keys[order], new], dim=-2))
    assert torch.equal(values, -found)


def test_eviction_copies_only_the_rows_that_move():
    cache, _ = cache_of(4, 10)
    cache.update(torch.zeros(4, 2, 1, 4), torch.zeros(4, 2, 1, 4), 0)
    place = cache.layers[0].keys.data_ptr()
    rearrange(cache, [0, 3, 2], torch.device("cpu"))
    assert cache.layers[0].keys.data_ptr() == place


def test_a_model_without_a_cache_is_refused_in_a_sentence():
    with pytest.raises(EngineError, match="OpenAIGPTLMHeadModel keeps no KV cache"):
        decoded(tiny_model("openai-gpt"), (9, 9))


@pytest.fixture
def _empty_is_nan():
    """What is allocated and not written is NaN, which a mask does not hide."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_empty_is_nan")
@pytest.mark.parametrize("place", [0, 3], ids=["in a place", "as a new row"])
@pytest.mark.parametrize("length", [4, 40], ids=["shorter", "longer"])
@pytest.mark.parametrize("name", [name for name in JOINING if name in families()])
@torch.inference_mode()
def test_a_sequence_that_joins_is_decoded_as_alone(name, length, place):
    assert joined_as_alone(tiny_model(name), length, place)


@pytest.mark.slow
@pytest.mark.usefixtures("_empty_is_nan")
@pytest.mark.parametrize("name", [name for name in ALSO_JOINING if name in families()])
@torch.inference_mode()
def test_sequences_join_in_more_architectures(name):
    assert joined_as_alone(tiny_model(name), 40, 0)


def joined_as_alone(model: PreTrainedModel, length: int, place: int) -> bool:
    """Compare a batch that a prompt of `length` tokens joins with each row alone."""
    generator = torch.Generator().manual_seed(1)

    def draw(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY - 2, (count,), generator=generator).tolist()

    rows: list[list[int] | None] = [draw(12), draw(9), draw(10)]
    batch = Batch.prefill(model, rows, autocast=None)
    assert batch.can_join

    def step() -> None:
        tokens = [row and draw(1)[0] for row in rows]
        batch.step(tokens)
        for row, token in zip(rows, tokens, strict=True):
            if row:
                row.append(token)

    # The longest has finished, so that its padding is dropped.
    rows[0] = None
    step()
    new = draw(length)
    batch.join(Batch.prefill(model, [new], autocast=None), [place])
    rows[place:] = [new, *rows[place + 1 :]]
    for _ in range(MIN_ROOM + 4):
        step()
    assert batch.width == max(len(row) for row in rows if row)
    return all(
        torch.allclose(batch.logits[index], Batch.prefill(model, [row], autocast=None).logits[0], atol=1e-4)
        for index, row in enumerate(rows)
        if row
    )


@pytest.mark.parametrize("name", [one for one in ("bloom", "whisper", "moss_transcribe_diarize") if one in families()])
@torch.inference_mode()
def test_nothing_joins_a_model_that_counts_positions_itself(name):
    batch = Batch.prefill(tiny_model(name), [[3, 4, 5, 6, 7, 8], [9, 10]], autocast=None)
    assert not batch.can_join
    batch.step([None, 3])
    # The padding of the other row stays: without it, the next token would have the position of an earlier one.
    assert batch.width == 7


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "opt"])
@torch.inference_mode()
def test_logits_of_the_last_token_are_the_last_logits(name):
    model, ids = tiny_model(name), torch.randint(3, VOCABULARY, (2, 9))
    with only_last_logits(model, 9):
        found = model(input_ids=ids).logits
    assert found.shape == (2, 1, VOCABULARY)
    assert torch.allclose(found, model(input_ids=ids).logits[:, -1:], atol=1e-6)


@torch.inference_mode()
def test_a_model_without_logits_to_keep_computes_those_of_the_last_token():
    model = tiny_model("whisper")
    shapes: list[torch.Size] = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: shapes.append(logits.shape))
    Batch.prefill(model, [[5, 6, 7, 8, 9], [10, 11, 12]], autocast=None).step([3, 4])
    assert shapes == [(2, 1, VOCABULARY)] * 2
