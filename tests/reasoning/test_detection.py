"""Thinking formats are detected from the texts of chat templates, and read from what these write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pytest
from transformers import PreTrainedTokenizerFast

from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.reasoning.detection import Render, choose_format, detect_format, read_written
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.preparing import choose_opening

LOOP = "{% for m in messages %}{% if m.role == 'user' %}USER{% else %}ASSISTANT{% endif %}{% endfor %}"


def template(user: str, assistant: str, prompt: str) -> str:
    r"""Return a chat template: its user turn, its assistant turn and its generation prompt, with \n for line breaks."""
    turns = LOOP.replace("USER", user).replace("ASSISTANT", assistant)
    return f"{turns}{{% if add_generation_prompt and messages[-1].role == 'user' %}}{prompt}{{% endif %}}"


CHATML = "{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}"
QWEN = "{{ '<|im_start|>assistant\\n<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' + m.content }}"
BARE = "{{ '<|im_start|>assistant\\n' }}"
OFF = "{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
HARMONY = (
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant<|channel|>final"
    "<|message|>' + m.content + '<|return|>' }}"
)
USER = "{{ '<|user|>' + m.content }}"

# Name, template, format, opening, what is written after thinking that the model has closed, and after a cut.
SHAPES = {
    "qwen3": (template(CHATML, QWEN, BARE + OFF), "qwen3", "<think>\n", "</think>\n\n"),
    "qwen3.5": (
        template(CHATML, QWEN, "{{ '<|im_start|>assistant\\n<think>\\n' }}"),
        "qwen3",
        "<think>\n",
        "</think>\n\n",
    ),
    "r1": (
        template(USER, "{{ m.content }}", "{{ '<｜Assistant｜><think>\\n' }}"),
        "deepseek-r1",
        "<think>\n",
        "</think>\n\n",
    ),
    "v3.1": (
        template(USER, "{{ m.content }}", "{{ '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}"),
        "think",
        "<think>",
        "</think>",
    ),
    "glm": (
        template(
            USER,
            "{{ '<|assistant|>\\n<think>' + m.reasoning_content + '</think>\\n' + m.content }}",
            "{{ '<|assistant|>' }}",
        ),
        "think",
        "\n<think>",
        "</think>\n",
    ),
    "harmony": (
        template(USER, HARMONY, "{{ '<|start|>assistant' }}"),
        "harmony",
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "mistral": (
        template(USER, "{{ '[THINK]' + m.reasoning + '[/THINK]' + m.content }}", ""),
        "mistral",
        "[THINK]",
        "[/THINK]",
    ),
    "kimi-vl": (template(USER, "{{ m.content.split('◁think▷')[0] }}", ""), "kimi-vl", "◁think▷", "◁/think▷"),
    "seed-oss": (
        template(USER, "{{ '<seed:think>' + m.reasoning_content + '</seed:think>\\n' + m.content }}", ""),
        "seed-oss",
        "<seed:think>",
        "</seed:think>\n",
    ),
    "gemma4": (
        template(USER, "{{ m.content.split('<|channel>thought')[0] }}", ""),
        "gemma4",
        "<|channel>thought\n",
        "<channel|>",
    ),
    "command-a": (
        template(USER, "{{ '<|START_THINKING|>' + m.thinking + '<|END_THINKING|><|START_TEXT|>' + m.content }}", ""),
        "command-a",
        "<|START_THINKING|>",
        "<|END_THINKING|><|START_TEXT|>",
    ),
    "exaone-deep": (
        template(USER, "{{ m.content.split('</thought>')[-1] }}", "{{ '<thought>\\n' }}"),
        "exaone-deep",
        "<thought>\n",
        "</thought>\n\n",
    ),
    "unknown tags": (
        template(USER, "{{ '<x:muse>' + m.reasoning + '</x:muse>' + m.content }}", ""),
        "template",
        "<x:muse>",
        "</x:muse>",
    ),
    "unknown channels": (
        template(
            USER,
            "{{ '<|go|>bot to=me<|m|>' + m.reasoning + '<|x|><|go|>bot to=you<|m|>' + m.content }}",
            "{{ '<|go|>bot' }}",
        ),
        "template",
        " to=me<|m|>",
        "<|x|><|go|>bot to=you<|m|>",
    ),
    "plain": (template(CHATML, "{{ m.content }}", BARE), "none", "", None),
}


def renderer(text: str, **kwargs: object) -> Render:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(assets_folder() / "tiny_reasoner" / "tokenizer.json"))

    def render(chat: Sequence[Mapping[str, str]]) -> str:
        options = {"chat_template": text, "tokenize": False, "add_generation_prompt": True}
        return str(tokenizer.apply_chat_template(list(chat), **options, **kwargs))

    return render


@pytest.mark.parametrize("shape", SHAPES)
def test_markers_and_line_breaks_are_those_of_the_template(shape):
    text, name, opening, natural = SHAPES[shape]
    chosen = choose_format("auto", text, renderer(text))
    assert (chosen.name, chosen.opening, chosen.natural_close) == (name, opening, natural)
    if natural:
        assert chosen.close("so", forced=True).endswith(natural)
        assert natural.startswith(chosen.closings)
    if name in FORMATS and shape in FORMATS:
        assert detect_format(text) == FORMATS[name]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in ("plain", "v3.1")])
def test_the_opening_is_written_once(shape):
    text, *_ = SHAPES[shape]
    render = renderer(text)
    chosen = choose_format("auto", text, render)
    prompt = render([{"role": "user", "content": "1+1?"}])
    whole = prompt + (choose_opening(prompt, chosen) or "")
    assert whole.count(chosen.opening.strip()) == 1
    assert whole.rstrip().endswith(chosen.opening.strip())


@pytest.mark.parametrize(("shape", "kwargs"), [("qwen3", {"enable_thinking": False}), ("v3.1", {})])
def test_a_template_that_has_closed_the_thinking_leaves_nothing_to_open(shape, kwargs):
    text, *_ = SHAPES[shape]
    render = renderer(text, **kwargs)
    chosen = choose_format("auto", text, render)
    assert choose_opening(render([{"role": "user", "content": "1+1?"}]), chosen) is None


def test_a_prompt_that_closes_the_thinking_does_not_hide_the_opening():
    text = SHAPES["qwen3"][0]
    assert choose_format("auto", text, renderer(text, enable_thinking=False)) == FORMATS["qwen3"]


def test_a_template_that_fails_or_leaves_the_thinking_out_tells_nothing():
    def fails(chat: Sequence[Mapping[str, str]]) -> str:
        raise ValueError(chat)

    assert read_written(fails) is None
    # Without a marker between them, thinking and answer are one text.
    assert read_written(lambda chat: "".join(turn.get("thinking", "") + turn["content"] for turn in chat)) is None


@pytest.mark.parametrize(
    "text",
    [
        "{{ m.reasoning_content }}",
        "<reasoning>",
        "{% if thinking %}",
        "[BEGIN REASONING]",
        "Reasoning: high",
        "{{ m['thought'] }}",
    ],
)
def test_unknown_reasoning_is_warned_of(text, caplog):
    assert choose_format("auto", text).name == "none"
    assert all(name in caplog.text for name in ("thinking_start", "thinking_end", "until_thinking", "harmony"))


@pytest.mark.parametrize(
    "text", ["", None, SHAPES["plain"][0], "You may give your reasoning for a call, if you think so."]
)
def test_a_plain_template_is_not_warned_of(text, caplog):
    with caplog.at_level(logging.INFO):
        assert choose_format("auto", text).name == "none"
    assert not caplog.records
