"""Parse the generation kwargs of a budgeted request: our names, s1's aliases, and the sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.reasoning.formats import ThinkingFormat, with_markers
from lm_eval_pruned.reasoning.kwarg_names import ALIASES, BUDGETED, ORDINARY_ROOMS, SAMPLING, unknown_kwarg
from lm_eval_pruned.reasoning.sampling import Sampling

DEFAULT_ANSWER_ROOM = 4096

IGNORE_TEXT = "Wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """The generation kwargs of one budgeted request.

    Attributes:
        budget: most thinking tokens; None is as many as fit.
        answer_room: most answer tokens (`max_gen_toks`).
        until: stop texts of the answer.
        sampling: sampling parameters of both phases.
        thinking_sampling: those of the thinking, if they differ.
        thinking_start: opening marker in place of the format's own.
        thinking_end: closing text in place of the format's own.
        until_thinking: closing markers in place of the format's own.
        n_ignore: how many ends of the thinking are ignored.
        ignore_text: written in place of each ignored end.
        least_thinking: tokens before which nothing ends the thinking.
    """

    # These names are hashed into the keys of the response store: renaming one would lose every stored response.
    budget: int | None
    answer_room: int = DEFAULT_ANSWER_ROOM
    until: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    thinking_sampling: Sampling | None = None
    thinking_start: str | None = None
    thinking_end: str | None = None
    until_thinking: tuple[str, ...] = ()
    n_ignore: int = 0
    ignore_text: str = IGNORE_TEXT
    least_thinking: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None and self.least_thinking > self.budget:
            raise ArgumentError(
                f"min_tokens_thinking={self.least_thinking} is more than thinking_token_budget={self.budget}: give a "
                "larger budget, or less of it"
            )

    @property
    def is_sampled(self) -> bool:
        """Whether two samples, or two seeds, can give different texts."""
        return any(one.is_random for one in (self.sampling, self.thinking_sampling) if one is not None)

    def effective(self) -> BudgetSettings:
        """Return the settings without what changes no text: filters of greedy decoding, and its seed."""
        seed = self.sampling.seed if self.is_sampled else 0
        thinking = self.thinking_sampling
        return replace(
            self,
            sampling=self.sampling if self.sampling.is_random else Sampling(seed=seed),
            thinking_sampling=thinking if thinking is None or thinking.is_random else Sampling(seed=seed),
        )

    def markers(self, chosen: ThinkingFormat) -> ThinkingFormat:
        """Return the format `chosen` with the markers that the kwargs give in place of its own."""
        return with_markers(chosen, opening=self.thinking_start, ending=self.thinking_end, closings=self.until_thinking)


def is_budgeted(gen_kwargs: Mapping[str, object]) -> bool:
    """Return whether a request asks for budgeted thinking, by s1's rule: some kwarg has "thinking" in its name."""
    return any("thinking" in name for name in gen_kwargs)


def parse_gen_kwargs(gen_kwargs: Mapping[str, object]) -> BudgetSettings:
    """Read the generation kwargs of a task or of `--gen_kwargs`.

    A temperature above 0 samples unless `do_sample` says no; `do_sample` without a temperature means temperature 1.

    Raises:
        ArgumentError: a kwarg is unknown or its value out of range.

    Example:
        >>> settings = parse_gen_kwargs({"max_tokens_thinking": 512, "temperature": 1.0, "seed": 7})
        >>> settings.budget, settings.sampling.temperature
        (512, 1.0)
    """
    # The canonical name may come from the task file, an alias only from the user: the alias wins.
    given = {name: value for name, value in gen_kwargs.items() if name not in ALIASES and value is not None}
    given |= {ALIASES[name]: value for name, value in gen_kwargs.items() if name in ALIASES}
    for name in given:
        if name not in BUDGETED:
            raise unknown_kwarg(name, BUDGETED)
    if "thinking_token_budget" not in given:
        raise ArgumentError("thinking kwargs were given without a thinking_token_budget: add one, in tokens")
    is_auto = given["thinking_token_budget"] == "auto"
    return BudgetSettings(
        budget=None if is_auto else _whole(given, "thinking_token_budget", 0),
        answer_room=_whole(given, "max_gen_toks", 1, DEFAULT_ANSWER_ROOM),
        until=_stop_texts(given, "until"),
        sampling=_sampling(given),
        thinking_sampling=_thinking_sampling(given),
        thinking_start=_text(given, "thinking_start"),
        thinking_end=_text(given, "thinking_end"),
        until_thinking=_stop_texts(given, "until_thinking"),
        n_ignore=_whole(given, "thinking_n_ignore", 0),
        ignore_text=_ignore_text(given),
        least_thinking=_whole(given, "min_tokens_thinking", 0),
    )


