"""Traces as token ids: responses tokenized after their prompts, cut at the model's context."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.models.trace_files import Trace

logger = logging.getLogger(__name__)

# Tokenizes a text as the harness does, or with `add_special_tokens=False` as a part of a longer one.
Encode = Callable[..., list[int]]


def harness_encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """Return a function that tokenizes as the harness does: nothing is added to a text that begins with a bos token."""

    def encode(text: str, **options: bool) -> list[int]:
        begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        return list(tokenizer.encode(text, **({"add_special_tokens": False} if begun else {}) | options))

    return encode


def tokenize_traces(
    traces: Sequence[Trace], tokenizer: PreTrainedTokenizerBase, *, context: int, vocabulary: int
) -> list[tuple[Trace, TokenTrace]]:
    """Tokenize traces; what goes beyond the context is cut, and a trace without room for one token is left out.

    Args:
        traces: the traces as text.
        tokenizer: that of the model that reads them.
        context: the model's context, in tokens.
        vocabulary: number of tokens that the model has an embedding for.

    Raises:
        DataError: none is left, or a token has no embedding.
    """
    encode = harness_encoder(tokenizer)
    found = [_tokenize(trace, tokenizer, encode) for trace in traces]
    largest = max(max(one.ids, default=0) for one in found)
    if largest >= vocabulary:
        raise DataError(
            f"--traces hold token id {largest}, but the model knows 0 to {vocabulary - 1}: they were written with "
            "another tokenizer, so give traces of this model"
        )
    long = sum(len(one.ids) > context for one in found)
    if long:
        logger.warning("%d of %d traces are longer than the context of %d tokens: cut there", long, len(found), context)
    cut = [
        (trace, TokenTrace(question=one.question, ids=one.ids[:context], start=one.start, thinking=one.thinking))
        for trace, one in zip(traces, found, strict=True)
        if one.start < min(context, len(one.ids))
    ]
    if not cut:
        raise DataError(f"--traces hold no response that begins within the context of {context} tokens")
    return cut


def _tokenize(trace: Trace, tokenizer: PreTrainedTokenizerBase, encode: Encode) -> TokenTrace:
    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    response = trace.thinking + trace.rest
    if isinstance(trace.prompt, str):
        prompt = encode(trace.prompt)
        whole = encode(trace.prompt + response)
    else:
        prompt = list(trace.prompt)
        whole = encode(decode(prompt) + response, add_special_tokens=False)
    # The model continued the tokens of the prompt, also where a tokenizer would merge the first of its own with them.
    joined = whole[: len(prompt)] == prompt
    ids = whole[len(prompt) :] if joined else encode(response, add_special_tokens=False)
    # A response to an empty prompt is read from its second token on.
    start = max(len(prompt), 1)
    return TokenTrace(
        question=trace.question,
        ids=(*prompt, *ids),
        start=start,
        thinking=max(0, _count_tokens(ids, len(trace.thinking), decode) - start + len(prompt)),
    )


def _count_tokens(ids: Sequence[int], characters: int, decode: Callable[[Sequence[int]], str]) -> int:
    """Return the smallest number of first tokens that write at least so many characters."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(decode(ids[:middle])) < characters:
            low = middle + 1
        else:
            high = middle
    return low
