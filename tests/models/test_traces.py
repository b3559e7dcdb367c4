"""The bundled model writes its own calibration windows."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import datasets
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError
from lm_eval_pruned.models.traces import (
    TraceRequest,
    checkpoint_backend,
    read_questions,
    trace_calibration,
    trace_digest,
    trace_generator,
    trace_request,
    trace_windows,
)
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.pruning.calibration.hub import NO_CODE
from lm_eval_pruned.pruning.calibration.source import Traces
from lm_eval_pruned.pruning.checkpoint.load import Checkpoint, load_checkpoint
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, resolve_pretrained
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.requests import Generated
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import BudgetSettings

TINY = resolve_pretrained("tiny-reasoner")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(TINY, LoadOptions(dtype="float32"))


@pytest.fixture(scope="module")
def backend(checkpoint) -> TransformersBackend:
    return checkpoint_backend(checkpoint)


def source_for(samples: int, seqlen: int, seed: int) -> Traces:
    return Traces(calib="traces", samples=samples, seqlen=seqlen, seed=seed, is_bundled=True)


def questions_of(calib: str, pretrained: str) -> list[str]:
    config = PruneConfig(method="wanda", sparsity=0.1, calib=calib)
    return read_questions(resolve(config).calibration_source(pretrained))


def request_for(checkpoint: Checkpoint, questions: list[str], *, samples=3, seqlen=256, seed=0) -> TraceRequest:
    def render(question):
        turns = [{"role": "user", "content": question}]
        return checkpoint.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    return trace_request(source_for(samples, seqlen, seed), questions, FORMATS["qwen3"], render)


@pytest.fixture(scope="module")
def request_(checkpoint) -> TraceRequest:
    return request_for(checkpoint, questions_of("traces", TINY))


@pytest.fixture(scope="module")
def windows(backend, request_) -> torch.Tensor:
    return trace_windows(backend, request_)


@pytest.fixture
def written(monkeypatch) -> list:
    """Rows handed to the model with what came of them."""
    seen, real = [], TransformersBackend.run

    def run(self, rows):
        results = {}

        def noted(place, row):
            return row._replace(on_finish=lambda result: results.update({place: result}) or row.on_finish(result))

        real(self, [noted(place, row) for place, row in enumerate(rows)])
        seen.extend((row, results[place]) for place, row in enumerate(rows))

    monkeypatch.setattr(TransformersBackend, "run", run)
    return seen


def forbid_generation(monkeypatch):
    monkeypatch.setattr(TransformersBackend, "run", lambda *_: pytest.fail("something was generated"))


def test_windows_are_questions_with_the_thoughts_an_evaluation_would_see(backend, request_, windows):
    assert windows.shape == (3, 256)
    assert windows.dtype == torch.int64
    turns = backend.decode(windows.flatten().tolist()).split("<|im_start|>user\n")
    assert turns.pop(0) == ""
    assert len(turns) > 3
    # The last one is cut at the end of the last window.
    for turn in turns[:-1]:
        prompt, opening, thought = f"<|im_start|>user\n{turn}".partition("<think>\n")
        assert prompt in request_.prompts
        room = 256 - len(backend.encode(prompt + opening, special=True))
        settings = BudgetSettings(budget=room, answer_room=1, sampling=Sampling(temperature=1.0, seed=0))
        ((completion,),) = complete(backend, [prepare(backend, [Request(prompt, 0)], settings, FORMATS["qwen3"])])
        assert opening + thought == "<think>\n" + completion.thinking


def test_only_what_the_model_wrote_counts(backend, request_, windows, written):
    found = trace_windows(backend, replace(request_, tokens="thinking"))
    assert torch.equal(found.ids, windows)
    expected = [place >= len(row.ids) for row, result in written for place in range(len(row.ids + result.ids))]
    assert found.counted.flatten().tolist() == expected[: found.ids.numel()]
    counted = backend.decode(found.ids[found.counted].tolist())
    assert not any(part in counted for part in ("<think>", "mod 10", "<|im_start|>"))


def test_windows_without_a_thought_are_refused(checkpoint, backend, monkeypatch):
    def run(self, rows):
        for row in rows:
            row.on_finish(Generated([], "stop"))

    monkeypatch.setattr(TransformersBackend, "run", run)
    request = replace(request_for(checkpoint, ["a=1;b=a+1;b mod 10?"], samples=1), tokens="thinking")
    with pytest.raises(DataError, match="calib_tokens=thinking: the model wrote nothing in a whole window of 256 tok"):
        trace_windows(backend, request)


def test_windows_do_not_depend_on_the_batch_size(backend, request_, windows):
    assert torch.equal(trace_windows(replace(backend, batch_size=1), request_), windows)


def test_another_seed_gives_other_windows(backend, request_, windows):
    assert not torch.equal(trace_windows(backend, replace(request_, seed=1)), windows)


def test_windows_are_capped_at_the_context_and_little_more_is_written(checkpoint, backend, written, caplog):
    request = request_for(checkpoint, questions_of("traces", TINY), samples=1, seqlen=2048)
    windows = trace_windows(replace(backend, context=512), request)
    assert windows.shape == (1, 512)
    assert "calib_seqlen=2048 is beyond the model's context: using 512" in caplog.text
    stream = [token for row, result in written for token in row.ids + result.ids]
    assert stream[:512] == windows.flatten().tolist()
    assert len(stream) < 2 * 512
    for row, result in written:
        assert len(row.ids) + len(result.ids) <= len(row.ids) + row.max_new_tokens == 512
        assert (row.stop.texts, row.sampling) == (("</think>",), Sampling(temperature=1.0, seed=0))


def test_a_thought_that_does_not_end_is_cut_at_the_window(checkpoint, backend, written):
    bare = TraceRequest(prompts=("a=1;b=", "c=2;d="), markers=FORMATS["none"], samples=2, seqlen=24, seed=1)
    windows = trace_windows(backend, bare)
    assert [result.finish for _, result in written] == ["length", "length"]
    assert windows.tolist() == [row.ids + result.ids for row, result in written]
    settings = BudgetSettings(budget=18, answer_room=1, sampling=Sampling(temperature=1.0, seed=1))
    ready = prepare(backend, [Request(prompt, 0) for prompt in bare.prompts], settings, bare.markers)
    seen = {
        prompt + completion.thinking
        for prompt, completion in zip(bare.prompts, complete(backend, [ready])[0], strict=True)
    }
    assert {backend.decode(window) for window in windows.tolist()} == seen


def test_questions_come_again_with_another_noise_after_all_others(checkpoint, backend, monkeypatch):
    rows = []

    def run(self, batch):
        rows.extend(batch)
        for row in batch:
            row.on_finish(Generated([], "stop"))

    monkeypatch.setattr(TransformersBackend, "run", run)
    questions = [f"a={digit};b=a+1;b mod 10?" for digit in range(3)]
    trace_windows(backend, request_for(checkpoint, questions * 2, samples=2))
    passes = [{tuple(row.ids) for row in rows[start : start + 3]} for start in range(0, len(rows) - 2, 3)]
    assert len(passes) > 2
    assert all(len(prompts) == 3 for prompts in passes)
    assert len({row.seed for row in rows}) == len(rows)


def test_questions_that_fill_a_window_are_left_out(checkpoint, backend, written):
    long = "a=1;" + "b=a+1;" * 20
    trace_windows(backend, request_for(checkpoint, [long, "a=1;b=a+1;b mod 10?"], samples=1, seqlen=130))
    assert written
    assert all(long not in backend.decode(row.ids) for row, *_ in written)
    with pytest.raises(DataError, match=r"no question of calib=traces fits half of a window of 130 tokens: use a lar"):
        trace_windows(backend, request_for(checkpoint, [long], seqlen=130))


def test_the_digest_knows_what_decides_the_windows_and_generates_nothing(backend, request_, monkeypatch):
    forbid_generation(monkeypatch)
    digest = trace_digest(backend, request_)
    assert len(digest) == 64
    same = [
        trace_digest(replace(backend, batch_size=1), request_),
        trace_digest(backend, replace(request_, prompts=request_.prompts * 2)),
    ]
    assert same == [digest, digest]
    ends_otherwise = deepcopy(backend.model)
    ends_otherwise.generation_config.eos_token_id = 7
    others = [
        trace_digest(replace(backend, model=ends_otherwise), request_),
        trace_digest(replace(backend, model=deepcopy(backend.model).to("meta")), request_),
        trace_digest(replace(backend, context=200), request_),
        trace_digest(replace(backend, autocast=torch.bfloat16), request_),
        *(
            trace_digest(backend, replace(request_, **change))
            for change in (
                {"prompts": request_.prompts[:500]},
                {"markers": FORMATS["s1"]},
                {"markers": replace(FORMATS["qwen3"], closings=("stop",))},
                {"samples": 4},
                {"seqlen": 255},
                {"seed": 1},
                {"tokens": "thinking"},
            )
        ),
    ]
    assert len({digest, *others}) == 1 + len(others)


def test_the_bundled_model_is_not_asked_what_it_is_tested_with():
    questions = questions_of("traces", TINY)
    assert questions == questions_of("traces", TINY)
    rows = (assets_folder() / "tiny_reasoner" / "questions.jsonl").read_text().splitlines()
    tested = {json.loads(row)["problem"] for row in rows}
    assert len(tested) == 200
    assert not tested & set(questions)
    assert len(questions) == len(set(questions)) == 1000


def test_other_models_are_asked_the_questions_of_s1(monkeypatch):
    asked = []

    def load_dataset(**arguments):
        asked.append(arguments)
        return datasets.Dataset.from_dict({"solution": ["2", "4"], "question": ["1+1?", "2+2?"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert questions_of("traces", "Qwen/Qwen3-8B") == ["1+1?", "2+2?"]
    assert asked == [{"path": "simplescaling/s1K-1.1", "split": "train", **NO_CODE}]


def test_a_file_of_questions_takes_the_place_of_any(tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = [{"text": "c", "question": "a"}, {"problem": "b", "text": "d"}, {"text": "c"}, {"question": " "}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert questions_of(f"traces:{path}", TINY) == questions_of(f"traces:{path}", "x/y") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"answer": "2"}\n', r"line 1 has no 'question' or 'problem' or 'text': each row must be like {\"question\""),
        ('{"question": ""}\n', "holds only empty questions"),
        ("", "is empty"),
    ],
)
def test_a_file_without_questions_is_refused(tmp_path, content, message):
    (tmp_path / "questions.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        questions_of(f"traces:{tmp_path / 'questions.jsonl'}", TINY)


def test_a_file_that_is_missing_or_none_at_all_is_refused():
    with pytest.raises(MissingDataError, match=r"calib=traces:/nowhere.jsonl does not exist"):
        questions_of("traces:/nowhere.jsonl", TINY)
    with pytest.raises(ArgumentError, match="names no questions"):
        questions_of("traces:", TINY)


def test_without_a_network_the_local_choices_are_named():
    with pytest.raises(MissingDataError, match=r"calib=traces cannot be loaded .* traces:FILE\.jsonl .*a \.npy of"):
        questions_of("traces", "Qwen/Qwen3-8B")


@pytest.fixture(scope="module")
def with_bos(checkpoint, tmp_path_factory):
    """The bundled model with a tokenizer that begins every text with a token, which its template writes as well."""
    folder = tmp_path_factory.mktemp("with_bos")
    tokenizer = load_checkpoint(TINY, LoadOptions(dtype="float32")).tokenizer
    begin = "<|im_start|>"
    tokenizer.bos_token = begin
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.convert_tokens_to_ids(begin))]
    )
    checkpoint.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("begun", [False, True])
def test_without_the_harness_the_tokens_are_the_harnesss(checkpoint, with_bos, begun):
    folder = with_bos if begun else TINY
    harness = HFLM(str(folder), batch_size=4, device="cpu")
    bare = load_checkpoint(str(folder), LoadOptions(dtype="float32"))
    backend = checkpoint_backend(bare)
    for text in ("a=1;", "<|im_start|>user\na=1;"):
        assert backend.encode(text, special=True) == harness.tok_encode(text)
        assert backend.encode(text, special=False) == harness.tok_encode(text, add_special_tokens=False)
    assert len(backend.encode("a=1;", special=True)) == 4 + begun
    same = TransformersBackend(
        model=harness.model,
        tokenizer=harness.tokenizer,
        encode_text=harness.tok_encode,
        context=harness.max_length,
        batch_size=4,
    )
    questions = ["a=1;b=a+1;b mod 10?"]
    found = trace_generator(bare, questions)(source_for(3, 256, 0))
    assert found.identity == trace_digest(same, request_for(bare, questions))


def test_without_a_chat_template_questions_stay_bare(backend):
    bare = load_checkpoint(TINY, LoadOptions(dtype="float32"))
    bare.tokenizer.chat_template = None
    question = "a=1;b=a+1;b mod 10?"
    request = TraceRequest(prompts=(question,), markers=FORMATS["none"], samples=1, seqlen=64, seed=0)
    calibration = trace_generator(bare, [question])(source_for(1, 64, 0))
    assert calibration.identity == trace_digest(backend, request)


def test_nothing_is_written_before_it_is_needed(checkpoint, backend, windows, request_, monkeypatch):
    with monkeypatch.context() as patch:
        forbid_generation(patch)
        calibration = trace_calibration(backend, request_)
        assert calibration.identity == trace_digest(backend, request_)
    assert torch.equal(calibration.windows(), windows)
