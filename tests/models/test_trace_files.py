"""Traces are read from samples files and response stores, and tokenized as the model saw them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.models.trace_files import Trace, read_traces
from lm_eval_pruned.models.trace_tokens import tokenize_traces
from lm_eval_pruned.models.traces import thinking_format
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.reasoning.completion import Answer, Completion, Thinking
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.response_store import ResponseStore

PROMPT = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
MARKERS = thinking_format("auto", AutoTokenizer.from_pretrained(bundled_folder()))


def row(response: str, *, budget: int | None = 64, prompt: str = PROMPT, doc_hash: str = "ab") -> dict[str, object]:
    kwargs = {} if budget is None else {"thinking_token_budget": budget}
    return {
        "doc_id": 0,
        "doc_hash": doc_hash,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": kwargs}},
        "resps": [[response]],
        "filter": "none",
    }


def write(folder: Path, *rows: object, name: str = "samples_tiny_tts_64_2026.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def read(*places: Path) -> list[Trace]:
    return read_traces(places, MARKERS).traces


def test_one_trace_serves_all_budgets(tmp_path):
    write(tmp_path, row("<think>\nab</think>\n\n3", budget=2), name="samples_a_1.jsonl")
    write(
        tmp_path,
        row("<think>\nabcd\n</think>\n\n2", budget=64),
        row("<think>\nxy</think>\n\n2", budget=64, doc_hash="cd"),
        name="samples_b_1.jsonl",
    )
    found = read_traces([tmp_path], MARKERS)
    assert [(one.thinking, one.rest) for one in found.traces] == [("abcd\n", "</think>\n\n2"), ("xy", "</think>\n\n2")]
    assert found.traces[0].prompt == PROMPT + "<think>\n"
    assert found.budgets == [2, 64]


def test_both_kinds_of_file_give_the_same_tokens(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    samples = write(tmp_path / "samples", row("<think>\na=1+1=2;\n</think>\n\n\\boxed{2}"))
    ids = tokenizer.encode(PROMPT + "<think>\n", add_special_tokens=False)
    response = Completion.build(
        "<think>\na=1+1=2;\n</think>\n\n\\boxed{2}",
        thinking=Thinking("a=1+1=2;\n", 9, "closed"),
        answer=Answer("\\boxed{2}", 9, "stop"),
    )
    with ResponseStore.open(tmp_path / "store", {"pruning": "f" * 64}) as store:
        store.put({"prompt": ids, "budget": 64, "markers": {"opening": "<think>\n"}}, response)
    stored = read(tmp_path / "store")
    assert stored[0].model == "f" * 64
    pairs = [
        tokenize_traces(traces, tokenizer, context=1024, vocabulary=264)[0][1] for traces in (read(samples), stored)
    ]
    assert pairs[0].ids == pairs[1].ids
    assert (pairs[0].start, pairs[0].thinking) == (len(ids), 9) == (pairs[1].start, pairs[1].thinking)
    assert tokenizer.decode(pairs[0].ids[len(ids) :]) == "a=1+1=2;\n</think>\n\n\\boxed{2}"


def test_the_sentence_forced_at_a_budget_ends_the_thinking(tmp_path):
    forced = FORMATS["qwen3"].forced_close
    path = write(tmp_path, row(f"<think>\nHmm{forced}42"))
    (trace,) = read_traces([path], FORMATS["qwen3"]).traces
    assert trace.thinking.strip() == "Hmm"
    assert trace.rest.endswith("</think>\n\n42")


def test_ordinary_tasks_and_older_layouts(tmp_path):
    """Without a budget, and with arguments as a list, as up to lm-eval 0.4.4; one row for each of two filters."""
    one = row("so 4", budget=None, prompt="Q: 2+2?\nA:") | {"arguments": [["Q: 2+2?\nA:", {"until": ["Q:"]}]]}
    del one["doc_hash"]
    found = read_traces([write(tmp_path, one, one | {"filter": "strict"})], MARKERS)
    assert [(trace.prompt, trace.thinking, trace.rest) for trace in found.traces] == [("Q: 2+2?\nA:", "so 4", "")]
    assert len(found.traces[0].question) == 64
    assert found.budgets == []


def test_samples_of_pruned_runs_are_left_out(tmp_path, caplog):
    pruned = write(tmp_path, row("<think>\nx</think>y"), name="samples_t_2.jsonl")
    report = {"fingerprint": "0" * 64, "config": {"method": "wanda"}}
    (tmp_path / "results_2.json").write_text(json.dumps({"config": {"pruning": report}}))
    with pytest.raises(DataError, match=r"samples of a pruned model \(samples_t_2\.jsonl\): give samples"):
        read(pruned)
    write(tmp_path, row("<think>\ndense</think>y"), name="samples_t_1.jsonl")
    assert [trace.thinking for trace in read(tmp_path)] == ["dense"]
    assert "1 samples files of pruned runs are left out" in caplog.text


def test_tasks_without_generated_text_are_left_out_of_a_folder(tmp_path, caplog):
    """A run of several tasks, some of which score choices by log-likelihood."""
    write(tmp_path, row("<think>\nx</think>\n\n1"))
    scored = {**row(""), "arguments": {"gen_args_0": {"arg_0": "1+1=", "arg_1": " 2"}}, "resps": [["-1.5", "True"]]}
    file = write(tmp_path, scored, name="samples_hellaswag_2026.jsonl")
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path)) == 1
    assert f"1 samples files of tasks without generated text are left out, such as {file}" in caplog.text
    with pytest.raises(DataError, match=r"samples_hellaswag_2026\.jsonl: its task scores given texts"):
        read(file)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"doc_id": 0}\n', r"line 1 is not a row of the harness with a generated text \(KeyError"),
        ("not json\n", "line 1 is not a row"),
        (json.dumps(row("")) + "\n", "holds no response that is not empty"),
        ("", "holds no response that is not empty"),
        (
            json.dumps(row("x") | {"arguments": {"gen_args_0": {"arg_0": "2+2=", "arg_1": " 4"}}}),
            "its task scores given texts",
        ),
        (json.dumps(row("x") | {"resps": [[[-1.5, True]]]}), "is not a response"),
    ],
)
def test_files_without_traces_are_named(tmp_path, content, error):
    path = tmp_path / "samples_x.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=error):
        read(path)


def test_places_without_files_are_named(tmp_path):
    with pytest.raises(MissingDataError, match="does not exist"):
        read(tmp_path / "absent")
    with pytest.raises(MissingDataError, match=r"holds neither samples_\*\.jsonl nor responses\.sqlite"):
        read(tmp_path)
    (tmp_path / "responses.sqlite").write_text("")
    with pytest.raises(DataError, match="not a response store"):
        read(tmp_path)


def test_traces_beyond_the_context_are_cut(tmp_path, caplog):
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    traces = read(write(tmp_path, row("<think>\n" + "a" * 100), row("<think>\nb", prompt="q" * 200, doc_hash="cd")))
    with caplog.at_level(logging.WARNING):
        ((_, cut),) = tokenize_traces(traces, tokenizer, context=80, vocabulary=264)
    assert len(cut.ids) == 80
    assert "2 of 2 traces are longer than the context of 80 tokens" in caplog.text
    with pytest.raises(DataError, match="no response that begins within the context of 8 tokens"):
        tokenize_traces(traces, tokenizer, context=8, vocabulary=264)


def test_token_ids_of_another_tokenizer_are_refused(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    with pytest.raises(DataError, match=r"token id \d+, but the model knows 0 to 99.*another tokenizer"):
        tokenize_traces(read(write(tmp_path, row("<think>\nb"))), tokenizer, context=80, vocabulary=100)


def test_a_token_that_a_tokenizer_would_merge_with_the_prompt_stays_apart(tmp_path):
    """The model continued the tokens of the prompt, so these come first whatever the tokenizer does to the whole."""

    class Merging:
        bos_token = None

        def encode(self, text: str, **_: bool) -> list[int]:
            return [9 if part == "\n\n" else ord(part) % 8 for part in (text.replace("\n\n", "\0") or "")]

        def decode(self, ids: list[int], **_: bool) -> str:
            return "x" * len(ids)

    trace = Trace(question="", prompt="ab\n", thinking="\nc", rest="", budget=None, model=None)
    ((_, found),) = tokenize_traces([trace], Merging(), context=80, vocabulary=100)  # type: ignore[arg-type]
    assert (len(found.ids), found.start, found.thinking) == (5, 3, 2)
