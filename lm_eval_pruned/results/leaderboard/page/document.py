"""Render the page: an HTML template filled with style, scripts and data, where data cannot become markup or script."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from string import Template

# Concatenated into one scope, definitions before their uses.
SCRIPTS = (
    *("data.js", "numbers.js", "tooltip.js", "names.js", "state.js", "columns.js", "table.js", "plot.js", "charts.js"),
    *("blocks.js", "maps.js", "questions.js", "page.js"),
)

# JSON has these characters only inside strings, where an escape means the same.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def render_page(content: Mapping[str, object]) -> str:
    """Return the HTML file that shows `content`.

    Its Content-Security-Policy allows only the script with our hash, and no loading at all: a model's text can neither
    end its block of JSON nor run, even if it were put into the page as markup.
    """
    script = "\n".join(_read(name) for name in SCRIPTS)
    return Template(_read("page.html")).substitute(
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        style=_read("page.css"),
        data=escape_json(content),
        script=script,
    )


def escape_json(content: Mapping[str, object]) -> str:
    r"""Return JSON without markup characters, for a data block inside HTML.

    Example:
        >>> escape_json({"response": "</script>"})
        '{"response":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
