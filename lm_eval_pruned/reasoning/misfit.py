"""Misfit: signs, in the responses of a run, that the model does not speak the thinking format that was chosen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.formats import FORMATS, ThinkingFormat

_BY_HAND = "or give the markers as generation kwargs thinking_start, thinking_end and until_thinking"

# Markers that end any turn tell no format.
_COMMON = ("", "<|im_start|>", "<|end|>")


def describe_misfit(completions: Sequence[Completion], markers: ThinkingFormat) -> str | None:
    """Return what speaks against a thinking format, with counts and advice, or None if nothing does.

    A format does not fit where at least half of the responses hold a marker of another format, where most thoughts
    that no budget has cut end at an end-of-sequence token and not with its closing, or where most answers are empty.

    Args:
        completions: the responses of a run, of one prompt format.
        markers: the thinking format they were generated with.

    Example:
        >>> from lm_eval_pruned.reasoning.completion import Answer, Thinking
        >>> one = Completion.build(
        ...     "<think>5</think>5", thinking=Thinking("<think>5</think>5", 9, "eos"), answer=Answer("", 0, "none")
        ... )
        >>> describe_misfit([one, one], FORMATS["none"]).partition(", or ")[0]
        "2 of 2 responses hold '<think>', which thinking=none does not know: give thinking=deepseek-r1, qwen3 or think"
    """
    total = len(completions)
    if total < 2:
        return None
    own = {markers.opening.strip(), *markers.closings}
    others = Counter(
        marker
        for completion in completions
        for marker in _MARKERS
        if marker not in own and (marker in completion.thinking or marker in completion.answer)
    )
    for marker, seen in sorted(others.items(), key=lambda item: -item[1])[:1]:
        if 2 * seen >= total:
            return (
                f"{seen} of {total} responses hold {marker!r}, which thinking={markers.name} does not know: give "
                f"thinking={_MARKERS[marker]}, {_BY_HAND}"
            )
    if not markers.closings:
        return None
    finished = Counter(completion.thinking_finish for completion in completions)
    boxed = sum(one.thinking_finish == "eos" and "\\boxed{" in one.thinking for one in completions)
    empty = sum(not one.answer.strip() for one in completions)
    most_end = finished["eos"] > finished["closed"] and 4 * finished["eos"] >= total
    if not most_end and 2 * empty <= total:
        return None
    return (
        f"of {total} thoughts {finished['closed']} were closed with {markers.closings[0]!r}, {finished['budget']} were "
        f"cut at the budget and {finished['eos']} ended at an end-of-sequence token, {boxed} of these with a \\boxed "
        f"answer in them; {empty} answers are empty. Either the model does not speak thinking={markers.name}: give "
        f"thinking=none or another format, {_BY_HAND}. Or it does, and pruning has damaged it: its dense run tells"
    )


def describe_closed(openings: Sequence[str | None]) -> str | None:
    """Return a sentence on prompts whose template has closed the thinking (an opening of None), or None without any."""
    if None not in openings:
        return None
    return (
        f"{openings.count(None)} of {len(openings)} prompts end with closed thinking: their answers are the same under "
        "every budget. If the model is to think, tell its template, by chat_template_args in --model_args such as "
        '{"enable_thinking": true} or {"thinking": true}'
    )


def _name_markers() -> Mapping[str, str]:
    """Map each marker to the formats that have it."""
    names: dict[str, list[str]] = defaultdict(list)
    for one in FORMATS.values():
        for marker in (one.opening.strip(), *one.closings):
            if marker not in _COMMON and one.name != "tiny":
                names[marker].append(one.name)
    return {marker: " or ".join(filter(None, [", ".join(some[:-1]), some[-1]])) for marker, some in names.items()}


_MARKERS = _name_markers()
