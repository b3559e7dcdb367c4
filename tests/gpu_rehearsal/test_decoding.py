"""Decoding on pretend CUDA devices writes the texts of the CPU, waits seldom, and goes on when memory runs out."""

from __future__ import annotations

import logging
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.reasoning import sampling
from lm_eval_pruned.reasoning.backends import transformers
from lm_eval_pruned.reasoning.backends.cache_trial import CacheTraits, try_cache
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import BudgetSettings
from tests.gpu_rehearsal.counts import Counts, Current
from tests.gpu_rehearsal.cuda import pretend_cuda
from tests.gpu_rehearsal.models import FOLDER, plain, tiny_reasoner, windowed
from tests.gpu_rehearsal.placing import on_one_device, on_two_devices
from tests.test_process_memory import FULL, OTHERS

pytestmark = pytest.mark.rehearsal

# Most launches of a forward pass with all that is done around it: prefill, sampling, forks and evictions included.
MOST_LAUNCHES_A_BLOCK = 72

BUDGETS = (6, 12, 20)
PROMPTS = [
    f"<|im_start|>user\n{chain.problem}<|im_end|>\n<|im_start|>assistant\n" for chain in benchmark_chains()[4::64]
]
SAMPLINGS = {"greedy": Sampling(), "sampled": Sampling(temperature=0.6, top_p=0.95, top_k=20, seed=5)}
NUCLEUS = Sampling(temperature=0.6, top_p=0.95, seed=5)
PLACES = {"one device": on_one_device, "two devices": on_two_devices}


class Decoded(NamedTuple):
    """Texts, forward passes of the model and how many of them prefill, and what the device did."""

    texts: list[list[str]]
    passes: int
    prefills: int
    counts: Counts


def decode(
    model: PreTrainedModel,
    sampling: str = "greedy",
    *,
    batch_size: int | None = 64,
    budgets: tuple[int, ...] = BUDGETS,
    answer_room: int = 8,
) -> Decoded:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    backend = TransformersBackend(
        model=model,
        tokenizer=tokenizer,
        encode_text=tokenizer.encode,
        context=1024,
        batch_size=batch_size,
        is_quiet=True,
    )
    tokens: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, inputs: tokens.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    requests = [Request(prompt, 0) for prompt in PROMPTS]
    shared = {"answer_room": answer_room, "sampling": SAMPLINGS[sampling]}
    sets = [prepare(backend, requests, BudgetSettings(budget=one, **shared), FORMATS["tiny"]) for one in budgets]
    # The trial of the cache is no part of what is counted.
    with patch.object(transformers, "try_cache", return_value=CacheTraits(pads=True, joins=True)):
        texts = [[str(completion) for completion in one] for one in complete(backend, sets)]
    handle.remove()
    return Decoded(texts, len(tokens), sum(count > 1 for count in tokens), Current.counts)


@pytest.fixture(scope="module")
def expected():
    """Texts of the CPU, by attention and sampling."""
    known: dict[tuple[str, str], list[list[str]]] = {}

    def texts(attention: str, sampling: str) -> list[list[str]]:
        if (attention, sampling) not in known:
            known[attention, sampling] = decode(tiny_reasoner(attention), sampling).texts
        return known[attention, sampling]

    return texts


@pytest.mark.parametrize(
    ("attention", "sampling", "batch_size"),
    [*((attention, sampling, 64) for attention in ("sdpa", "eager") for sampling in SAMPLINGS), ("sdpa", "sampled", 3)],
)
@pytest.mark.parametrize("place", PLACES)
def test_the_same_texts_are_written_as_on_the_cpu(expected, attention, sampling, place, batch_size):
    with pretend_cuda():
        found = decode(PLACES[place](tiny_reasoner(attention)), sampling, batch_size=batch_size)
    assert found.texts == expected(attention, sampling)
    assert found.prefills == 1 if batch_size > len(PROMPTS) else found.prefills > 1
    # The drawn tokens of every step go to the host. With each prefill, prompts go to the device, where transformers
    # makes empty keys and values for each block and asks whether anything is padded, twice if something is.
    blocks = len(tiny_reasoner(attention).model.layers)
    steps = found.passes - found.prefills + 1
    assert found.counts.synchronisations.total() <= steps + found.prefills * (3 + 2 * blocks)
    assert found.counts.launches.total() <= MOST_LAUNCHES_A_BLOCK * blocks * found.passes


