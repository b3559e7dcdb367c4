"""All tokens that end a text or a turn end the generation, whichever file of a checkpoint names them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedTokenizerFast

from lm_eval_pruned.reasoning.stopping import end_tokens

TURN = "{% for m in messages %}{{ m.content + 'END' }}{% endfor %}"


def tokenizer_of(*special: str, eos: str | None = None, template: str | None = None) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    inner.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos, chat_template=template)


def test_the_ends_of_every_config_count():
    tokenizer = tokenizer_of("<x>", "<y>", "<z>", eos="<x>")
    assert end_tokens(tokenizer) == {2}
    assert end_tokens(tokenizer, GenerationConfig(eos_token_id=[3, 1]), SimpleNamespace(eos_token_id=4)) == {1, 2, 3, 4}
    assert end_tokens(tokenizer, None, GenerationConfig(), SimpleNamespace(eos_token_id=None)) == {2}


@pytest.mark.parametrize("end", ["<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<|return|>", "<|call|>"])
def test_an_end_that_no_config_names_counts(end):
    """A checkpoint whose configs name only the end of a turn also writes the end of a text, and the other way round."""
    tokenizer = tokenizer_of("<|im_end|>", end, "<other>", eos="<|im_end|>")
    assert end_tokens(tokenizer, GenerationConfig(eos_token_id=2)) == {2, 3}


def test_the_template_tells_the_end_of_a_turn():
    tokenizer = tokenizer_of("<other>", "<fin>", "<fin>!", template=TURN.replace("END", "\\n<fin>!\\n"))
    assert end_tokens(tokenizer) == {4}
    assert end_tokens(tokenizer_of("<fin>", template="{{ raise_exception('no') }}")) == set()
