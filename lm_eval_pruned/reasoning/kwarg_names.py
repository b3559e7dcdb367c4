"""Names of generation kwargs: ours, and what to use in place of the names of other APIs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from lm_eval_pruned.errors import ArgumentError

SAMPLING = ("temperature", "top_p", "top_k", "min_p")
# s1's names, and ours.
ALIASES = {"max_tokens_thinking": "thinking_token_budget"}
BUDGETED = (
    "thinking_token_budget",
    "thinking_start",
    "thinking_end",
    "until_thinking",
    "thinking_n_ignore",
    "thinking_n_ignore_str",
    "min_tokens_thinking",
    *(f"{name}_thinking" for name in SAMPLING),
    "max_gen_toks",
    "until",
    "do_sample",
    *SAMPLING,
    "seed",
)

# Names that the harness's own model classes read, besides those of the library that generates.
ORDINARY_ROOMS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
ORDINARY = (*ORDINARY_ROOMS, "until", "do_sample", *SAMPLING)

_NO_PENALTY = "decoding has temperature, top_p, top_k and min_p: leave it out"
_STOP = 'stop texts are called until, for example {"until": ["Question:"]}'
_END = "end-of-sequence tokens are those of the checkpoint's generation config and tokenizer: leave it out"
_BUDGET = "the most thinking tokens are thinking_token_budget"
_SAMPLES = "several responses to a question are --metadata '{\"num_samples\": 4}'"
_SWITCH = (
    "thinking is turned off by thinking_token_budget=0, or where the chat template has a switch by --model_args "
    "enable_thinking=False"
)
_EFFORT = "thinking is limited in tokens, by thinking_token_budget"
_MARKER = "markers are thinking_start, thinking_end and until_thinking"

# Names of other APIs that must not be guessed at: what to write, whichever model class generates.
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("stop", "stop_sequences", "stop_strings", "stop_words", "stop_texts", "stops"), _STOP),
    **dict.fromkeys(("n", "num_return_sequences", "best_of", "num_samples", "repeats", "num_generations"), _SAMPLES),
    **dict.fromkeys(("reasoning_effort", "effort", "thinking_effort", "reasoning", "verbosity"), _EFFORT),
    **dict.fromkeys(
        (
            *("budget_tokens", "max_thinking_tokens", "thinking_budget", "thinking_budget_tokens", "thinking_tokens"),
            *("max_reasoning_tokens", "reasoning_budget", "reasoning_tokens", "reasoning_max_tokens"),
            *(
                "max_think_tokens",
                "think_budget",
                "budget",
                "max_thinking",
                "thinking_max_tokens",
                "token_budget",
                "max_thinking_length",
            ),
        ),
        _BUDGET,
    ),
    **dict.fromkeys(
        (
            *("enable_thinking", "thinking", "disable_thinking", "no_thinking", "include_reasoning", "think"),
            *("chat_template_kwargs", "chat_template_args", "thinking_mode"),
        ),
        _SWITCH,
    ),
    **dict.fromkeys(("think_end_token", "think_start_token", "reasoning_parser"), _MARKER),
    **dict.fromkeys(("random_seed", "sampling_seed", "torch_seed", "manual_seed"), "the seed of sampling is seed"),
    **dict.fromkeys(("greedy", "sample", "sampling"), "greedy decoding is temperature=0, and a temperature samples"),
    "system_instruction": "it is a flag of its own: --system_instruction",
    "num_fewshot": "it is a flag of its own: --num_fewshot",
    "batch_size": "it is a flag of its own: --batch_size",
}

_WITHOUT_A_BUDGET = {
    "seed": "samples are seeded in requests with a thinking_token_budget; the others have the harness's --seed"
}

# The same for budgeted requests, where transformers or vLLM would take these names.
_UNDER_A_BUDGET: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_length"),
            *("max_answer_tokens", "num_predict", "max_seq_len"),
        ),
        "the most tokens of the answer are max_gen_toks, and of the thinking thinking_token_budget",
    ),
    **dict.fromkeys(("eos_token_id", "stop_token_ids", "pad_token_id", "ignore_eos", "bos_token_id"), _END),
    **dict.fromkeys(
        (
            *("repetition_penalty", "presence_penalty", "frequency_penalty", "length_penalty", "penalty_alpha"),
            *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "typical_p", "logit_bias", "bad_words_ids"),
        ),
        _NO_PENALTY,
    ),
    **dict.fromkeys(("num_beams", "num_beam_groups", "early_stopping", "beam_width", "use_beam_search"), _NO_PENALTY),
    **dict.fromkeys(
        ("min_tokens", "min_new_tokens", "min_length"), "the fewest tokens of the thinking are min_tokens_thinking"
    ),
}


def unknown_kwarg(name: str, known: Collection[str], *, listed: Collection[str] = BUDGETED) -> ArgumentError:
    """Build the error for a generation kwarg that is not in `known`: what another API calls it, or the nearest name.

    Args:
        name: what was given.
        known: the names among which the nearest is looked for.
        listed: the names that the message lists.

    Example:
        >>> print(unknown_kwarg("stop", BUDGETED))
        unknown generation kwarg 'stop': stop texts are called until, for example {"until": ["Question:"]}
        >>> print(unknown_kwarg("temprature", BUDGETED, listed=["temperature", "until"]))
        unknown generation kwarg 'temprature': did you mean 'temperature'? Known: temperature, until
    """
    given = f"unknown generation kwarg {name!r}"
    if advice := _advice(name, is_budgeted="thinking_token_budget" in known):
        return ArgumentError(f"{given}: {advice}")
    nearest = get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return ArgumentError(f"{given}: {hint}Known: {', '.join(sorted(listed))}")


def check_ordinary_names(names: Collection[str], generator: Collection[str] | None) -> None:
    """Check the generation kwargs of a request without a budget, which the harness's own model class answers.

    Args:
        names: the kwargs.
        generator: names that the generating library knows; None if they cannot be told here, and then only names of
            other APIs and near misses are errors.

    Raises:
        ArgumentError: a name is unknown.
    """
    known = {*ORDINARY, *(generator or ())}
    for name in names:
        is_near = bool(get_close_matches(name, known, n=1, cutoff=0.85))
        if name in _ELSEWHERE or (name not in known and (generator is not None or is_near)):
            raise unknown_kwarg(name, known, listed=ORDINARY)


def _advice(name: str, *, is_budgeted: bool) -> str | None:
    more = _UNDER_A_BUDGET if is_budgeted else _WITHOUT_A_BUDGET
    return _ELSEWHERE.get(name.lower()) or more.get(name.lower())
