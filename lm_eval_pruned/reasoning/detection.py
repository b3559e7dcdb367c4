"""Detection: choose the thinking format from the text of a chat template, and from what it writes for a turn."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from jinja2 import TemplateError

from lm_eval_pruned.reasoning.formats import FORMATS, ThinkingFormat

logger = logging.getLogger(__name__)

Render = Callable[[Sequence[Mapping[str, str]]], str]

# A template is a program that comes with the checkpoint: it may raise an error by itself, or divide by zero.
TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# Texts that tell a format, the first that occurs in a template decides.
_SIGNS = {
    "tiny-reasoner": "tiny",
    "<|channel|>analysis": "harmony",
    "[THINK]": "mistral",
    "◁think▷": "kimi-vl",
    "<seed:think>": "seed-oss",
    "<|channel>thought": "gemma4",
    "<|START_THINKING|>": "command-a",
    "<|inner_prefix|>": "apertus",
    "<thought>": "exaone-deep",
    "[BEGIN FINAL RESPONSE]": "apriel",
    "Here is my thought process:": "granite",
}

# "<think>" and a line break, as a template spells it.
_OPENING_LINE = re.compile(r"<think>(?:\\n|\n)")
# Reasoning in a marker, a name, a heading, or a statement of the template: in prose it says nothing about the model.
_HINT = re.compile(
    r"""[<\[◁][^<>\[\]◁▷\s]*(?:reason|think|thought|channel)  |  [_.'"](?:reason|think|thought)
    |  (?:reason|think|thought)(?:ing|s)?[_:]  |  \[[A-Z_/ ]*(?-i:REASON|THINK|THOUGHT)
    |  \{[%{][^%}'"]*\b(?:reasoning|thinking|thoughts?)\b""",
    re.IGNORECASE | re.VERBOSE,
)
# The first token-like text of a closing: <...>, [...] or the triangles of Kimi.
_TAG = re.compile(r"<[^<>\s][^<>]*>|\[[^\[\]]+\]|◁[^◁▷]+▷")

_QUESTION, _THINKING, _ANSWER = "0b1f8e60-question", "0b1f8e60-thinking", "0b1f8e60-answer"
# Templates read the thinking of a turn from one of these fields.
_FIELDS = ("reasoning_content", "reasoning", "thinking")


class Written(NamedTuple):
    """What a chat template writes before the thinking of a turn, and between the thinking and the answer."""

    opening: str
    between: str


def choose_format(thinking: str, chat_template: object, render: Render | None = None) -> ThinkingFormat:
    """Return the format named `thinking`; `auto` detects it from the chat template, or from a set of templates.

    Args:
        thinking: a name in `FORMATS`, or `auto`.
        chat_template: text of the template, or several by name.
        render: renders a chat with it: markers and line breaks are then read from what it writes, where it writes them.
    """
    if thinking != "auto":
        return FORMATS[thinking]
    if not isinstance(chat_template, str):
        chat_template = json.dumps(chat_template, ensure_ascii=False) if chat_template else ""
    detected = detect_format(chat_template)
    if render is not None and chat_template and detected.name != "tiny" and (written := read_written(render)):
        return _as_written(detected, written)
    if detected.name == "none" and _HINT.search(chat_template):
        logger.warning(
            "the chat template speaks of reasoning, but its markers are unknown: thinking=none takes the whole text "
            "for the chain of thought. Give thinking=%s, or the markers as generation kwargs thinking_start, "
            "thinking_end and until_thinking",
            ", ".join(FORMATS),
        )
    return detected


def detect_format(chat_template: str | None) -> ThinkingFormat:
    r"""Detect the format from the markers in the text of a chat template.

    Example:
        >>> detect_format(r"{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}").name
        'qwen3'
        >>> detect_format("<|start|>assistant<|channel|>analysis<|message|>").name
        'harmony'
        >>> detect_format("<|im_start|>user").name
        'none'
    """
    template = chat_template or ""
    if name := next((name for sign, name in _SIGNS.items() if sign in template), ""):
        return FORMATS[name]
    if "<think>" not in template and "</think>" not in template:
        return FORMATS["none"]
    if "<｜Assistant｜>" in template and (_OPENING_LINE.search(template) or "thinking" not in template):
        return FORMATS["deepseek-r1"]
    return FORMATS["qwen3" if _OPENING_LINE.search(template) else "think"]


def read_written(render: Render) -> Written | None:
    r"""Return what a template writes around the thinking of the last turn, or None if it leaves the thinking out.

    Example:
        >>> def render(chat):
        ...     turns = [f"<|{turn['role']}|>{turn['content']}" for turn in chat if turn["role"] == "user"]
        ...     turns += [f"<|bot|><r>{turn['thinking']}</r>\n{turn['content']}" for turn in chat if "thinking" in turn]
        ...     return "".join(turns) + ("" if "thinking" in chat[-1] else "<|bot|>")
        >>> read_written(render)
        Written(opening='<r>', between='</r>\n')
    """
    user = {"role": "user", "content": _QUESTION}
    reasoned = {"role": "assistant", "content": _ANSWER, **dict.fromkeys(_FIELDS, _THINKING)}
    try:
        prompt, turn = (render(chat).rpartition(_QUESTION)[2] for chat in ([user], [user, reasoned]))
    except TEMPLATE_ERRORS:
        return None
    before, thinking, after = turn.partition(_THINKING)
    between, answer, _ = after.partition(_ANSWER)
    if not (thinking and answer and between.strip()):
        return None
    # A prompt may already open the thinking; one that also closes it may part from the turn inside a marker.
    shared = next((n for n, pair in enumerate(zip(prompt, before, strict=False)) if len({*pair}) > 1), len(prompt))
    inside = before.rfind("<", 0, shared)
    return Written(before[inside if before.rfind(">", 0, shared) < inside else shared :], between)


def _as_written(detected: ThinkingFormat, written: Written) -> ThinkingFormat:
    """Return a format with the markers and line breaks that the template writes."""
    between = written.between.lstrip()
    line = written.between.removesuffix(between)
    tag = _TAG.match(between)
    closing = tag.group() if tag else between.strip()
    if closing not in detected.closings:
        name, summary = "template", f"markers of the chat template: {written.opening.strip()} ... {closing}"
        detected = replace(FORMATS["think"], name=name, summary=summary, opening=written.opening)
    elif detected.opening.strip() in written.opening:
        detected = replace(detected, opening=written.opening)
    if detected.name == "qwen3":
        sentence = detected.forced_close.partition("\n</think>")[0]
        return replace(detected, natural_close=between, forced_close=sentence + line + between)
    return replace(detected, closings=(closing,), natural_close=between, forced_close=between, forced_break=line)
