"""Thinking formats: the texts that open, close and cut short a reasoning model's thinking."""

from __future__ import annotations

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
        forced_break: written before `forced_close`, as far as the thinking does not already end with it.
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
        written = next(
            size for size in range(len(self.forced_break), -1, -1) if thinking.endswith(self.forced_break[:size])
        )
        return self.forced_break[written:] + self.forced_close + self.forced_answer


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


def _add(name: str, families: str, opening: str, closing: str, *, rest: str = "", line: str = "") -> None:
    """Add a format that is closed without a word when the budget is exhausted.

    Args:
        name: name in the registry.
        families: the models that speak it.
        opening: text that opens the thinking.
        closing: text with which the model closes it.
        rest: text between `closing` and the answer.
        line: what the model writes between its thinking and `closing`.
    """
    FORMATS.add(
        name,
        ThinkingFormat(
            name=name,
            summary=f"{families}: {opening.strip()} ... {closing}, closed without a word",
            opening=opening,
            closings=(closing,),
            natural_close=closing + rest,
            forced_close=closing + rest,
            forced_break=line,
        ),
    )


# Line breaks are those of the models' own chat templates.
_add("deepseek-r1", "DeepSeek-R1 and its distillations", "<think>\n", "</think>", rest="\n\n", line="\n")
_add("think", "DeepSeek-V3.1 and later, GLM, Kimi-K2-Thinking and others without line breaks", "<think>", "</think>")
_add(
    "harmony",
    "gpt-oss",
    "<|channel|>analysis<|message|>",
    "<|end|>",
    rest="<|start|>assistant<|channel|>final<|message|>",
)
_add("mistral", "Magistral, Ministral 3 Reasoning", "[THINK]", "[/THINK]")
_add("kimi-vl", "Kimi-VL-Thinking", "◁think▷", "◁/think▷")
_add("seed-oss", "Seed-OSS", "<seed:think>", "</seed:think>", rest="\n")
_add("gemma4", "Gemma 4", "<|channel>thought\n", "<channel|>", line="\n")
_add(
    "command-a", "Command A Reasoning, Command R7B", "<|START_THINKING|>", "<|END_THINKING|>", rest="<|START_RESPONSE|>"
)
_add("exaone-deep", "EXAONE Deep", "<thought>\n", "</thought>", rest="\n\n", line="\n")
_add("apertus", "Apertus", "<|inner_prefix|>", "<|inner_suffix|>")
_add("apriel", "Apriel Thinker", "Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", rest="\n", line="\n")
_add("granite", "Granite 3.2", "Here is my thought process:", "Here is my response:", line="\n\n")

# The bundled model: its tokens are bytes, so a sentence would take more of them than an answer.
_add("tiny", "the bundled tiny-reasoner", "<think>\n", "</think>", rest="\n\n", line="\n")

# Models without markers: the text itself is the chain of thought, and all of it is graded. The forced text ends in the
# colon, as in s1: a blank belongs to the token that follows.
FORMATS.add(
    "none",
    ThinkingFormat(
        name="none",
        summary="no markers: the whole text is the chain of thought, forced with 'Final Answer:'",
        opening="",
        closings=(),
        natural_close=None,
        forced_close="",
        forced_break="\n\n",
        forced_answer="Final Answer:",
    ),
)


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
