"""What is found out about a model's cache on a few tokens, and texts of models that padding would change."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import PreTrainedModel

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.backends.cache_trial import CacheTraits, try_cache
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling
from tests.architectures.families import VOCABULARY, families, tiny_model

# Positions counted over padding by a decoder of BART's family, and in windows that DeepSeek-V4 compresses.
NOT_PADDED = [name for name in ("bart", "whisper", "deepseek_v4") if name in families()]
# DeepSeek-V4's cache cannot be reordered before transformers 5.24.
NOT_PADDED = NOT_PADDED[: 3 if Version(transformers.__version__) >= Version("5.24") else 2]
LENGTHS = (6, 13, 3, 13, 6)


class _NoTokenizer:
    """A tokenizer without tokens of its own."""

    def __init__(self) -> None:
        self.added_tokens_decoder: dict[int, str] = {}


def texts(model: PreTrainedModel, *, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
    """Generate greedily after random prompts of LENGTHS tokens."""
    monkeypatch.setattr(TransformersBackend, "end_tokens", lambda _: frozenset())
    backend = TransformersBackend(
        model=model, tokenizer=_NoTokenizer(), encode_text=list, context=64, batch_size=batch_size
    )
    generator, found = torch.Generator().manual_seed(2), {}

    def keep(place: int, generated: Generated) -> list[Row]:
        found[place] = generated.ids
        return []

    backend.run(
        [
            Row(
                ids=torch.randint(3, VOCABULARY - 2, (length,), generator=generator).tolist(),
                # Some finish earlier.
                max_new_tokens=6 + place,
                seed=0,
                stop=Stop(()),
                sampling=Sampling(),
                on_finish=partial(keep, place),
                max_length=length + 6 + place,
            )
            for place, length in enumerate(LENGTHS)
        ]
    )
    return found


@pytest.mark.parametrize("name", NOT_PADDED)
def test_models_that_padding_changes_get_prompts_of_one_length(name, monkeypatch, caplog):
    model = tiny_model(name)
    alone = texts(model, batch_size=1, monkeypatch=monkeypatch)
    assert "only prompts of equally many tokens" not in caplog.text
    assert texts(model, batch_size=4, monkeypatch=monkeypatch) == alone
    assert caplog.text.count("only prompts of equally many tokens share a batch") == 1
    assert type(model).__name__ in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["qwen3", "gemma3_text", "opt", "mixtral"])
def test_others_are_padded_in_every_precision(name, dtype, caplog):
    assert try_cache(tiny_model(name).to(dtype), autocast=None) == CacheTraits(pads=True, joins=True)
    assert not caplog.records


def test_a_model_that_reads_padding_as_text_is_not_padded():
    """Its cache and its arguments are those of others: only logits tell."""

    def unhide(_: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        return args, {**kwargs, "attention_mask": None}

    model = tiny_model("qwen3")
    model.register_forward_pre_hook(unhide, with_kwargs=True)
    assert try_cache(model, autocast=None) == CacheTraits(pads=False, joins=False)
    # Rounding in 16 bits can be as large.
    assert try_cache(model, autocast=torch.bfloat16).pads
    # Pruned to destruction, it has no logits that could differ.
    for parameter in model.parameters():
        parameter.data.zero_()
    assert try_cache(model, autocast=None).pads


@pytest.mark.parametrize("name", ["cpmant", "xlstm"])
def test_a_model_that_cannot_go_on_is_refused_in_a_sentence(name):
    model = tiny_model(name)
    with pytest.raises(EngineError, match=f"{type(model).__name__} cannot go on with its KV cache in transformers"):
        try_cache(model, autocast=None)


def test_without_memory_for_a_trial_rows_are_generated_one_after_the_other(monkeypatch):
    model = tiny_model("qwen3")

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", fail)
    assert try_cache(model, autocast=None) == CacheTraits(pads=False, joins=False)
