"""Thinking formats: the texts that open, close and cut short a reasoning model's thinking."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from lm_eval_pruned.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingFormat:
    """The markers of one family of reasoning models.

    Thinking ends at any of `closings`, at an end-of-sequence token, or at the budget.

    Attributes:
        name: name in the registry.
        summary: one line for `lm-eval-pruned list`.
        opening: written after the prompt, unless the chat template has written it.
        closings: texts that end the thinking.
        natural_close: written in place of the closing or the end-of-sequence token that ended the thinking; None if the
            answer is part of the thinking.
        forced_close: written when the budget is exhausted.
        forced_break: written before `forced_close`, unless the thinking already ends with it.
        forced_answer: written after `forced_close`; it is the beginning of the answer.
    """

    name: str
    summary: str
    opening: str
    closings: tuple[str, ...]
    natural_close: str | None
    forced_close: str
    forced_break: str = ""
    forced_answer: str = ""

    def close(self, thinking: str, *, forced: bool) -> str | None:
        r"""Return the text to write after `thinking`, or None if it contains the answer.

        Example:
            >>> FORMATS["s1"].close("So x = 2", forced=True)
            '\n<|im_start|>answer\nFinal Answer:'
            >>> FORMATS["s1"].close("So x = 2\n", forced=True)
            '<|im_start|>answer\nFinal Answer:'
        """
        if not forced:
            return self.natural_close
        needs_break = bool(self.forced_break) and not thinking.endswith(self.forced_break)
        return (self.forced_break if needs_break else "") + self.forced_close + self.forced_answer


FORMATS: Registry[ThinkingFormat] = Registry("thinking")

# Qwen3: its authors document this sentence for an exhausted thinking budget (Qwen3 report, arXiv 2505.09388, 4.3).
FORMATS.add(
    "qwen3",
    ThinkingFormat(
        name="qwen3",
        summary="<think> ... </think>, with Qwen3's own sentence when the budget is exhausted",
        opening="<think>\n",
        closings=("</think>",),
        natural_close="</think>\n\n",
        forced_close=(
            "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly "
            "now.\n</think>\n\n"
        ),
    ),
)

# s1: budget forcing as published (arXiv 2501.19393), with its literal markers.
FORMATS.add(
    "s1",
    ThinkingFormat(
        name="s1",
        summary="<|im_start|>think ... <|im_start|>answer, forced with 'Final Answer:'",
        opening="<|im_start|>think",
        closings=("<|im_start|>",),
        natural_close="<|im_start|>answer",
        forced_close="<|im_start|>answer\n",
        forced_break="\n",
        forced_answer="Final Answer:",
    ),
)

# DeepSeek-R1 and its distillations (arXiv 2501.12948): the markers of Qwen3 without a sentence.
FORMATS.add(
    "deepseek-r1",
    ThinkingFormat(
        name="deepseek-r1",
        summary="<think> ... </think>, closed without a word when the budget is exhausted",
        opening="<think>\n",
        closings=("</think>",),
        natural_close="</think>\n\n",
        forced_close="</think>\n\n",
        forced_break="\n",
    ),
)

# The bundled model: its tokens are bytes, so a sentence would take more of them than an answer.
FORMATS.add(
    "tiny",
    replace(
        FORMATS["deepseek-r1"],
        name="tiny",
        summary="the bundled tiny-reasoner: <think> ... </think>, closed without a word",
    ),
)

# Models without markers: the text itself is the chain of thought, and all of it is graded.
FORMATS.add(
    "none",
    ThinkingFormat(
        name="none",
        summary="no markers: the whole text is the chain of thought, forced with 'Final Answer:'",
        opening="",
        closings=(),
        natural_close=None,
        forced_close="\n\n",
        forced_answer="Final Answer: ",
    ),
)


def choose_format(thinking: str, chat_template: object) -> ThinkingFormat:
    """Return the format named `thinking`; `auto` detects it from the chat template, or from a set of templates."""
    if thinking != "auto":
        return FORMATS[thinking]
    if not isinstance(chat_template, str):
        chat_template = json.dumps(chat_template, ensure_ascii=False)
    return detect_format(chat_template)


def detect_format(chat_template: str | None) -> ThinkingFormat:
    """Detect the format from the markers in a chat template.

    Example:
        >>> detect_format("... <think> ... enable_thinking ...").name
        'qwen3'
        >>> detect_format("<|im_start|>user").name
        'none'
    """
    template = chat_template or ""
    if "tiny-reasoner" in template:
        return FORMATS["tiny"]
    if "<think>" not in template and "</think>" not in template:
        return FORMATS["none"]
    return FORMATS["deepseek-r1" if "<｜Assistant｜>" in template else "qwen3"]


def with_markers(
    chosen: ThinkingFormat,
    *,
    opening: str | None = None,
    ending: str | None = None,
    closings: tuple[str, ...] = (),
) -> ThinkingFormat:
    """Return `chosen` with s1's `thinking_start`, `thinking_end` and `until_thinking` in place of its own markers.

    Args:
        chosen: the thinking format to change.
        opening: text that opens the thinking; None for the format's own.
        ending: text that closes it; None for the format's own. The forced close is then s1's with this text.
        closings: texts that the model closes its thinking with; () for the format's own.
    """
    changed = chosen if opening is None else replace(chosen, opening=opening)
    if ending is not None:
        s1 = FORMATS["s1"]
        changed = replace(
            changed,
            natural_close=ending,
            forced_close=f"{ending}\n",
            forced_break=s1.forced_break,
            forced_answer=s1.forced_answer,
        )
    return replace(changed, closings=closings) if closings else changed
