"""Calibration windows: token ids cut out of texts, all of one length, or one chunk of text each."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lm_eval_pruned.errors import DataError

logger = logging.getLogger(__name__)

CHUNK_CHARACTERS = 1024

Encode = Callable[[str], Sequence[int]]


def sample_windows(
    texts: Sequence[str], encode: Encode, *, samples: int, seqlen: int, seed: int
) -> Int[Tensor, "samples seqlen"]:
    """Cut windows at random positions out of random documents that are longer than a window.

    Documents may repeat. If no document is long enough, all are concatenated and cut into windows that do not overlap,
    of which `samples` are drawn, or as many as there are; a stream shorter than one window is the only window.

    Args:
        texts: the documents.
        encode: the tokenizer, text to token ids.
        samples: number of windows.
        seqlen: tokens per window.
        seed: seed of Python's generator.

    Raises:
        DataError: there is no text.

    Example:
        >>> windows = sample_windows(["abcdefgh"], lambda text: [ord(c) for c in text], samples=2, seqlen=3, seed=0)
        >>> ["".join(map(chr, row)) for row in windows.tolist()]
        ['def', 'cde']

    Reference: the sampler of arXiv 2306.11695 (C4, seed 0): same draws from Python's generator.
    Differs: the reference loops for ever if no document is long enough.
    """
    rng = random.Random(seed)
    short: dict[int, Sequence[int]] = {}
    windows: list[Sequence[int]] = []
    while len(windows) < samples and len(short) < len(texts):
        index = rng.randint(0, len(texts) - 1)
        if index in short:
            continue
        ids = encode(texts[index])
        if len(ids) <= seqlen:
            short[index] = ids
            continue
        offset = rng.randint(0, len(ids) - seqlen - 1)
        windows.append(ids[offset : offset + seqlen])
    if not windows:
        windows = _cut_stream([token for index in sorted(short) for token in short[index]], samples, seqlen, rng)
    return torch.tensor(windows, dtype=torch.int64)


def _cut_stream(stream: list[int], samples: int, seqlen: int, rng: random.Random) -> list[Sequence[int]]:
    if not stream:
        raise DataError("the calibration data holds no text: give a file or a data set with some")
    if len(stream) <= seqlen:
        logger.warning("the calibration text has only %d tokens: one window instead of %d", len(stream), samples)
        return [stream]
    starts = range(0, len(stream) - seqlen + 1, seqlen)
    chosen = rng.sample(starts, samples) if len(starts) > samples else starts
    logger.warning(
        "no calibration document is longer than %d tokens: using %d windows across documents, %d were asked for",
        seqlen,
        len(chosen),
        samples,
    )
    return [stream[start : start + seqlen] for start in chosen]


def sample_chunks(
    texts: Sequence[str], encode: Encode, *, samples: int, seed: int, context: int
) -> list[Int[Tensor, " tokens"]]:
    """Tokenize random chunks of at most 1024 characters; the windows have different lengths.

    Chunks are drawn without replacement; if there are fewer than `samples`, all are taken.

    Args:
        texts: the documents.
        encode: the tokenizer, text to token ids.
        samples: number of chunks.
        seed: seed of Python's generator.
        context: longest chunk, in tokens.

    Raises:
        DataError: there is no text.

    Reference: the calibration of ShortGPT in the code of arXiv 2510.22228 and 2604.25098 (PG-19, 100 chunks, seed 0).
    Differs: books are read in the order of the data set; the order of the reference changes between processes.
    """
    chunks = [chunk for text in texts for chunk in cut_chunks(text, characters=CHUNK_CHARACTERS)]
    if not chunks:
        raise DataError("the calibration data holds no text: give a file or a data set with some")
    if len(chunks) < samples:
        logger.warning("the calibration text makes only %d chunks, %d were asked for", len(chunks), samples)
    chosen = random.Random(seed).sample(chunks, min(samples, len(chunks)))
    return [torch.tensor(encode(chunk)[:context], dtype=torch.int64) for chunk in chosen]


def cut_chunks(text: str, *, characters: int) -> list[str]:
    r"""Join the lines of a text, with a space between them, into chunks of at most `characters` characters.

    Example:
        >>> cut_chunks("one two\n\n  three\nfour\n", characters=14)
        ['one two three', 'four']

    Reference: the code of arXiv 2510.22228, chunk for chunk where every line is shorter than a chunk.
    Differs: a longer line is cut into pieces; the reference drops its end, or keeps all of it as one chunk.
    """
    lines = (line.strip() for line in text.split("\n"))
    pieces = [line[start : start + characters] for line in lines for start in range(0, len(line), characters)]
    # The reference counts a space in front of the first line of a text, although it does not write one.
    chunks = [""]
    for piece in pieces:
        if len(chunks[-1]) + 1 + len(piece) <= characters:
            chunks[-1] += f" {piece}"
        else:
            chunks.append(piece)
    return [stripped for chunk in chunks if (stripped := chunk.strip())]
