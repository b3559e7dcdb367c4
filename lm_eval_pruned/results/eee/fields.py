"""Objects of a record, in which a field that is not known is left out."""

from __future__ import annotations


def known(**fields: object) -> dict[str, object]:
    """Return the fields that have a value, in their order: not None, and not empty.

    Example:
        >>> known(name="transformers", version="", seeds=0, details={}, limit=None)
        {'name': 'transformers', 'seeds': 0}
    """
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}
