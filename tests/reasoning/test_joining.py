"""Forced texts are encoded as the tokenizers of real models write them inside a text, and end where a token ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.joining import encode_inside
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.requests import Row
from lm_eval_pruned.reasoning.settings import IGNORE_TEXT, BudgetSettings

# The rules by which these tokenizers split a text before merging, and how many digits a token holds.
_SPLITS = {
    "llama-3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
}
TOKENIZERS = ("gpt-2", *_SPLITS, "sentencepiece", "gemma")
ANSWERS = (" 5", " \\boxed{5}", " $x$", " the", "5")
CLOSES = {(name, forced): one.close("x", forced=forced) for name, one in FORMATS.items() for forced in (True, False)}


class Encoder:
    """A backend that tokenizes."""

    context = 1000

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str, *, special: bool) -> list[int]:
        del special
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def run(self, rows: Sequence[Row]) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module", params=TOKENIZERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """A tokenizer whose merges were learnt from the forced texts and what may follow them."""
    tokenizer = Tokenizer(models.BPE())
    pieces = request.param in ("sentencepiece", "gemma")
    if pieces:
        # No merge crosses a line break, a digit or a blank.
        lines = pre_tokenizers.Split(Regex(r"\n"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [lines, pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Metaspace(prepend_scheme="never")]
        )
        alphabet = [*map(chr, range(33, 127)), *"\n▁◁▷"]
    else:
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=request.param == "gpt-2")
        split = [pre_tokenizers.Split(Regex(_SPLITS[request.param]), "isolated")] if request.param in _SPLITS else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytewise])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [f"word.{close or ''}{answer}\n\n\n\nThe {answer}: \n\n" for close in CLOSES.values() for answer in ANSWERS]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    if pieces:
        # Then blanks are replaced as in Llama 2, which also writes one before the text, and in Gemma.
        begins = [normalizers.Prepend("▁")] if request.param == "sentencepiece" else []
        tokenizer.normalizer = normalizers.Sequence([*begins, normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        strip = [decoders.Strip(" ", 1, 0)] if begins else []
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), *strip])
    return Encoder(tokenizer)


@pytest.mark.parametrize(("name", "forced"), [key for key, close in CLOSES.items() if close])
def test_a_closing_text_ends_where_a_token_ends(encoder, name, forced):
    """What the model would write next begins with a token of its own, as if it had written the closing itself."""
    close = CLOSES[name, forced]
    before = "a" if close[0].isspace() else "\n"
    begun = encoder.encode(before, special=False)
    ids = [*begun, *encode_inside(encoder, close)]
    assert encoder.decode(ids) == before + close
    for answer in ("The", "5") if close[-1].isspace() else ANSWERS:
        assert encoder.encode(before + close + answer, special=False)[: len(ids)] == ids


def test_no_closing_text_ends_in_a_blank():
    texts = [text for close in CLOSES.values() for text in (close, IGNORE_TEXT) if text]
    assert not [text for text in texts if text.endswith(" ")]


def test_an_extension_adds_no_blank(encoder):
    assert encoder.decode([*encoder.encode("so 5.\n", special=False), *encode_inside(encoder, "Wait")]) == "so 5.\nWait"


class Words:
    """A backend with one token for all of a text, whose length it is."""

    context = 1000

    def encode(self, text: str, *, special: bool) -> list[int]:
        del special
        return [len(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return "?" * sum(ids)

    def run(self, rows: Sequence[Row]) -> None:
        raise NotImplementedError


def test_a_token_across_the_end_leaves_the_text_its_own_tokens():
    assert encode_inside(Words(), "Wait") == [4]


def test_the_key_of_a_stored_response_has_the_forced_text():
    """A response whose text was forced with other words, or joined by other rules, is not reused."""
    (request,) = prepare(Words(), [Request("Q?", 0)], BudgetSettings(budget=5), FORMATS["none"])
    identity = request.identity()
    assert identity["markers"]["forced_answer"] == "Final Answer:"
    assert identity["rules"] == 2
