"""A budgeted prompt is one user turn: wrapped in the chat template where the harness has not done so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jinja2 import TemplateError

from lm_eval_pruned.errors import DataError

Render = Callable[[Sequence[Mapping[str, str]]], str]

# A template is a program of somebody else's: it may break off by itself, or divide by zero.
_TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

_ADVICE = "mend the template of the checkpoint, or leave prompts bare with auto_chat_template=False"

_SENTINEL = "0b1f8e60-question"


def as_user_turn(prompt: str, render: Render) -> str:
    """Return `prompt` as one user turn, unchanged where it already went through the template.

    Every rendering ends with what the template writes behind the last user turn; a text that contains it was rendered.

    Raises:
        DataError: the template fails, or does not pass on what the user says.

    Example:
        >>> render = lambda turns: f"<user>{turns[0]['content']}</user><assistant>"
        >>> as_user_turn("1+1?", render)
        '<user>1+1?</user><assistant>'
        >>> as_user_turn(as_user_turn("1+1?", render), render)
        '<user>1+1?</user><assistant>'
    """
    before, found, behind = _rendered(_SENTINEL, render).rpartition(_SENTINEL)
    if not found:
        raise DataError(
            f"the chat template leaves out what the user says and writes {before + behind!r:.80}: {_ADVICE}"
        )
    # Of a template that writes nothing behind the turn, what stands before it must do.
    is_rendered = behind in prompt if behind.strip() else bool(before.strip()) and prompt.startswith(before)
    if is_rendered:
        return prompt
    return _rendered(prompt, render)


def _rendered(prompt: str, render: Render) -> str:
    try:
        return render([{"role": "user", "content": prompt}])
    except _TEMPLATE_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"the chat template cannot render a user turn ({reason}): {_ADVICE}") from error
