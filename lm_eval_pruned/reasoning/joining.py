"""Joining: the token ids of a forced text as the tokenizer writes them inside a longer text."""

from __future__ import annotations

from itertools import count

from lm_eval_pruned.reasoning.requests import Backend


def encode_inside(backend: Backend, text: str) -> list[int]:
    """Return the token ids that `text` has between other texts.

    At the start of a text a sentencepiece tokenizer adds a blank, and at its end a GPT-2 tokenizer makes one token of
    two line breaks that it keeps apart before a word: neither occurs where a model thinks and answers. If `text` has no
    tokens of its own there, they are those of `text` alone.
    """
    # Letters are never merged with a line break, and a blank begins the token of a word.
    before = "a" if text[:1].isspace() else "\n"
    after = "a" if text[-1:].isspace() else " a"
    ids = backend.encode(before + text + after, special=False)
    start, end = (_length_of(backend, ids, part) for part in (before, before + text))
    return backend.encode(text, special=False) if start is None or end is None else ids[start:end]


def _length_of(backend: Backend, ids: list[int], text: str) -> int | None:
    """Return how many of the first `ids` write `text`, or None if a token crosses its end."""
    written = (backend.decode(ids[:length]) for length in range(1, len(ids) + 1))
    return next((length for length, one in zip(count(1), written, strict=False) if one == text), None)
