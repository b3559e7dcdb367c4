"""One record of Every Eval Ever for each run: https://github.com/evaleval/every_eval_ever, schema 0.3.0."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from lm_eval_pruned import __version__
from lm_eval_pruned.errors import DataError
from lm_eval_pruned.files import NOT_JSON, sha256_of_json
from lm_eval_pruned.results.eee.fields import known
from lm_eval_pruned.results.eee.model import OURS, model_info
from lm_eval_pruned.results.eee.scores import results
from lm_eval_pruned.results.records.layout import newest_layout
from lm_eval_pruned.results.records.record import Record
from lm_eval_pruned.results.records.run_settings import section

SCHEMA_VERSION = "0.3.0"
_DIGITS = 8


class EeeRecord(NamedTuple):
    """A record, and what decides its place among others.

    `collection` is its benchmark, or that of this package where it has several; `uuid` is the same whenever the same
    run is written.
    """

    content: dict[str, object]
    collection: str
    model_id: str
    uuid: UUID


def eee_record(record: Record, *, organization: str) -> EeeRecord:
    """Return the record of a run.

    Args:
        record: the run.
        organization: who evaluated.

    Raises:
        DataError: its results file has changed since it was read.
    """
    content = read_content(record)
    model = model_info(record, content)
    benchmarks = {result.benchmark for result in record.results}
    collection = benchmarks.pop() if len(benchmarks) == 1 else OURS
    digest = sha256_of_json(content)
    # Old files have no date but that of the file, which many may share.
    identity = f"{collection}/{model.id}/{record.date:.6f}-{digest[:_DIGITS]}"
    report = section(section(content, "config"), "pruning")
    ours = str(section(report, "software").get("lm_eval_pruned") or "")
    whole: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": identity,
        "evaluation_timestamp": str(int(record.date)),
        "retrieved_timestamp": str(int(time.time())),
        "source_metadata": {
            "source_name": "lm-evaluation-harness",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            # Who prunes a model makes it; a dense one was made by somebody else.
            "evaluator_relationship": "first_party" if record.configuration.is_pruned else "third_party",
            "additional_details": {"written_by": f"lm-eval-pruned {__version__}"},
        },
        "eval_library": {
            "name": "lm_eval",
            "version": str(content.get("lm_eval_version") or "unknown"),
            **known(additional_details=known(lm_eval_pruned=ours)),
        },
        "model_info": model.content,
        "evaluation_results": list(results(record, content)),
    }
    return EeeRecord(whole, collection, model.id, UUID(digest[:32], version=4))


def read_content(record: Record) -> Mapping[str, object]:
    """Return the results file of a run in the newest layout.

    Raises:
        DataError: it has changed since it was read.
    """
    try:
        return newest_layout(json.loads(record.path.read_text(encoding="utf-8-sig")), record.path)
    except (OSError, *NOT_JSON) as problem:
        raise DataError(f"{record.path} cannot be read again ({problem}): do not change it meanwhile") from None
