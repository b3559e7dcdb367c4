"""Checkpoints that are torn, incomplete, not reachable, or that bring code of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM

from lm_eval_pruned import cli
from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.errors import ArgumentError, DataError, MissingDataError, PrunedEvalError
from lm_eval_pruned.models.arguments import accepted_arguments
from lm_eval_pruned.models.hf import HFLM, PrunedHFLM
from lm_eval_pruned.paths import assets_folder

TINY = assets_folder() / "tiny_reasoner"
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
WEIGHTS = "model.safetensors"
QUESTION = next(iter(benchmark_chains())).problem


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the bundled model, to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (*FILES, WEIGHTS):
        shutil.copy(TINY / name, folder)
    return folder


def load(folder: Path | str, **arguments: object) -> PrunedHFLM:
    return PrunedHFLM(str(folder), method="magnitude", sparsity=0.1, artifacts="off", **arguments)


def prune(folder: Path | str, *more: str) -> int:
    output = str(Path(folder, "..", "pruned").resolve()) if Path(folder).is_absolute() else "/nowhere"
    flags = ["--method", "magnitude", "--sparsity", "0.1", "--artifacts", "off", "--output", output, *more]
    return cli.main(["prune", "--pretrained", str(folder), *flags])


def ask(loaded: PrunedHFLM, *, budget: int = 8) -> str:
    kwargs = {"thinking_token_budget": budget, "max_gen_toks": 8}
    (text,) = loaded.generate_until(
        [Instance("generate_until", {}, (QUESTION, kwargs), idx=0, task_name="", doc_id=0)], disable_tqdm=True
    )
    return text


def cut(folder: Path, name: str, *, size: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:size])


def change(path: Path, **fields: object) -> None:
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


class TestTorn:
    @pytest.mark.parametrize(
        ("name", "size"),
        [(WEIGHTS, 0), (WEIGHTS, 5), (WEIGHTS, 500_000), ("tokenizer.json", 2000), ("config.json", 20)],
    )
    def test_the_file_is_named(self, model, capsys, name, size):
        cut(model, name, size=size)
        with pytest.raises((DataError, MissingDataError), match=name.replace(".", r"\.")):
            load(model)
        assert prune(model) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert str(model / name) in line

    def test_json_that_is_not_an_object(self, model):
        (model / "config.json").write_text("[]")
        with pytest.raises(DataError, match=r"config\.json does not hold a JSON object"):
            load(model)

    @pytest.fixture
    def shards(self, model) -> list[Path]:
        (model / WEIGHTS).unlink()
        AutoModelForCausalLM.from_pretrained(TINY).save_pretrained(model, max_shard_size="2MB")
        return sorted(model.glob("*.safetensors"))

    def test_a_shard_that_is_missing(self, model, shards):
        shards[1].unlink()
        with pytest.raises(DataError, match=rf"lacks {shards[1].name}, which its index names"):
            load(model)

    def test_a_shard_that_is_cut_short(self, model, shards):
        cut(model, shards[1].name, size=2000)
        with pytest.raises(DataError, match=rf"{shards[1].name} is torn or cannot be read"):
            load(model)

    def test_another_error_passes_as_it_is(self, model):
        change(model / "config.json", hidden_act="no such function")
        with pytest.raises(Exception, match=r".") as raised:
            load(model)
        assert not isinstance(raised.value, PrunedEvalError)


class TestUnreachable:
    """A cache of the hub as an interrupted download leaves it; HF_HUB_OFFLINE is set while tests run."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def test_an_unknown_model(self, capsys):
        with pytest.raises(MissingDataError, match=r"pretrained=no/such cannot be loaded: check the name"):
            load("no/such")
        assert prune("no/such") == 2
        assert capsys.readouterr().err.count("\n") == 1

    @pytest.mark.slow
    def test_a_download_that_was_interrupted(self, tmp_path):
        cache = tmp_path / "hub" / "models--some--model"
        snapshot = cache / "snapshots" / self.COMMIT
        for folder in (snapshot, cache / "refs", cache / "blobs"):
            folder.mkdir(parents=True)
        (cache / "refs" / "main").write_text(self.COMMIT)
        for name in FILES:
            shutil.copy(TINY / name, snapshot)
        (cache / "blobs" / f"{'a' * 64}.incomplete").write_bytes((TINY / WEIGHTS).read_bytes()[:1000])
        command = [
            *(sys.executable, "-m", "lm_eval", "--model", "pruned-hf", "--tasks", "tiny_tts_16", "--limit", "1"),
            *("--model_args", "pretrained=some/model,method=magnitude,sparsity=0.1"),
        ]
        environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("lm_eval: error: pretrained=some/model cannot be loaded")

    @pytest.mark.parametrize("name", ["../../x", "a/b/c", "a\0b", "a\nb", "x" * 5000, "..", "é/ü", "\ud800", " "])
    def test_names_that_are_not_a_model(self, name):
        with pytest.raises(PrunedEvalError):
            load(name)