SHORT = {"sampling": "sampled", "budgets": (2, 4), "answer_room": 2}


@pytest.fixture(scope="module")
def short():
    """Short texts of a random model, and what the device did."""
    with pretend_cuda():
        return decode(on_one_device(plain(torch.float32)), **SHORT)


def test_as_many_rows_are_read_at_once_as_fit_the_free_memory(short):
    with pretend_cuda(free=60 << 30):
        all_at_once = decode(on_one_device(plain(torch.float32)), batch_size=None, **SHORT)
    with pretend_cuda(free=40 << 10):
        few_at_once = decode(on_one_device(plain(torch.float32)), batch_size=None, **SHORT)
    assert all_at_once.texts == few_at_once.texts == short.texts
    assert few_at_once.passes > 1.5 * all_at_once.passes


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_device_halves_the_batch_and_no_text_changes(short, error, monkeypatch, caplog):
    monkeypatch.setattr(Current, "largest", short.counts.largest_bytes - 1)
    monkeypatch.setattr(Current, "full", error)
    with pretend_cuda(), caplog.at_level(logging.WARNING):
        found = decode(on_one_device(plain(torch.float32)), **SHORT)
    assert found.texts == short.texts
    assert f"no memory for a batch of {len(PROMPTS)} rows: going on with {len(PROMPTS) // 2}" in caplog.text


@pytest.mark.parametrize("place", PLACES)
def test_what_a_cache_allows_is_found_out_as_on_the_cpu(place):
    with pretend_cuda():
        assert try_cache(PLACES[place](tiny_reasoner("sdpa")), autocast=None) == CacheTraits(pads=True, joins=True)


def test_steps_with_windows_never_ask_the_device_and_rows_join_them():
    on_cpu = decode(windowed(torch.float32), batch_size=3, **SHORT)
    with pretend_cuda():
        found = decode(on_one_device(windowed(torch.float32)), batch_size=3, **SHORT)
    assert found.texts == on_cpu.texts
    steps = found.passes - found.prefills
    # Each prefill makes a mask of each kind, and empty keys and values for each block, and asks what is padded.
    waits = found.counts.synchronisations
    assert waits["_local_scalar_dense"] <= 2 * found.prefills < steps
    assert waits.total() <= steps + found.prefills * (4 + 2 * 3)


def test_ranking_a_few_candidates_for_top_p_seldom_waits_twice(monkeypatch):
    monkeypatch.setitem(SAMPLINGS, "nucleus", NUCLEUS)
    wanted = decode(tiny_reasoner("sdpa"), "nucleus").texts
    # This vocabulary has fewer tokens than are ranked elsewhere.
    monkeypatch.setattr(sampling, "CANDIDATES", 64)
    with pretend_cuda():
        found = decode(on_one_device(tiny_reasoner("sdpa")), "nucleus")
    assert found.texts == wanted
    assert found.counts.synchronisations["tolist"] <= 1.1 * found.passes


def test_another_error_of_the_device_ends_the_run(short, monkeypatch):
    monkeypatch.setattr(Current, "largest", short.counts.largest_bytes - 1)
    monkeypatch.setattr(Current, "full", OTHERS[0])
    with pretend_cuda(), pytest.raises(type(OTHERS[0]), match="device-side assert"):
        decode(on_one_device(plain(torch.float32)), **SHORT)


def test_decoding_in_bfloat16_on_the_card_writes_the_texts_of_the_cpu():
    on_cpu = decode(tiny_reasoner("sdpa").to(torch.bfloat16), "sampled").texts
    with pretend_cuda():
        on_card = decode(on_one_device(tiny_reasoner("sdpa").to(torch.bfloat16)), "sampled").texts
    assert on_card == on_cpu
