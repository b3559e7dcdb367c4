"""Trace files: responses of a dense run, read from the harness's samples files and from response stores."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.files import MALFORMED, numbered_lines, sha256_of_json
from lm_eval_pruned.reasoning.formats import ThinkingFormat
from lm_eval_pruned.reasoning.response_store import FILE, read_store

logger = logging.getLogger(__name__)

SAMPLES = "samples_*.jsonl"
_ADVICE = "give samples_*.jsonl of a dense run with --log_samples, its folder, or the folder given as responses="


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One response as text.

    Attributes:
        question: `doc_hash` of the harness, or a SHA-256 of the prompt where there is none.
        prompt: text or token ids of the prompt, with the opening of the thinking.
        thinking: the thinking; all of the response where it is not closed.
        rest: what follows the thinking: its closing and the answer.
        budget: thinking budget, in tokens; None if there was none.
        model: fingerprint of the model that wrote it; None where the file does not say.
    """

    question: str
    prompt: str | tuple[int, ...]
    thinking: str
    rest: str
    budget: int | None
    model: str | None


class _ScoredError(TypeError):
    """A row of a task that scores given texts and generates none."""


class TraceFiles(NamedTuple):
    """The responses in some files, and all thinking budgets of them."""

    traces: list[Trace]
    budgets: list[int]


def read_traces(places: Sequence[Path], markers: ThinkingFormat) -> TraceFiles:
    """Read the responses in files and folders; of those that share their thinking, only the longest is kept.

    One trace serves every budget of a question, so the thinking of a smaller budget is the beginning of a larger one's.
    Samples of pruned runs are left out, and in folders those of tasks that generate no text.

    Args:
        places: samples files, response stores, or folders that hold some of them.
        markers: the thinking format, by whose closing markers a response is divided.

    Raises:
        MissingDataError: a place does not exist, or holds neither kind of file.
        DataError: a file is malformed, or there is no response of a dense model.
    """
    found: list[Trace] = []
    pruned: list[Path] = []
    scored: list[Path] = []
    for file in _files(places):
        if file.name == FILE:
            found += _of_store(file)
            continue
        run = _run_of(file)
        if run.get("method", "none") != "none":
            pruned.append(file)
            continue
        try:
            found += _of_samples(file, markers, cast("str | None", run.get("fingerprint")))
        except _ScoredError as error:
            if file in places:
                raise DataError(f"--traces {file}: {error}: {_ADVICE}") from None
            scored.append(file)
    shown = " ".join(map(str, places))
    if pruned and not found:
        raise DataError(f"--traces {shown} holds samples of a pruned model ({pruned[0].name}): {_ADVICE}")
    if pruned:
        logger.warning("%d samples files of pruned runs are left out, such as %s", len(pruned), pruned[0])
    if scored:
        logger.warning(
            "%d samples files of tasks without generated text are left out, such as %s", len(scored), scored[0]
        )
    kept = _longest([trace for trace in found if trace.thinking or trace.rest])
    if not kept:
        raise DataError(f"--traces {shown} holds no response that is not empty: {_ADVICE}")
    return TraceFiles(kept, sorted({trace.budget for trace in found if trace.budget is not None}))


def _files(places: Sequence[Path]) -> list[Path]:
    files: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise MissingDataError(f"--traces {place} does not exist: {_ADVICE}")
        inside = sorted([*place.rglob(SAMPLES), *place.rglob(FILE)]) if place.is_dir() else [place]
        if not inside:
            raise MissingDataError(f"--traces {place} holds neither {SAMPLES} nor {FILE}: {_ADVICE}")
        files |= {one.resolve(): one for one in inside}
    return list(files.values())


def _run_of(samples: Path) -> Mapping[str, object]:
    """Return the method and fingerprint of the pruning of the run that wrote a samples file; {} where unknown."""
    stamp = samples.stem.rpartition("_")[2]
    try:
        content = json.loads((samples.parent / f"results_{stamp}.json").read_bytes())
        report = content["config"]["pruning"]
        return {"method": report["config"]["method"], "fingerprint": report["fingerprint"]}
    except (OSError, *MALFORMED):
        return {}


def _of_store(path: Path) -> Iterator[Trace]:
    for stored in read_store(path):
        response, ids = stored.response, cast("list[int]", stored.request["prompt"])
        markers = cast("Mapping[str, str]", stored.request["markers"])
        yield Trace(
            question=sha256_of_json(ids),
            prompt=tuple(ids),
            thinking=response.thinking,
            rest=response.removeprefix(markers["opening"]).removeprefix(response.thinking),
            budget=cast("int", stored.request["budget"]),
            model=cast("str", stored.model.get("pruning")),
        )


def _of_samples(path: Path, markers: ThinkingFormat, model: str | None) -> Iterator[Trace]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in numbered_lines(file):  # noqa: B007  # named in the error
                yield from _of_row(json.loads(line), markers, model)
    except _ScoredError:
        raise
    except MALFORMED as problem:
        raise DataError(
            f"{path}: line {number} is not a row of the harness with a generated text ({problem!r:.200}): {_ADVICE}"
        ) from None
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None


def _of_row(row: Mapping[str, object], markers: ThinkingFormat, model: str | None) -> Iterator[Trace]:
    """Yield the responses of a row; before lm-eval 0.4.4 its arguments are a list, and not numbered."""
    arguments = row["arguments"]
    requests = [[*one.values()] for one in arguments.values()] if isinstance(arguments, Mapping) else arguments
    prompt, kwargs = cast("list[list[object]]", requests)[0][:2]
    if not isinstance(prompt, str) or not isinstance(kwargs, Mapping):
        raise _ScoredError("its task scores given texts, and the model writes none")
    budget = kwargs.get("thinking_token_budget")
    opened = prompt.rstrip().endswith(markers.opening.strip())
    for response in _texts(row["resps"]):
        opening = markers.opening if not opened and response.startswith(markers.opening) else ""
        thinking, rest = _divide(response.removeprefix(opening), markers)
        yield Trace(
            question=str(row.get("doc_hash") or sha256_of_json(prompt)),
            prompt=prompt + opening,
            thinking=thinking,
            rest=rest,
            budget=budget if isinstance(budget, int) else None,
            model=model,
        )


def _texts(given: object) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, list):
        for one in given:
            yield from _texts(one)
    else:
        raise TypeError(f"{given!r:.50} is not a response")


def _divide(response: str, markers: ThinkingFormat) -> tuple[str, str]:
    """Divide a response before the text that closes its thinking: what is forced at a budget, or a closing marker."""
    closings = [text for text in (markers.forced_close.lstrip(), *markers.closings) if text.strip()]
    ends = [place for text in closings if (place := response.find(text)) >= 0]
    end = min(ends, default=len(response))
    return response[:end], response[end:]


def _longest(traces: Sequence[Trace]) -> list[Trace]:
    """Leave out responses whose thinking is the beginning of another's to the same prompt, by the same model."""
    groups: dict[object, list[Trace]] = {}
    for trace in traces:
        groups.setdefault((trace.prompt, trace.model), []).append(trace)
    kept: list[Trace] = []
    for group in groups.values():
        chosen: list[Trace] = []
        # Among equal ones the largest budget comes first.
        for trace in sorted(group, key=lambda one: (-len(one.thinking), -(one.budget or 0))):
            # A budget may have cut a character of several tokens, or white space that belongs to the closing.
            beginning = trace.thinking.rstrip("\ufffd \n")
            if not any(other.thinking.startswith(beginning) for other in chosen):
                chosen.append(trace)
        kept += chosen
    return kept