class TestChatTemplates:
    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            ("{% for m in messages %}{{ m.content ", "TemplateSyntaxError"),
            ("{{ raise_exception('only the system may speak') }}", "only the system may speak"),
            ("{{ 1 // 0 }}", "ZeroDivisionError"),
            ("{{ messages[7].content.x }}", "UndefinedError"),
            ("{{ messages[0].content + 1 }}", "TypeError"),
            ("<|im_start|>assistant\n", "leaves out what the user says"),
        ],
    )
    def test_one_that_cannot_be_used_is_named(self, model, template, reason):
        (model / "chat_template.jinja").write_text(template)
        loaded = load(model)
        with pytest.raises(DataError, match=rf"{reason}.*auto_chat_template=False"):
            ask(loaded)
        assert ask(load(model, auto_chat_template=False))


class TestTokenizers:
    def test_without_a_token_for_padding(self, model):
        wanted = ask(load(model))
        change(model / "tokenizer_config.json", pad_token=...)
        for name in ("config.json", "generation_config.json"):
            change(model / name, pad_token_id=...)
        assert ask(load(model)) == wanted

    def test_without_an_end_of_sequence(self, model):
        """Then the end tokens that its vocabulary has by their usual names end a text."""
        wanted = ask(load(model))
        change(model / "tokenizer_config.json", pad_token=..., eos_token=...)
        for name in ("config.json", "generation_config.json"):
            change(model / name, pad_token_id=..., eos_token_id=...)
        with pytest.raises(DataError, match=r"neither a bos nor an eos token.*prefix_token_id"):
            load(model)
        loaded = load(model, prefix_token_id=0)
        ends = loaded.tokenizer.convert_ids_to_tokens(sorted(loaded._backend().end_tokens()))
        assert ends == ["<|endoftext|>", "<|im_end|>"]
        assert ask(loaded) == wanted


class TestCodeOfACheckpoint:
    """A checkpoint whose own code leaves a mark where it is imported."""

    @pytest.fixture
    def mark(self, model, tmp_path, monkeypatch) -> Path:
        mark = tmp_path / "imported"
        (model / "custom.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n")
        monkeypatch.setattr("builtins.input", lambda *_: "y")
        return mark

    @pytest.fixture(params=["config", "tokenizer"])
    def with_code(self, request, model, mark) -> Path:
        if request.param == "config":
            auto_map = {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
            change(model / "config.json", auto_map=auto_map, model_type="mine", architectures=["Model"])
        else:
            auto_map = {"AutoTokenizer": ["custom.Model", None]}
            change(model / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Model")
        return model

    @pytest.mark.parametrize("call", [load, prune], ids=["pruned-hf", "prune"])
    def test_it_does_not_run(self, with_code, mark, call: Callable[[Path], object]):
        try:
            call(with_code)
        except PrunedEvalError as error:
            assert "trust_remote_code" in str(error)  # noqa: PT017
        assert not mark.exists()

    def test_nor_for_a_plan_or_a_look_at_the_arguments(self, model, mark, capsys):
        change(model / "config.json", auto_map={"AutoConfig": "custom.Config"}, model_type="mine")
        assert cli.main(["plan", "--pretrained", str(model), "--method", "magnitude", "--sparsity", "0.1"]) == 2
        accepted_arguments(HFLM, str(model), ["neither_this_nor_that"])
        assert not mark.exists()

    def test_it_would_have_run(self, model, mark):
        """The test above can fail: with the flag the code is imported."""
        change(model / "config.json", auto_map={"AutoConfig": "custom.Config"}, model_type="mine")
        with pytest.raises(Exception, match=r"."):
            load(model, trust_remote_code=True)
        assert mark.exists()

    @pytest.mark.parametrize("given", ["False", "no", 1, 0])
    def test_trust_is_a_yes_or_a_no(self, given):
        with pytest.raises(ArgumentError, match="neither True nor False"):
            load("tiny-reasoner", trust_remote_code=given)