def check_ordinary_values(gen_kwargs: Mapping[str, object]) -> None:
    """Check the generation kwargs of a request without a budget, as far as they mean the same there.

    Raises:
        ArgumentError: a value is out of range.
    """
    given = {name: value for name, value in gen_kwargs.items() if value is not None}
    _sampling({name: value for name, value in given.items() if name in ("do_sample", *SAMPLING)})
    _stop_texts(given, "until")
    for name in ORDINARY_ROOMS:
        _whole(given, name, 1, 1)


def _stop_texts(given: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = given.get(name)
    texts = value if isinstance(value, list | tuple) else [value] if value is not None else []
    # An empty text would stop every generation at once; YAML reads an unquoted yes as True.
    if not all(isinstance(text, str | int | float) and not isinstance(text, bool) and text != "" for text in texts):
        raise ArgumentError(f"generation kwarg {name}={value!r}: give a text, or a list of texts that are not empty")
    return tuple(map(str, texts))


def _sampling(given: Mapping[str, object]) -> Sampling:
    wants_sample = _switch(given, "do_sample")
    temperature = _number(given, "temperature", 1.0 if wants_sample else 0.0)
    return Sampling(
        temperature=0.0 if wants_sample is False else temperature,
        top_p=_number(given, "top_p", 1.0),
        top_k=_whole(given, "top_k", -1, 0),
        min_p=_number(given, "min_p", 0.0),
        seed=_whole(given, "seed", 0, 0),
    )


def _thinking_sampling(given: Mapping[str, object]) -> Sampling | None:
    """Read s1's sampling kwargs of the thinking, which override those of both phases; None if there are none."""
    own = {name: given[f"{name}_thinking"] for name in SAMPLING if f"{name}_thinking" in given}
    return _sampling({**given, **own}) if own else None


def _switch(given: Mapping[str, object], name: str) -> bool | None:
    """Read True or False, which a quoted YAML value gives as text; None if it is not given."""
    value = given.get(name)
    if value is not None and str(value).lower() not in ("true", "false"):
        raise ArgumentError(f"generation kwarg {name}={value!r} is neither True nor False")
    return None if value is None else str(value).lower() == "true"


def _text(given: Mapping[str, object], name: str) -> str | None:
    if isinstance(given.get(name), list | tuple | dict | bool):
        raise ArgumentError(f"generation kwarg {name}={given[name]!r}: give one text")
    return str(given[name]) if name in given else None


def _ignore_text(given: Mapping[str, object]) -> str:
    text = _text(given, "thinking_n_ignore_str")
    if text == "":
        raise ArgumentError(
            "generation kwarg thinking_n_ignore_str='': give a text that is not empty, or leave it out for "
            f"{IGNORE_TEXT!r}"
        )
    return IGNORE_TEXT if text is None else text


def _number(given: Mapping[str, object], name: str, default: float) -> float:
    try:
        return float(str(given.get(name, default)))
    except ValueError:
        raise ArgumentError(f"generation kwarg {name}={given[name]!r} is not a number") from None


def _whole(given: Mapping[str, object], name: str, minimum: int, default: int = 0) -> int:
    # Through a float, seeds from 2**53 on would become their neighbours.
    written = str(given.get(name, default))
    number = int(written) if written.isdecimal() else _number(given, name, float(default))
    if number < minimum or number % 1 != 0:
        raise ArgumentError(f"generation kwarg {name}={given[name]!r}: give a whole number of at least {minimum}")
    return int(number)
