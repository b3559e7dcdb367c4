"""The stock command with `--model pruned-vllm`: agreement with `pruned-hf`, resuming, and error messages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.errors import PrunedEvalError
from lm_eval_pruned.models.vllm.model import PrunedVLLM
from lm_eval_pruned.reasoning.response_store import FILE
from tests.models.evaluation import stored

BUDGETS = (16, 32, 64, 128, 256)
DEADLINE = 300
PRUNED = "method=wanda,sparsity=0.2"


def command(model: str, model_args: str, tasks: str, folder: Path, *more: str) -> list[str]:
    more_args = "dtype=float32,enforce_eager=True" if model == "pruned-vllm" else "dtype=float32"
    return [
        str(Path(sys.executable).parent / "lm_eval"), "--model", model, "--model_args", f"{model_args},{more_args}",
        "--tasks", tasks, "--batch_size", "64", "--log_samples", "--output_path", str(folder), *more,
    ]  # fmt: skip


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "INFO", **variables}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment, timeout=DEADLINE
    )


def results_in(folder: Path) -> dict:
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text())


def samples_in(folder: Path, task: str) -> list[dict]:
    (path,) = folder.rglob(f"samples_{task}_*.jsonl")
    return sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, Path]:
    """Folders with the results of `tiny_tts` on both backends."""
    folders = {}
    for model in ("pruned-hf", "pruned-vllm"):
        folders[model] = tmp_path_factory.mktemp(model)
        done = run(model, f"pretrained=tiny-reasoner,{PRUNED}", "tiny_tts", folders[model])
        assert done.returncode == 0, done.stderr
    return folders


class TestBothBackends:
    def test_responses_agree(self, both):
        pairs = [
            (one["resps"], other["resps"])
            for budget in BUDGETS
            for one, other in zip(*(samples_in(folder, f"tiny_tts_{budget}") for folder in both.values()), strict=True)
        ]
        assert len(pairs) == 1000
        assert sum(one == other for one, other in pairs) >= 990

    def test_metrics_agree(self, both):
        hf, vllm = (results_in(folder) for folder in both.values())
        for task, metrics in hf["results"].items():
            assert vllm["results"][task].keys() == metrics.keys()
            if "acc,none" in metrics:
                assert vllm["results"][task]["acc,none"] == pytest.approx(metrics["acc,none"], abs=0.01)

    def test_the_documented_check_passes(self, both, tmp_path, capsys):
        baseline = str(tmp_path / "hf.json")
        assert cli.main(["baseline", str(both["pruned-hf"]), "--output", baseline]) == 0
        check = ["check", str(both["pruned-vllm"]), "--baseline", baseline, "--across", "backend"]
        assert cli.main(check) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "passed: 6 fine"

    def test_pruning_reports_agree(self, both):
        hf, vllm = (results_in(folder)["config"]["pruning"] for folder in both.values())
        assert vllm.keys() == hf.keys()
        not_compared = ("seconds", "peak_memory_bytes", "software")
        assert {name: value for name, value in vllm.items() if name not in not_compared} == {
            name: value for name, value in hf.items() if name not in not_compared
        }


def test_a_real_model_on_a_real_benchmark(smollm2, data_folder, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"{n} and {n} are {2 * n}. " * 40}) + "\n" for n in range(8)))
    pruned = f"method=wanda,sparsity=0.1,calib={text},calib_samples=4,calib_seqlen=64,max_model_len=2048"
    done = run(
        "pruned-vllm", f"pretrained={smollm2},{pruned}", "aime24_tts_512", tmp_path, "--limit", "2",
        "--gen_kwargs", "max_gen_toks=64", LM_EVAL_PRUNED_DATA=str(data_folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = results_in(tmp_path)
    assert 0.09 < content["config"]["pruning"]["achieved_sparsity"] <= 0.1
    metrics = content["results"]["aime24_tts_512"]
    assert {f"{name},none" for name in ("acc", "thinking_tokens", "budget_hit", "no_answer", "looping")} <= {*metrics}
    assert 0 < metrics["thinking_tokens,none"] <= 512
    assert "weights of the decoder blocks are zero inside the engine" in done.stderr + done.stdout


def test_a_killed_command_resumes(both, tmp_path):
    store = tmp_path / "responses" / FILE
    arguments = ("pruned-vllm", f"pretrained=tiny-reasoner,{PRUNED},responses={store.parent}", "tiny_tts")
    killed = subprocess.Popen(
        command(*arguments, tmp_path / "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + DEADLINE
    while not stored(store):
        assert killed.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    finished = stored(store)
    assert 0 < finished < 1000
    resumed = run(*arguments, tmp_path / "resumed")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{finished} of 1000 responses are already there" in resumed.stderr + resumed.stdout
    assert stored(store) == 1000
    for budget in BUDGETS:
        one, other = (
            samples_in(folder, f"tiny_tts_{budget}") for folder in (both["pruned-vllm"], tmp_path / "resumed")
        )
        assert [row["resps"] for row in one] == [row["resps"] for row in other]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"load_format": "dummy", "method": "magnitude", "sparsity": 0.1},
            "load_format=dummy cannot be pruned while it loads",
        ),
        ({"gpu_memory_utilisation": 0.5}, "did you mean 'gpu_memory_utilization'?"),
        ({"subfolder": "inner"}, "/inner is not a folder"),
        ({"responses": "/dev/null/there"}, "the response store /dev/null/there"),
    ],
    ids=lambda argument: next(iter(argument)) if isinstance(argument, dict) else "",
)
def test_a_mistake_is_refused_before_an_engine_starts(arguments, message):
    with pytest.raises(PrunedEvalError, match=re.escape(message)):
        PrunedVLLM("tiny-reasoner", **arguments)


def test_a_list_of_plugins_without_ours_is_refused(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "lora_filesystem_resolver")
    assert PrunedVLLM.limits("tiny-reasoner").context
    with pytest.raises(PrunedEvalError, match="set VLLM_PLUGINS=lora_filesystem_resolver,lm_eval_pruned, or unset it"):
        PrunedVLLM("tiny-reasoner", method="magnitude", sparsity=0.2)


def test_a_length_beyond_the_context_is_one_line(tmp_path):
    done = run("pruned-vllm", "pretrained=tiny-reasoner,max_model_len=99999", "tiny_tts_16", tmp_path, "--limit", "1")
    assert "vLLM does not start (" in our_error(done)


def test_a_device_without_memory_is_one_line(tmp_path):
    done = run("pruned-vllm", "pretrained=tiny-reasoner", "tiny_tts_16", tmp_path, VLLM_CPU_KVCACHE_SPACE="100000")
    message = our_error(done)
    assert message.startswith("lm_eval: error: vLLM does not start (")
    assert "Where memory is short, lower max_model_len" in message


def our_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return our one line of error among those that the processes of an engine print as they end."""
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lm_eval: error: ")]
    return line
