"""Which runs are of one model, which are dense, what they are compared with, and why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.results.leaderboard.entries import LeaderboardLine, build_entries
from lm_eval_pruned.results.records.identity import run_model
from lm_eval_pruned.results.records.reading import read_records
from tests.results.written_runs import write_run

TASK = {"t_tts_16": [1] * 20}
WORSE = {"t_tts_16": [0] * 12 + [1] * 8}
WANDA = {"method": "wanda", "sparsity": 0.5}


def change(path: Path, *, report: dict[str, object] | None = None, **config: object) -> None:
    content = json.loads(path.read_text())
    content["config"].update(config)
    content["config"].setdefault("pruning", {}).update(report or {})
    path.write_text(json.dumps(content))


def as_object(path: Path, loaded: str, **report: object) -> None:
    """Turn a run into that of a model object, for which the harness draws a name."""
    change(path, report=report, model=loaded, model_args=None)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "model_name": "qdpv68r5", "model_source": "CUSTOM"}))


def lines(folder: Path, **options) -> list[LeaderboardLine]:
    return [entry.line for entry in build_entries(read_records([folder]).records, **options)]


def pruned(folder: Path, **options) -> LeaderboardLine:
    (line,) = (line for line in lines(folder, **options) if line.run not in ("dense", "unknown"))
    return line


class TestModel:
    def test_a_drawn_name_is_not_one(self, tmp_path):
        as_object(write_run(tmp_path, TASK), "/models/a")
        as_object(write_run(tmp_path, WORSE, **WANDA, seed=8), "/models/b")
        line = pruned(tmp_path)
        assert (line.model, line.difference, line.reference) == ("/models/b", None, "")
        assert "model /models/a instead of /models/b" in line.why_not_compared

    def test_objects_of_one_path_are_compared(self, tmp_path):
        as_object(write_run(tmp_path, TASK), "/models/a")
        as_object(write_run(tmp_path, WORSE, **WANDA, seed=8), "/models/a")
        assert pruned(tmp_path).difference == pytest.approx(-0.6)

    @pytest.mark.parametrize("loaded", ["", "PrunedHFLM"])
    def test_objects_without_a_name_are_known_by_their_weights(self, tmp_path, loaded):
        as_object(write_run(tmp_path, TASK), loaded, dense_sha256="a" * 64)
        as_object(write_run(tmp_path, WORSE, **WANDA, seed=8), loaded, dense_sha256="a" * 64)
        line = pruned(tmp_path)
        assert (line.model, line.difference) == ("unnamed model aaaaaaaa", pytest.approx(-0.6))

    def test_objects_without_a_name_and_weights_are_equal_to_none(self, tmp_path):
        for seed in (7, 8):
            as_object(write_run(tmp_path, TASK, seed=seed), "PrunedHFLM")
        as_object(write_run(tmp_path, WORSE, **WANDA, seed=9), "PrunedHFLM")
        assert len(lines(tmp_path)) == 3
        assert len({line.settings for line in lines(tmp_path) if line.run == "dense"}) == 2
        assert "does not name" in pruned(tmp_path).why_not_compared

    @pytest.mark.parametrize("seeds", [(7, 7), (7, 8)])
    def test_one_path_with_other_weights_is_another_model(self, tmp_path, seeds):
        for seed, weights in zip(seeds, "ab", strict=True):
            path = write_run(tmp_path / weights, TASK, seed=seed, model="out")
            change(path, report={"dense_sha256": weights * 64})
        assert [line.settings for line in lines(tmp_path)] == [f"weights={one * 16}" for one in "ab"]
        change(write_run(tmp_path, WORSE, **WANDA, model="out"), report={"dense_sha256": "b" * 64})
        assert pruned(tmp_path).reference == "out · dense · weights=bbbbbbbbbbbbbbbb"

    def test_weights_make_two_paths_one_model(self, tmp_path):
        change(write_run(tmp_path, TASK, model="/a"), report={"dense_sha256": "a" * 64})
        change(write_run(tmp_path, WORSE, **WANDA, seed=8, model="b"), report={"dense_sha256": "a" * 64})
        assert pruned(tmp_path).reference == "/a · dense"

    def test_a_relative_path_needs_a_digest(self, tmp_path):
        write_run(tmp_path, TASK, model="./out", backend="hf")
        change(write_run(tmp_path, WORSE, **WANDA, seed=8, model="./out"), report={"dense_sha256": "a" * 64})
        assert "the relative path" in pruned(tmp_path).why_not_compared

    @pytest.mark.parametrize(
        ("config", "name"),
        [
            ({"model": "hf", "model_args": "pretrained=gpt2,dtype=float32"}, "gpt2"),
            ({"model": "hf", "model_args": {"pretrained": "base", "peft": "adapter"}}, "base + adapter"),
            ({"model": "local-completions", "model_args": {"model": "m", "base_url": "http://x"}}, "m"),
            ({"model": "gguf", "model_args": "base_url=http://x"}, "unnamed model (gguf)"),
            ({"model": "hf", "model_args": {"pretrained": "LlamaForCausalLM(\n  (model)"}}, "unnamed model (hf)"),
        ],
    )
    def test_names(self, config, name):
        content = {"config": config, "model_name": "qdpv68r5", "model_source": config["model"]}
        assert run_model(content).name == name


class TestUnknown:
    def test_a_path_of_another_machine_is_unpruned_only_next_to_what_was_made_from_it(self, tmp_path):
        path = write_run(tmp_path, TASK, model="/gone/model", backend="hf")
        content = json.loads(path.read_text())
        content["config"]["thinking"] = "tiny"
        path.write_text(json.dumps(content))
        (alone,) = lines(tmp_path)
        assert alone.run == "unknown"
        assert "it is not known whether this model was pruned" in alone.why_not_compared
        write_run(tmp_path, WORSE, **WANDA, seed=8, model="/gone/model")
        line = pruned(tmp_path)
        assert (line.difference, line.reference) == (pytest.approx(-0.6), "/gone/model · unknown")
        assert [line.why_not_compared for line in lines(tmp_path)] == ["", ""]

    @pytest.mark.parametrize(
        ("model", "commit", "run"),
        [
            ("Qwen/Qwen3-8B", "", "dense"),
            ("gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", "dense"),
            ("pruned", "", "unknown"),
            ("./mine", "", "unknown"),
        ],
    )
    def test_a_name_of_the_hub_is_the_model_as_published(self, tmp_path, model, commit, run):
        path = write_run(tmp_path, TASK, model=model, backend="hf")
        content = json.loads(path.read_text())
        content["config"]["model_sha"] = commit
        path.write_text(json.dumps(content))
        assert [line.run for line in lines(tmp_path)] == [run]

    def test_an_object_without_a_report_may_be_anything(self, tmp_path):
        as_object(write_run(tmp_path, TASK, backend="hf"), "/models/a")
        content = json.loads((path := next(tmp_path.glob("results*"))).read_text())
        del content["config"]["pruning"]
        path.write_text(json.dumps(content))
        assert [line.run for line in lines(tmp_path)] == ["unknown"]


class TestDense:
    def test_zeros_without_a_method_are_said_and_replace_nothing(self, tmp_path):
        write_run(tmp_path, TASK, seed=7)
        change(
            write_run(tmp_path, {"t_tts_16": [0] * 20}, seed=7, day=3, achieved=0.69998),
            report={"dense_sha256": "c" * 64},
        )
        write_run(tmp_path, WORSE, **WANDA, seed=9)
        found = {line.run: line for line in lines(tmp_path)}
        assert set(found) == {"dense", "70 % zero, no method given", "wanda uniform 0.5"}
        assert found["wanda uniform 0.5"].difference == pytest.approx(-0.6)
        assert found["dense"].acc == 1.0

    def test_zeros_of_the_weights_that_were_pruned_are_a_reference(self, tmp_path):
        """A dequantised checkpoint has zeros of its own."""
        weights = {"dense_sha256": "c" * 64}
        change(write_run(tmp_path, TASK, seed=7, achieved=0.05), report=weights)
        change(write_run(tmp_path, WORSE, **WANDA, seed=9), report=weights)
        found = {line.run: line for line in lines(tmp_path)}
        assert found["wanda uniform 0.5"].reference == "tiny-reasoner · 5 % zero, no method given"
        assert found["5 % zero, no method given"].why_not_compared == ""

    def test_a_checkpoint_with_a_note_is_its_original_pruned(self, tmp_path):
        write_run(tmp_path, TASK, model="org/m")
        path = write_run(tmp_path, WORSE, **WANDA, seed=8, model="ckpt")
        change(path, report={"original": {"pretrained": "org/m"}})
        line = pruned(tmp_path)
        assert (line.model, line.run, line.reference) == ("org/m", "wanda uniform 0.5", "org/m · dense")


class TestWhy:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"kwargs": {"temperature": 0.6}}, "temperature 0.6 instead of unset"),
            ({"model": "other"}, "model other instead of tiny-reasoner"),
            ({"has_samples": False}, "--log_samples"),
        ],
    )
    def test_the_nearest_and_what_differs(self, tmp_path, options, reason):
        write_run(tmp_path, TASK, **options)
        write_run(tmp_path, WORSE, **WANDA, seed=8)
        assert reason in pruned(tmp_path).why_not_compared

    def test_a_chat_template_is_named(self, tmp_path):
        write_run(tmp_path, TASK)
        path = write_run(tmp_path, WORSE, **WANDA, seed=8)
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template_sha": "abc"}))
        assert "chat_template_sha unset instead of abc" in pruned(tmp_path).why_not_compared

    def test_no_run_at_all(self, tmp_path):
        write_run(tmp_path, WORSE, **WANDA)
        assert "no run of an unpruned model" in pruned(tmp_path).why_not_compared

    def test_areas_over_other_budgets_are_not_compared(self, tmp_path):
        write_run(tmp_path, {"t_tts_16": [1] * 9, "t_tts_32": [1] * 9})
        write_run(tmp_path, {f"t_tts_{budget}": [1] * 9 for budget in (16, 32, 64)}, **WANDA, seed=8)
        area = next(line for line in lines(tmp_path) if line.run != "dense" and line.budget is None)
        assert (area.difference, "other budgets" in area.why_not_compared) == (None, True)


class TestAgainst:
    @pytest.fixture
    def runs(self, tmp_path):
        write_run(tmp_path, TASK, model="org/a")
        write_run(tmp_path, WORSE, model="org/a-chat", seed=8)
        write_run(tmp_path, WORSE, **WANDA, seed=9, model="org/a")
        return tmp_path

    @pytest.mark.parametrize("label", ["org/a-chat · dense", "ORG/A-CHAT dense", "chat"])
    def test_everything_is_compared_with_one_run(self, runs, label):
        found = lines(runs, against=label)
        assert [line.reference for line in found if line.model == "org/a"] == ["org/a-chat · dense"] * 2
        assert [(line.reference, line.why_not_compared) for line in found if "chat" in line.model] == [("", "")]

    @pytest.mark.parametrize(
        ("label", "message"),
        [("dense", "org/a · dense; org/a-chat · dense"), ("wnada", "Known: org/a · dense"), ("", "Known: org/a")],
    )
    def test_unknown_and_ambiguous_labels_list_the_choices(self, runs, capsys, label, message):
        assert cli.main(["leaderboard", str(runs), "--output", str(runs / "t.md"), "--against", label]) == 2
        assert message in capsys.readouterr().err

    def test_the_gate_compares_with_a_run_of_the_baseline(self, runs, tmp_path, capsys):
        baseline = tmp_path / "b.json"
        assert cli.main(["baseline", str(runs), "--output", str(baseline)]) == 0
        new = write_run(tmp_path / "new", WORSE, model="other").parent
        arguments = ["check", str(new), "--baseline", str(baseline), "--against"]
        assert cli.main([*arguments, "a-chat"]) == 0
        assert cli.main([*arguments, "org/a · dense"]) == 1
        assert "REGRESSION    other · dense · t_tts_16: -60.0 points" in capsys.readouterr().out

    @pytest.mark.parametrize("word", ["bakend", "sparsity", "model"])
    def test_across_takes_no_word_without_an_effect(self, runs, tmp_path, capsys, word):
        baseline = tmp_path / "b.json"
        assert cli.main(["baseline", str(runs), "--output", str(baseline)]) == 0
        assert cli.main(["check", str(runs), "--baseline", str(baseline), "--across", word]) == 2
        assert f"unknown setting in --across '{word}'" in capsys.readouterr().err
