"""The page as a document: a template with style, scripts and data put in, none of which can become another."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from string import Template

# One scope in this order: what is used stands before its use.
SCRIPTS = ("data.js", "state.js", "table.js", "plot.js", "charts.js", "blocks.js", "questions.js", "page.js")

# JSON has none of these outside its strings, and inside them an escape means the same.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def page(content: Mapping[str, object]) -> str:
    """Return the HTML file that shows this content.

    Its policy lets the browser run the one script with the hash of ours and load nothing at all: text of a model can
    neither end its block of JSON nor, were it ever put into the page as markup, run.
    """
    script = "\n".join(_read(name) for name in SCRIPTS)
    return Template(_read("page.html")).substitute(
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        style=_read("page.css"),
        data=embedded(content),
        script=script,
    )


def embedded(content: Mapping[str, object]) -> str:
    r"""Return JSON that holds no markup, for a block of data inside HTML.

    Example:
        >>> embedded({"response": "</script>"})
        '{"response":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
