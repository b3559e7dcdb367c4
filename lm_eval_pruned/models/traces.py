"""Traces: calibration windows that the dense model writes itself, each question followed by its chain of thought."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice
from math import ceil
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor

from lm_eval_pruned.assets.tiny_reasoner.chains import MAX_STEPS, benchmark_chains, sample_chain
from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.models.prompt import Render, as_user_turn
from lm_eval_pruned.pruning.calibration.readers import read_hub, read_jsonl
from lm_eval_pruned.pruning.calibration.source import LOCAL_CHOICES, TRACES, capped_seqlen, check_source
from lm_eval_pruned.pruning.checkpoint.resolve import DEFAULT_CONTEXT, Checkpoint, bundled_calibration
from lm_eval_pruned.pruning.engine import Calibration
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.budget import PreparedRequest, Request, prepare
from lm_eval_pruned.reasoning.formats import ThinkingFormat, choose_format
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling, derive_seed
from lm_eval_pruned.reasoning.settings import BudgetSettings

logger = logging.getLogger(__name__)

# The questions that s1 was trained on; its authors removed what overlaps with MATH500, GPQA-Diamond and AIME24.
HUB_QUESTIONS = {"path": "simplescaling/s1K-1.1", "split": "train"}
QUESTION_NAMES = ("question", "problem", "text")

# Questions of the bundled model, and a seed that neither its benchmark nor its calibration windows were drawn with.
BUNDLED_QUESTIONS = 1000
BUNDLED_SEED = 29

# A window that is mostly question would calibrate on the question.
LARGEST_PROMPT_SHARE = 0.5

# Rows decoded at once where no batch size was given.
BATCH_SIZE = 8


def trace_questions(calib: str, source: str) -> list[str]:
    """Return the questions that `calib=traces` or `traces:FILE.jsonl` asks the checkpoint `source`.

    Without a file these are chains of their own for the bundled model, and those of s1K-1.1 for every other one.

    Raises:
        MissingDataError: the file does not exist, or the hub cannot be reached.
        DataError: the file holds no question.

    Reference: Muennighoff et al. 2025, arXiv 2501.19393.
    """
    check_source(calib)
    if calib != TRACES:
        questions = read_jsonl(Path(calib.removeprefix(f"{TRACES}:")).expanduser(), names=QUESTION_NAMES)
    elif bundled_calibration(source):
        questions = _bundled_questions()
    else:
        local = f"Local choices: {TRACES}:FILE.jsonl whose rows have a 'question'; or, instead of traces, a text. "
        questions = list(read_hub(calib, HUB_QUESTIONS, column="question", local=local + LOCAL_CHOICES))
    asked = [question for question in questions if question.strip()]
    if not asked:
        raise DataError(f"calib={calib} holds only empty questions")
    return asked


def _bundled_questions() -> list[str]:
    rng = random.Random(BUNDLED_SEED)
    held_out = {chain.problem for chain in benchmark_chains()}
    problems = (sample_chain(rng, rng.randint(1, MAX_STEPS)).problem for _ in count())
    return list(islice((problem for problem in problems if problem not in held_out), BUNDLED_QUESTIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """Windows of traces wanted: `samples` of `seqlen` tokens, drawn from `seed`.

    `prompts` are questions as the model sees them, in its chat template where it has one.
    """

    prompts: tuple[str, ...]
    markers: ThinkingFormat
    samples: int
    seqlen: int
    seed: int


def trace_request(
    config: PruneConfig, questions: Sequence[str], markers: ThinkingFormat, render: Callable[[str], str]
) -> TraceRequest:
    """Return what `config` asks for; `render` makes a question what the model sees."""
    return TraceRequest(
        prompts=tuple(map(render, questions)),
        markers=markers,
        samples=config.calib_samples,
        seqlen=config.calib_seqlen,
        seed=config.calib_seed,
    )


def trace_windows(backend: TransformersBackend, request: TraceRequest) -> Int[Tensor, "samples seqlen"]:
    """Let the model think about questions, drawn at random, until its prompts and thoughts fill all windows.

    Thoughts are sampled at temperature 1 and end at the close marker, at an end-of-sequence token, or where prompt and
    thought are as long as a window. They are laid end to end and cut; no thought is longer than a window, and at most
    one window more than wanted is written. Questions come again, with another thought, only after all others. Windows
    are capped at the model's context.

    Raises:
        DataError: every question takes up more than half of a window.

    Reference: Lucas et al. 2025, arXiv 2509.12464 (calibration on the model's own chains of thought).
    Differs: its code asks OpenR1-Math-220k or Codeforces and lets a thought run to 8192 tokens; here a window ends it.
    """
    width = capped_seqlen(request.seqlen, backend.context)
    wanted = request.samples * width
    draws = _draws(_fitting(backend, request, width), request.seed)
    stream: list[int] = []
    while len(stream) < wanted:
        ready = _prepare(backend, request, list(islice(draws, ceil((wanted - len(stream)) / width))))
        for one, thought in zip(ready, _thoughts(backend, ready, width), strict=True):
            stream += one.ids + thought
        logger.info("calib=%s: %d of %d tokens written", TRACES, min(len(stream), wanted), wanted)
    return torch.tensor(stream[:wanted]).reshape(request.samples, width)


def _thoughts(backend: TransformersBackend, ready: Sequence[PreparedRequest], width: int) -> list[list[int]]:
    """Let the model think about every prompt until it ends or fills a window; nothing follows."""
    done: dict[int, list[int]] = {}

    def keep(place: int, thought: Generated) -> list[Row]:
        done[place] = thought.ids
        return []

    backend.run(
        [
            Row(
                ids=one.ids,
                max_new_tokens=width - len(one.ids),
                seed=derive_seed(one.seed, "thinking"),
                stop=Stop(one.markers.closings),
                sampling=one.settings.sampling,
                on_finish=partial(keep, place),
                max_length=width,
            )
            for place, one in enumerate(ready)
        ]
    )
    return [done[place] for place in range(len(ready))]


def trace_digest(backend: TransformersBackend, request: TraceRequest) -> str:
    """Return the SHA-256, in hex, of all that decides the windows besides the weights; nothing is generated.

    The kind of device is part of it: the noise of sampling is drawn there.

    Raises:
        DataError: every question takes up more than half of a window.
    """
    width = min(request.seqlen, backend.context)
    ready = _prepare(backend, request, [Request(prompt, 0) for prompt in _fitting(backend, request, width)])
    content = {
        "prompts": [one.ids for one in ready],
        "ends": [ready[0].markers.closings, sorted(backend.end_tokens())],
        "sampling": asdict(ready[0].settings.sampling),
        "windows": [request.samples, width],
        "device": backend.model.device.type,
        "autocast": str(backend.autocast),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def trace_calibration(backend: TransformersBackend, request: TraceRequest) -> Calibration:
    """Return calibration windows that are written only if they are needed."""
    return Calibration(trace_digest(backend, request), partial(trace_windows, backend, request))


def _fitting(backend: TransformersBackend, request: TraceRequest, width: int) -> list[str]:
    """Return the prompts, each once, that leave room for a thought in a window of `width` tokens."""
    distinct = list(dict.fromkeys(request.prompts))
    longest = LARGEST_PROMPT_SHARE * width
    fitting = [
        prompt for prompt in distinct if len(backend.encode(prompt + request.markers.opening, special=True)) <= longest
    ]
    if not fitting:
        raise DataError(
            f"no question of calib={TRACES} fits half of a window of {width} tokens: use a larger calib_seqlen, or "
            "shorter questions"
        )
    if len(fitting) < len(distinct):
        left_out = len(distinct) - len(fitting)
        logger.info("%d of %d questions are longer than half a window: left out", left_out, len(distinct))
    return fitting


def _draws(prompts: Sequence[str], seed: int) -> Iterator[Request]:
    """Yield all prompts in a random order, then all again in another order as another sample, without end."""
    rng = random.Random(seed)
    for sample in count():
        yield from (Request(prompt, sample) for prompt in rng.sample(prompts, len(prompts)))


def _prepare(backend: TransformersBackend, request: TraceRequest, drawn: Sequence[Request]) -> list[PreparedRequest]:
    """Tokenize as for an evaluation; the budget of 0 stands for none, as every row gets room of its own."""
    # Thoughts are not closed here, so that no room must be left for it.
    markers = replace(request.markers, natural_close=None, forced_close="", forced_break="", forced_answer="")
    settings = BudgetSettings(budget=0, answer_room=1, sampling=Sampling(temperature=1.0, seed=request.seed))
    return prepare(backend, drawn, settings, markers)


def checkpoint_backend(checkpoint: Checkpoint) -> TransformersBackend:
    """Return what runs a checkpoint loaded without the harness, with the tokens that the harness would make."""
    model, tokenizer = checkpoint

    def encode(text: str, **options: bool) -> list[int]:
        begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        return list(tokenizer.encode(text, **({"add_special_tokens": False} if begun else {}) | options))

    return TransformersBackend(
        model=model,
        tokenizer=tokenizer,
        encode_text=encode,
        context=getattr(model.config.get_text_config(), "max_position_embeddings", DEFAULT_CONTEXT),
        batch_size=BATCH_SIZE,
    )


def checkpoint_calibration(
    checkpoint: Checkpoint, config: PruneConfig, questions: Sequence[str], *, thinking: str = "auto"
) -> Calibration:
    """Return what `config` asks of a checkpoint under its own chat template, if it has one, and a thinking format."""
    tokenizer = checkpoint.tokenizer
    template = tokenizer.chat_template
    apply = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)

    def render(question: str) -> str:
        return as_user_turn(question, cast("Render", apply)) if template else question

    markers = choose_format(thinking, template)
    return trace_calibration(checkpoint_backend(checkpoint), trace_request(config, questions, markers, render))
