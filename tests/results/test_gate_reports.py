"""Formats of the gate's findings: text, JUnit XML, GitHub annotations."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from lm_eval_pruned.results.gate.check import Finding
from lm_eval_pruned.results.gate.reports import FORMATS, github, junit, text

FINDINGS = [
    Finding(status="sparsity", name="m · wanda, 0.2", message="0.1 and\n0.2 <now> at 100%"),
    Finding(status="regression", name="m · wanda: t_16", message="-10 points"),
    Finding(status="undetectable", name="m · dense", message="\x00 \ud800 -3 points"),
    Finding(status="fine", name="m · owl", message="+0 points"),
    Finding(status="missing", name="m", message="gone"),
]


def test_text_has_a_line_a_finding_and_a_verdict():
    lines = text(FINDINGS[1:]).splitlines()
    assert lines[0] == "REGRESSION    m · wanda: t_16: -10 points"
    assert lines[-1] == "failed: 1 regression, 1 undetectable, 1 fine, 1 missing"
    assert text(FINDINGS[2:4]).splitlines()[-1] == "passed: 1 undetectable, 1 fine"


def test_junit_counts_and_escapes():
    root = ElementTree.fromstring(junit(FINDINGS).encode())
    (suite,) = root
    for element in (root, suite):
        counts = {name: element.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "5", "failures": "3", "errors": "0", "skipped": "1"}
    assert [case.attrib["name"] for case in suite] == [found.name for found in FINDINGS]
    assert [[child.tag for child in case] for case in suite] == [
        ["failure"], ["failure"], ["skipped"], ["system-out"], ["failure"],
    ]  # fmt: skip
    assert suite[0][0].text == FINDINGS[0].message
    assert suite[2][0].attrib["message"] == "? ? -3 points"


def test_github_annotates_what_is_not_fine():
    lines = github(FINDINGS).splitlines()
    assert len(lines) == 5
    assert lines[0] == "::error title=sparsity%3A m · wanda%2C 0.2::0.1 and%0A0.2 <now> at 100%25"
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::warning", "::error", "::notice"]


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_found_is_a_report_too(name):
    assert FORMATS[name]([])
