"""Prompts are wrapped in the chat template exactly once."""

from __future__ import annotations

import pytest

from lm_eval_pruned.models.prompt import as_user_turn

TEMPLATES = {
    "both": lambda turns: f"<user>{turns[0]['content']}</user><assistant>",
    "nothing after": lambda turns: f"User: {turns[0]['content']}\n",
    "nothing before": lambda turns: f"{turns[0]['content']}\nAssistant:",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_wrapped_once(name):
    render = TEMPLATES[name]
    once = as_user_turn("1+1?", render)
    assert once == render([{"role": "user", "content": "1+1?"}])
    assert as_user_turn(once, render) == once
