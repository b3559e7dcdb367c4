"""A budgeted prompt is one user turn: wrapped in the chat template where the harness has not done so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Render = Callable[[Sequence[Mapping[str, str]]], str]

_SENTINEL = "0b1f8e60-question"


def as_user_turn(prompt: str, render: Render) -> str:
    """Return `prompt` as one user turn, unchanged where it already went through the template.

    Every rendering ends with what the template writes behind the last user turn; a text that contains it was rendered.

    Example:
        >>> render = lambda turns: f"<user>{turns[0]['content']}</user><assistant>"
        >>> as_user_turn("1+1?", render)
        '<user>1+1?</user><assistant>'
        >>> as_user_turn(as_user_turn("1+1?", render), render)
        '<user>1+1?</user><assistant>'
    """
    behind = render([{"role": "user", "content": _SENTINEL}]).rpartition(_SENTINEL)[2]
    if behind.strip() and behind in prompt:
        return prompt
    return render([{"role": "user", "content": prompt}])
