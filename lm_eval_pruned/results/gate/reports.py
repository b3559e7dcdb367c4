"""Format the gate's findings as text, as a JUnit XML report, or as GitHub annotations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from xml.etree import ElementTree

from lm_eval_pruned.results.gate.findings import FAILING, Finding

# Neither a failure nor a pass.
_OPEN = frozenset({"undetectable", "undecided"})
# Characters that XML 1.0 cannot hold, not even escaped.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(findings: Sequence[Finding]) -> str:
    """Return one line per finding and a summary.

    Example:
        >>> print(text([Finding(status="fine", name="m · dense · t", message="+0.0 points")]), end="")
        FINE          m · dense · t: +0.0 points
        passed: 1 fine
    """
    lines = [f"{finding.status.upper():<13} {finding.name}: {finding.message}" for finding in findings]
    return "".join(f"{line}\n" for line in (*lines, summary(findings)))


def summary(findings: Sequence[Finding]) -> str:
    """Return the verdict and the number of findings of each status."""
    counts = Counter(finding.status for finding in findings)
    verdict = "failed" if FAILING & counts.keys() else "undecided" if counts["undecided"] else "passed"
    return f"{verdict}: " + ", ".join(f"{count} {status}" for status, count in counts.items())


def junit(findings: Sequence[Finding]) -> str:
    """Return a JUnit report in which failing findings are failures, and what cannot be told yet is skipped."""
    failures = sum(finding.status in FAILING for finding in findings)
    skipped = sum(finding.status in _OPEN for finding in findings)
    counts = {"tests": str(len(findings)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "lm-eval-pruned check", **counts})
    for finding in findings:
        name, message = (_UNPRINTABLE.sub("?", given) for given in (finding.name, finding.message))
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"lm-eval-pruned.{finding.status}", "name": name}
        )
        if finding.status in FAILING:
            ElementTree.SubElement(case, "failure", {"type": finding.status, "message": message}).text = message
        elif finding.status in _OPEN:
            ElementTree.SubElement(case, "skipped", {"message": message})
        else:
            ElementTree.SubElement(case, "system-out").text = message
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def github(findings: Sequence[Finding]) -> str:
    """Return workflow commands: errors for failing findings, warnings for what cannot be told, a notice as summary.

    Example:
        >>> print(github([Finding(status="missing", name="a:b", message="100% gone")]), end="")
        ::error title=missing%3A a%3Ab::100%25 gone
        ::notice title=lm-eval-pruned check::failed: 1 missing
    """
    lines = [
        f"::{'error' if finding.status in FAILING else 'warning'} "
        f"title={_property(f'{finding.status}: {finding.name}')}::{_data(finding.message)}"
        for finding in findings
        if finding.status not in ("fine", "equivalent")
    ]
    return "".join(f"{line}\n" for line in (*lines, f"::notice title=lm-eval-pruned check::{_data(summary(findings))}"))


FORMATS: Mapping[str, Callable[[Sequence[Finding]], str]] = MappingProxyType(
    {"text": text, "junit": junit, "github": github}
)


def _data(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
