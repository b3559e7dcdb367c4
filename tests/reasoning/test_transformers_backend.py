"""The transformers backend on tiny models: batching, forking, memory limits, and equal texts."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, MistralConfig, PreTrainedModel

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.reasoning import sampling as drawing
from lm_eval_pruned.reasoning.backends import batch_size as memory
from lm_eval_pruned.reasoning.backends import live_sequence
from lm_eval_pruned.reasoning.backends import transformers as decode
from lm_eval_pruned.reasoning.backends.cache_trial import CacheTraits
from lm_eval_pruned.reasoning.backends.kv_batch import Batch
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.formats import FORMATS, ThinkingFormat
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling, derive_seed, sample_tokens
from lm_eval_pruned.reasoning.settings import BudgetSettings
from tests.architectures.families import families, tiny_model

FOLDER = assets_folder() / "tiny_reasoner"
BUDGETS = (16, 32, 64, 128)
PROMPTS = [
    f"<|im_start|>user\n{chain.problem}<|im_end|>\n<|im_start|>assistant\n" for chain in benchmark_chains()[4::16]
]


def backend_of(model: PreTrainedModel, **changes: object) -> TransformersBackend:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    settings = {"context": 1024, "batch_size": 64, **changes}
    return TransformersBackend(model=model, tokenizer=tokenizer, encode_text=tokenizer.encode, **settings)


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return backend_of(AutoModelForCausalLM.from_pretrained(FOLDER))


@pytest.fixture(scope="module")
def sliding() -> TransformersBackend:
    """A random model with an attention window shorter than its texts; in float64 its best tokens are never tied."""
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=261, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=12, initializer_range=0.5, bos_token_id=None, eos_token_id=258,
    )  # fmt: skip
    return backend_of(AutoModelForCausalLM.from_config(config).double())


def answers(
    backend: TransformersBackend,
    *budgets: int | None,
    prompts: Sequence[str] = PROMPTS,
    markers: ThinkingFormat = FORMATS["tiny"],
    share: bool = True,
    **settings: object,
) -> list[list[Completion]]:
    requests = [Request(prompt, prompts[:index].count(prompt)) for index, prompt in enumerate(prompts)]
    sets = [
        prepare(backend, requests, BudgetSettings(**{"budget": budget, "answer_room": 32, **settings}), markers)
        for budget in budgets
    ]
    return complete(backend, sets, share=share)


def longest_prompt(backend: TransformersBackend) -> int:
    return max(len(backend.encode(prompt + "<think>\n", special=True)) for prompt in PROMPTS)


@dataclass
class Steps:
    """Sequences and tokens per sequence in each step of each batch."""

    sizes: list[tuple[int, int]]

    @property
    def tokens(self) -> int:
        return max(sequences * width for sequences, width in self.sizes)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    recorded = Steps([])
    step, trial = Batch.step, decode.try_cache

    def count(self: Batch, tokens: torch.Tensor) -> None:
        step(self, tokens)
        recorded.sizes.append((len(tokens), self.width))

    def uncounted(*args: object, **kwargs: object) -> CacheTraits:
        before = len(recorded.sizes)
        traits = trial(*args, **kwargs)
        del recorded.sizes[before:]
        return traits

    monkeypatch.setattr(Batch, "step", count)
    monkeypatch.setattr(decode, "try_cache", uncounted)
    return recorded


def test_answers_are_generated_beside_the_thinking(backend, steps):
    answers(backend, BUDGETS[-1])
    largest = len(steps.sizes)
    steps.sizes.clear()
    answers(backend, *BUDGETS)
    assert len(steps.sizes) < 1.1 * largest
    assert max(sequences for sequences, _ in steps.sizes) > len(PROMPTS)


def test_finished_sequences_are_evicted(backend, steps):
    answers(backend, 256)
    counts = [sequences for sequences, _ in steps.sizes]
    assert counts[0] == len(PROMPTS)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < len(PROMPTS) / 4


def test_rows_that_wait_join_where_others_have_finished(backend, steps, monkeypatch):
    few, lengths, ids = replace(backend, batch_size=4), [40, 4, 4, 4] * 3, backend.encode("a=3;b=a+", special=True)

    def generate() -> list[list[int]]:
        texts: dict[int, list[int]] = {}

        def keep(place: int, one: Generated) -> list[Row]:
            texts[place] = one.ids
            return []

        settings = {"sampling": Sampling(temperature=1.0, seed=7), "stop": Stop(()), "max_length": len(ids) + 40}
        few.run(
            [
                Row(
                    ids=ids,
                    seed=place,
                    max_new_tokens=length,
                    min_new_tokens=length,
                    **settings,
                    on_finish=partial(keep, place),
                )
                for place, length in enumerate(lengths)
            ]
        )
        return [texts[place] for place in range(len(lengths))]

    joined, counts = generate(), list(steps.sizes)
    assert max(sequences for sequences, _ in counts) == 4
    assert max(width for _, width in counts) < len(ids) + 40
    steps.sizes.clear()
    monkeypatch.setattr(Batch, "can_join", False)
    assert generate() == joined
    assert len(steps.sizes) == 3 * 39
    assert len(counts) < 0.6 * len(steps.sizes)


def test_few_tokens_are_prefilled_at_once(backend, monkeypatch):
    wanted = answers(backend, *BUDGETS)
    monkeypatch.setattr(decode, "PREFILL_TOKENS", 100)
    prefilled: list[torch.Size] = []

    def record(module: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["input_ids"].shape[1] > 1:
            prefilled.append(inputs["input_ids"].shape)

    handle = backend.model.register_forward_pre_hook(record, with_kwargs=True)
    assert answers(backend, *BUDGETS) == wanted
    handle.remove()
    assert len(prefilled) > 1
    assert all(rows == 1 or rows * tokens <= 100 for rows, tokens in prefilled)
    assert max(rows for rows, _ in prefilled) > 1


def test_a_finished_row_takes_no_position_that_the_model_lacks():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=261, n_embd=16, n_layer=1, n_head=2, n_positions=100, bos_token_id=None, eos_token_id=258
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).double().eval()
    one = backend_of(model, context=config.n_positions, batch_size=6)
    # The first fills the context long in front of the others, too few to be evicted.
    prompts = ["a" * 30 + PROMPTS[0], *PROMPTS[1:6]]
    together = answers(one, None, prompts=prompts, markers=FORMATS["none"], answer_room=8)
    assert together == answers(
        replace(one, batch_size=1), None, prompts=prompts, markers=FORMATS["none"], answer_room=8
    )
    assert together[0][0].thinking_tokens < together[0][1].thinking_tokens


def test_forks_stay_within_the_memory_of_the_batch(backend, steps):
    answers(replace(backend, batch_size=3), *BUDGETS)
    assert max(sequences for sequences, _ in steps.sizes) > 3
    assert steps.tokens <= 3 * (longest_prompt(backend) + 128 + 4 + 32)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=2.0, seed=7)], ids=["greedy", "sampled"])
def test_a_sequence_that_does_not_fit_waits_and_resumes(backend, steps, sampling):
    class Tight(TransformersBackend):
        def run(self, rows: Sequence[Row]) -> None:
            super().run([row._replace(max_length=len(row.ids) + 20) for row in rows])

    tight = Tight(**{field.name: getattr(backend, field.name) for field in fields(backend)} | {"batch_size": 4})
    wanted = answers(backend, *BUDGETS, sampling=sampling)
    steps.sizes.clear()
    assert answers(tight, *BUDGETS, sampling=sampling) == wanted
    assert steps.tokens <= 4 * (longest_prompt(backend) + 20)
    assert max(width for _, width in steps.sizes) > longest_prompt(backend) + 60


def test_a_long_forced_text_is_prefilled(backend, steps, monkeypatch):
    sentence = FORMATS["qwen3"]
    prefilled = answers(backend, 16, 64, markers=sentence)
    prefilled_steps = len(steps.sizes)
    steps.sizes.clear()
    monkeypatch.setattr(live_sequence, "MAX_FORCED_STEPS", 1000)
    assert answers(backend, 16, 64, markers=sentence) == prefilled
    assert len(steps.sizes) > prefilled_steps


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_texts_of_a_sliding_window_model_are_equal(sliding, batch_size):
    """Its KV cache holds only the window: it cannot be cropped, but it can be copied."""
    one = replace(sliding, batch_size=batch_size)
    together = answers(one, 8, 30, 60, prompts=PROMPTS[:4], markers=FORMATS["none"])
    alone = [answers(one, budget, prompts=PROMPTS[:4], markers=FORMATS["none"])[0] for budget in (8, 30, 60)]
    assert together == alone
    assert together == answers(one, 8, 30, 60, prompts=PROMPTS[:4], markers=FORMATS["none"], share=False)
    assert {one.thinking_finish for one in together[2]} == {"budget"}


def test_a_marker_of_several_tokens_is_removed_from_the_text(backend):
    """The KV cache holds tokens of the marker, so the answer has to prefill its prompt again."""
    (plain,) = answers(backend, 64, prompts=PROMPTS[-1:])[0]
    position = plain.thinking.index("=") + 1
    marked = replace(FORMATS["tiny"], closings=(plain.thinking[position : position + 5],))
    (cut,) = answers(backend, 64, prompts=PROMPTS[-1:], markers=marked)[0]
    assert cut.thinking == plain.thinking[:position]
    assert cut.startswith("<think>\n" + cut.thinking + "</think>\n\n")
    assert cut.thinking_finish == "closed"


def test_nothing_ends_before_min_new_tokens(backend):
    (natural,) = answers(backend, 64, prompts=PROMPTS[:1])[0]
    (longer,) = answers(backend, 64, prompts=PROMPTS[:1], least_thinking=natural.thinking_tokens + 9)[0]
    assert longer.thinking_tokens >= natural.thinking_tokens + 9
    assert longer.thinking.startswith(natural.thinking)


def test_an_extension_follows_where_the_thinking_would_have_ended(backend):
    plain = answers(backend, 64, prompts=PROMPTS[:2])[0]
    extended = answers(backend, 64, prompts=PROMPTS[:2], n_ignore=2)[0]
    for once, more in zip(plain, extended, strict=True):
        assert more.thinking.startswith(once.thinking + "Wait")
        assert not more.thinking.startswith(once.thinking + "WaitWait")
        assert len(backend.encode(more.thinking, special=False)) == more.thinking_tokens <= 64


def test_extended_thinking_is_the_same_under_a_single_budget(backend):
    together = answers(backend, 16, 24, 48, n_ignore=2)
    assert together == [answers(backend, budget, n_ignore=2)[0] for budget in (16, 24, 48)]


def test_sampled_tokens_follow_the_softmax(backend):
    ids, temperature = backend.encode("a=3;b=a+", special=True), 4.0
    with torch.inference_mode():
        logits = backend.model(torch.tensor([ids])).logits[0, -1].double()
    drawn = first_tokens(replace(backend, batch_size=500), ids, Sampling(temperature=temperature), count=2000)
    expected = 2000 * (logits / temperature).softmax(dim=0)
    counts = torch.bincount(torch.tensor(drawn), minlength=len(expected)).double()
    rare = expected < 5
    observed = [*counts[~rare].tolist(), counts[rare].sum().item()]
    assert chisquare(observed, [*expected[~rare].tolist(), expected[rare].sum().item()]).pvalue > 0.001
    assert len(observed) > 5


def test_sampled_texts_are_those_of_this_release(backend):
    """Stored responses and published texts depend on them: other texts are an entry of the changelog."""
    texts = answers(backend, 16, prompts=PROMPTS[:2], sampling=Sampling(temperature=1.5, seed=7), answer_room=12)[0]
    assert texts == [
        "<think>\nx=w*3=7*3=1;\n</think>\n\n\\boxed{1}",
        "<think>\nd=c-4=4-4=0;\n</think>\n\n\\boxed{0}",
    ]


def first_tokens(backend: TransformersBackend, ids: list[int], sampling: Sampling, *, count: int) -> list[int]:
    drawn: list[int] = []

    def keep(one: Generated) -> list[Row]:
        drawn.extend([*one.ids, *one.stop_ids])
        return []

    rows = [
        Row(
            ids=ids,
            max_new_tokens=1,
            seed=derive_seed(7, ids, sample),
            stop=Stop(()),
            sampling=sampling,
            on_finish=keep,
            max_length=len(ids) + 1,
        )
        for sample in range(count)
    ]
    backend.run(rows)
    return drawn


def test_measured_cache_bytes_match_the_config(backend):
    config = backend.model.config
    one_side = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert memory.cache_bytes(backend.model, 100) == {torch.device("cpu"): 100 * 2 * one_side}


@pytest.mark.parametrize("name", [name for name in ("qwen3_next", "lfm2", "mamba2") if name in families()])
def test_states_of_linear_attention_are_counted_once_a_sequence(name):
    model = tiny_model(name)
    try:
        with torch.inference_mode():
            cache = Batch.prefill(model, [[0] * 70], autocast=None).cache
    except EngineError:
        pytest.skip("this release of transformers returns the states of such a model under another name")
    if not hasattr(cache, "layers"):
        pytest.skip("the cache of such a model has no layers in this release of transformers")
    tensors = [
        tensor
        for layer in cache.layers
        for held in vars(layer).values()
        for tensor in (held.values() if isinstance(held, dict) else [held])
        if isinstance(tensor, torch.Tensor)
    ]
    distinct = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    assert memory.cache_bytes(model, 70) == {torch.device("cpu"): sum(distinct.values())}


def test_the_device_with_the_least_room_for_its_layers_decides(backend, monkeypatch):
    logits = memory.LOGITS_COPIES * 4 * backend.model.config.vocab_size
    here, other = torch.device("cpu"), torch.device("cuda:1")
    monkeypatch.setattr(memory, "cache_bytes", lambda _, tokens: {here: 100.0 * tokens, other: 50.0 * tokens})
    free = {here: 10 * (100 * 30 + logits), other: 4 * 50 * 30}
    monkeypatch.setattr(memory, "free_bytes", lambda device: (free[device] + 1) / memory.MEMORY_SHARE)
    assert memory.count_fitting_rows(backend.model, 30) == 4
    free[other] *= 100
    assert memory.count_fitting_rows(backend.model, 30) == 10


def test_one_row_at_a_time_on_a_gpu_is_advised_against(backend, monkeypatch, caplog):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    quiet = [(64, 30, cuda), (None, 30, cuda), (1, 1, cuda), (1, 30, cpu)]
    assert [memory.describe_single_rows(*one) for one in quiet] == [None] * 4
    monkeypatch.setattr(
        decode, "describe_single_rows", lambda size, rows, _: memory.describe_single_rows(size, rows, cuda)
    )
    answers(replace(backend, batch_size=1), 2, prompts=PROMPTS[:2], answer_room=1)
    assert "--batch_size auto" in caplog.text


def test_the_automatic_batch_size_fits_the_free_memory(backend, steps, monkeypatch):
    auto = replace(backend, batch_size=None)
    wanted = answers(auto, 16)
    assert steps.sizes[0][0] == len(PROMPTS)
    steps.sizes.clear()
    (cache,) = memory.cache_bytes(backend.model, longest_prompt(backend) + 16 + 4 + 32).values()
    row = cache + memory.LOGITS_COPIES * 4 * 261
    monkeypatch.setattr(memory, "free_bytes", lambda _: int(3.5 * row / memory.MEMORY_SHARE))
    assert answers(auto, 16) == wanted
    assert max(sequences for sequences, _ in steps.sizes) == 3
    steps.sizes.clear()
    monkeypatch.setattr(memory, "free_bytes", lambda _: 0)
    assert answers(auto, 16) == wanted
    assert {sequences for sequences, _ in steps.sizes} == {1}


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory", 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["allocator", "driver", "library", "host"],
)
def test_a_batch_that_runs_out_of_memory_is_halved(backend, steps, monkeypatch, caplog, full):
    wanted = answers(backend, *BUDGETS)
    steps.sizes.clear()
    step = Batch.step

    def scarce(self: Batch, tokens: torch.Tensor) -> None:
        if len(tokens) * self.width > 900:
            raise full
        step(self, tokens)

    monkeypatch.setattr(Batch, "step", scarce)
    assert answers(replace(backend, batch_size=12), *BUDGETS) == wanted
    assert "no memory for a batch of 12 rows: going on with 6" in caplog.text
    assert "going on with 3" in caplog.text
    monkeypatch.setattr(Batch, "step", lambda *_: raise_another_error())
    with pytest.raises(RuntimeError, match="something else"):
        answers(backend, 16)


def raise_another_error() -> None:
    raise RuntimeError("something else")


class Scarce:
    """A model on a device whose memory holds at most `rows` rows of any length."""

    def __init__(self, backend: TransformersBackend, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shortages, self.largest = 0, 0
        forward = type(backend.model).forward

        def scarce(model: PreTrainedModel, input_ids: torch.Tensor, **inputs: object) -> object:
            if len(input_ids) > rows:
                self.shortages += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")
            self.largest = max(self.largest, len(input_ids))
            return forward(model, input_ids, **inputs)

        scarce.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(type(backend.model), "forward", scarce)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, seed=7)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("rows", [1, 3])
def test_scarce_memory_loses_no_row_and_changes_no_text(backend, monkeypatch, rows, sampling):
    wanted = answers(backend, 8, 16, 32, prompts=PROMPTS[:6], sampling=sampling)
    scarce = Scarce(backend, rows, monkeypatch)
    assert answers(backend, 8, 16, 32, prompts=PROMPTS[:6], sampling=sampling) == wanted
    assert scarce.shortages
    assert scarce.largest == rows


def test_memory_that_runs_out_between_two_samplings_of_a_step_changes_no_text(backend, monkeypatch):
    """Thinking and answers are sampled one after the other: if the second fails, the first must not count."""
    apart = {"sampling": Sampling(temperature=0.7, seed=7), "thinking_sampling": Sampling(temperature=1.0, seed=7)}
    wanted = answers(backend, 8, 16, 32, prompts=PROMPTS[:6], **apart)
    draws, failed = Counter[int](), []

    def scarce(logits: torch.Tensor, *others: object, **candidates: int) -> torch.Tensor:
        temperature = others[0].temperature
        draws[temperature] += 1
        if temperature == 0.7 and draws[0.7] % 10 == 1 and len(failed) < 3:
            failed.append(draws[1.0])
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sample_tokens(logits, *others, **candidates)

    monkeypatch.setattr(drawing, "sample_tokens", scarce)
    assert answers(backend, 8, 16, 32, prompts=PROMPTS[:6], **apart) == wanted
    assert len(failed) == 3


def test_no_memory_for_a_single_row_is_one_sentence(backend, monkeypatch):
    Scarce(backend, 0, monkeypatch)
    with pytest.raises(EngineError, match=r"single row of \d+ tokens .* smaller thinking_token_budget") as raised:
        answers(backend, 16)
    assert "\n" not in str(raised.value)


def test_no_rows_run_no_step(backend, steps):
    backend.run([])
    assert not steps.sizes
