"""Thinking formats: forced texts, and detection from chat templates."""

from __future__ import annotations

import pytest

from lm_eval_pruned.errors import UnknownNameError
from lm_eval_pruned.grading.extract.extract import extract
from lm_eval_pruned.reasoning.detection import choose_format, detect_format
from lm_eval_pruned.reasoning.formats import FORMATS, with_markers


def test_forced_texts_are_the_published_ones():
    # From s1's code (arXiv 2501.19393) and the Qwen3 documentation.
    assert FORMATS["s1"].close("so x = 2", forced=True) == "\n<|im_start|>answer\nFinal Answer:"
    assert FORMATS["s1"].close("so x = 2\n", forced=True) == "<|im_start|>answer\nFinal Answer:"
    assert FORMATS["s1"].close("so x = 2", forced=False) == "<|im_start|>answer"
    assert FORMATS["qwen3"].close("so x = 2\n", forced=True) == (
        "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now."
        "\n</think>\n\n"
    )
    assert FORMATS["qwen3"].close("so x = 2\n", forced=False) == "</think>\n\n"
    assert FORMATS["none"].close("so x = 2", forced=True) == "\n\nFinal Answer:"
    assert FORMATS["none"].close("so x = 2", forced=False) is None
    assert FORMATS["s1"].opening == "<|im_start|>think"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_forced_close(name):
    thinking = FORMATS[name]
    assert thinking.name == name
    forced = thinking.close("anything", forced=True)
    assert forced
    assert forced.endswith(thinking.forced_answer)
    assert all(closing not in thinking.opening.replace("<|im_start|>think", "") for closing in thinking.closings)


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'qwen3'"):
        FORMATS["qwen"]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (None, "none"),
        ("{{ '<|im_start|>' + message['role'] }}", "none"),
        ("{% if enable_thinking is false %}<think>\n\n</think>{% endif %}", "qwen3"),
        ("{{'<｜Assistant｜><think>\\n'}}", "deepseek-r1"),
    ],
)
def test_the_format_is_detected_from_the_template(template, name):
    assert detect_format(template).name == name


def test_markers_given_as_kwargs_follow_s1():
    own = with_markers(FORMATS["qwen3"], opening="<a>", ending="<b>", closings=("<c>",))
    assert (own.opening, own.closings) == ("<a>", ("<c>",))
    assert own.close("t", forced=True) == "\n<b>\nFinal Answer:"
    assert own.close("t", forced=False) == "<b>"
    assert with_markers(FORMATS["qwen3"]) == FORMATS["qwen3"]


def test_the_format_is_detected_from_a_set_of_templates():
    template = "{{ '<｜Assistant｜><think>' }}"
    for given in (template, {"default": template}, [{"name": "default", "template": template}]):
        assert choose_format("auto", given).name == "deepseek-r1"


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.natural_close and name != "granite"])
def test_the_grader_skips_the_thinking_of_every_format(name):
    one = FORMATS[name]
    for forced in (True, False):
        response = f"{one.opening}\\boxed{{1}}{one.close('x', forced=forced)} \\boxed{{2}}"
        assert extract(response) == "2"


def test_a_break_is_completed_and_not_repeated():
    for thinking, close in {"so": "\n\n", "so\n": "\n", "so\n\n": "", "": "\n\n"}.items():
        assert FORMATS["none"].close(thinking, forced=True) == close + "Final Answer:"
