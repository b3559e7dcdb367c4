"""Chat templates: wrap a budgeted prompt as one user turn, unless the harness has done so."""

from __future__ import annotations

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.reasoning.detection import TEMPLATE_ERRORS, Render

_ADVICE = "mend the template of the checkpoint, or leave prompts bare with auto_chat_template=False"

_SENTINEL = "0b1f8e60-question"


def as_user_turn(prompt: str, render: Render) -> str:
    """Return `prompt` as one user turn, unchanged if it has been rendered by the template already.

    Every rendered prompt contains the text that the template writes after the last user turn, which tells it apart.

    Raises:
        DataError: the template fails, or does not pass on what the user says.

    Example:
        >>> render = lambda turns: f"<user>{turns[0]['content']}</user><assistant>"
        >>> as_user_turn("1+1?", render)
        '<user>1+1?</user><assistant>'
        >>> as_user_turn(as_user_turn("1+1?", render), render)
        '<user>1+1?</user><assistant>'
    """
    before, sentinel, after = _render_turn(_SENTINEL, render).rpartition(_SENTINEL)
    if not sentinel:
        raise DataError(f"the chat template leaves out what the user says and writes {before + after!r:.80}: {_ADVICE}")
    # If the template writes nothing after the turn, the text before it has to tell.
    is_rendered = after in prompt if after.strip() else bool(before.strip()) and prompt.startswith(before)
    if is_rendered:
        return prompt
    return _render_turn(prompt, render)


def before_question(text: str) -> str:
    r"""Return an instruction with a blank line after it, unless it ends in white space of its own.

    Example:
        >>> before_question("Think in French."), before_question("Q: "), before_question("")
        ('Think in French.\n\n', 'Q: ', '')
    """
    return f"{text}\n\n" if text and not text[-1].isspace() else text


def _render_turn(prompt: str, render: Render) -> str:
    try:
        return render([{"role": "user", "content": prompt}])
    except TEMPLATE_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"the chat template cannot render a user turn ({reason}): {_ADVICE}") from error
