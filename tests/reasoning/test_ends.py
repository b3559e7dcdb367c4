"""An end token ends both phases on the transformers backend, whichever part of a checkpoint names it."""

from __future__ import annotations

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel

from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.settings import BudgetSettings

# The token that the model writes after any other, and the end token that it writes after that.
LAST, END = "z", "<fin>"


def model_that_ends(end: int, last: int) -> PreTrainedModel:
    """Return a model without attention that writes `last` after any token, and `end` after `last`."""
    config = LlamaConfig(
        vocab_size=262, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in (model.lm_head.weight, *model.model.layers[0].self_attn.parameters()):
            weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(16)[0].expand(262, 16))
        model.model.embed_tokens.weight[last] = torch.eye(16)[1]
        model.lm_head.weight[last, 0] = model.lm_head.weight[end, 1] = 1
    return model


def respond(end: str, *, tokenizer_eos: str | None = None, is_in_generation_config: bool = False) -> Completion:
    tokenizer = AutoTokenizer.from_pretrained(assets_folder() / "tiny_reasoner")
    tokenizer.chat_template = None
    tokenizer.add_tokens([AddedToken(end, special=True)])
    tokenizer.eos_token = tokenizer_eos
    number = tokenizer.convert_tokens_to_ids(end)
    model = model_that_ends(number, *tokenizer.encode(LAST))
    model.generation_config.eos_token_id = [number] if is_in_generation_config else None
    backend = TransformersBackend(
        model=model, tokenizer=tokenizer, encode_text=tokenizer.encode, context=128, batch_size=2
    )
    prepared = prepare(backend, [Request("1+1?", 0)], BudgetSettings(budget=8, answer_room=6), FORMATS["tiny"])
    return complete(backend, [prepared])[0][0]


@pytest.mark.parametrize(
    ("end", "named"),
    [(END, {"tokenizer_eos": END}), (END, {"is_in_generation_config": True}), ("<end_of_turn>", {})],
    ids=["tokenizer", "generation config", "usual name"],
)
def test_an_end_token_that_one_part_names_ends_both_phases(end, named):
    ended = respond(end, **named)
    assert (ended.thinking, ended.thinking_finish, ended.thinking_tokens) == (LAST, "eos", 1)
    assert (ended.answer, ended.answer_finish, ended.answer_tokens) == (LAST, "stop", 1)


def test_a_token_that_nothing_names_ends_no_phase():
    unended = respond(END)
    assert (unended.thinking_finish, unended.thinking_tokens) == ("budget", 8)
    assert (unended.answer_finish, unended.answer_tokens) == ("length", 6)
