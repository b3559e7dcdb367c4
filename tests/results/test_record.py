"""Reading of results files: configurations, seeds, budgets, metrics and malformed files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lm_eval_pruned.errors import DataError, MissingDataError
from lm_eval_pruned.results.records.reading import find_results, read_records
from lm_eval_pruned.results.records.record import Record, read_record
from tests.results.written_runs import row, write_run

CURVE = {"tiny_tts_16": [0, 1, 0, 1], "tiny_tts_64": [1, 1, 0, 1]}


def read(folder: Path, content: dict[str, object], **files: list[dict[str, object]]) -> Record:
    path = folder / "results_2026-01-01T10-00-00.1.json"
    path.write_text(json.dumps(content))
    for task, rows in files.items():
        name = f"samples_{task}_2026-01-01T10-00-00.1.jsonl"
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in rows))
    return read_record(path)


def edited(path: Path, **changes: object) -> Record:
    content = json.loads(path.read_text())
    content["config"] |= changes
    path.write_text(json.dumps(content))
    return read_record(path)


class TestOurs:
    def test_a_run(self, tmp_path):
        found = read_record(write_run(tmp_path, CURVE, method="wanda", sparsity=0.2, achieved=0.1995))
        assert (found.configuration.model, found.configuration.label) == ("tiny-reasoner", "wanda uniform 0.2")
        assert (found.sparsity, found.problems) == (0.1995, ())
        first, second = found.results
        assert (first.task, first.benchmark, first.budget, first.filter) == ("tiny_tts_16", "tiny_tts", 16, "none")
        assert first.metric == "acc"
        assert first.metrics == {
            "acc": 0.5, "thinking_tokens": 12.5, "budget_hit": 0.5, "no_answer": 0.25, "looping": 0.125,
            "loop_onset": 0.9, "rep-2": 0.375,
        }  # fmt: skip
        assert list(first.errors) == ["acc"]
        assert second.outcomes is not None
        assert sorted(second.outcomes.correct) == [0, 1, 1, 1]

    def test_questions_are_the_same_under_every_budget(self, tmp_path):
        first, second = read_record(write_run(tmp_path, CURVE)).results
        assert first.outcomes.questions.tolist() == second.outcomes.questions.tolist()

    def test_without_samples_there_are_no_outcomes(self, tmp_path):
        found = read_record(write_run(tmp_path, CURVE, has_samples=False))
        assert [one.outcomes for one in found.results] == [None, None]
        assert found.problems == ()

    def test_names_longer_than_a_file_may_have_belong_to_no_file(self, tmp_path):
        path = write_run(tmp_path, {f"{'t' * 300}_tts_8": [0, 1]}, has_samples=False)
        (result,) = edited(path, model_args=f"pretrained=tiny-reasoner,blocks={'8+' * 200}").results
        assert (result.metrics["acc"], result.outcomes) == (0.5, None)

    def test_seeds_are_no_part_of_a_configuration(self, tmp_path):
        one, other = (read_record(write_run(tmp_path, CURVE, seed=seed)) for seed in (7, 11))
        assert one.configuration == other.configuration
        assert one.results[0].settings == other.results[0].settings
        assert one.results[0].seeds != other.results[0].seeds
        again = edited(tmp_path / "results_2026-01-01T10-00-00.000007.json", random_seed=5)
        assert (again.configuration, again.seeds == one.seeds) == (one.configuration, False)

    @pytest.mark.parametrize(
        ("name", "value"), [("batch_size", 8), ("device", "cuda:1"), ("responses", "/store"), ("share_traces", False)]
    )
    def test_where_it_ran_is_no_part_of_a_configuration(self, tmp_path, name, value):
        path = write_run(tmp_path, CURVE)
        before = read_record(path).configuration
        arguments = json.loads(path.read_text())["config"]["model_args"]
        assert edited(path, model_args={**arguments, name: value}).configuration == before

    @pytest.mark.parametrize(("name", "value"), [("dtype", "float16"), ("max_length", 512)])
    def test_what_decides_answers_is(self, tmp_path, name, value):
        path = write_run(tmp_path, CURVE)
        before = read_record(path).configuration
        arguments = json.loads(path.read_text())["config"]["model_args"]
        assert edited(path, model_args={**arguments, name: value}).configuration != before

    def test_a_pruning_setting_that_is_new_changes_nothing_at_its_default(self, tmp_path):
        path = write_run(tmp_path, CURVE, method="wanda", sparsity=0.2)
        report = json.loads(path.read_text())["config"]["pruning"]
        before = read_record(path).configuration
        report["config"] |= {"owl_m": 7.0, "num_blocks": None}
        assert edited(path, pruning=report).configuration == before
        report["config"]["owl_m"] = 5.0
        assert edited(path, pruning=report).configuration.label == "wanda uniform 0.2 owl_m=5"

    @pytest.mark.parametrize(
        ("task", "settings"),
        [
            ({"repeats": 1}, ()),
            ({"repeats": 4}, (("num_samples", "4"),)),
            ({"repeats": 4, "metadata": {"num_samples": 4}}, (("num_samples", "4"),)),
            ({"generation_kwargs": {"temperature": 1, "seed": 3, "thinking_token_budget": 8}}, (("temperature", "1"),)),
            ({"metadata": {"examples": 4, "form": "words"}}, (("examples", "4"), ("form", "words"))),
            ({"metadata": {"examples": 0}}, ()),
            ({"generation_kwargs": {"thinking_token_budget": "auto"}}, (("thinking_token_budget", "auto"),)),
        ],
    )
    def test_how_a_task_was_asked(self, tmp_path, task, settings):
        found = read(tmp_path, {"results": {"t": {"acc,none": 1.0}}, "configs": {"t": task}, "config": {}})
        assert found.results[0].settings == settings

    @pytest.mark.parametrize(
        ("task", "given", "budget"),
        [
            ("mine", {"thinking_token_budget": 8}, 8),
            ("mine", {"max_tokens_thinking": 9}, 9),
            # The alias comes from the command line, the other name from the task's file.
            ("t_tts_512", {"thinking_token_budget": 512, "max_tokens_thinking": 1024}, 1024),
            ("t_tts_512", {"thinking_token_budget": 1024}, 1024),
            ("t_tts_512", {"thinking_token_budget": "auto"}, None),
            ("t_tts_512", {}, 512),
            ("mine", {}, None),
        ],
    )
    def test_the_budget_is_the_one_that_was_in_force(self, tmp_path, task, given, budget):
        configs = {task: {"generation_kwargs": given}}
        (found,) = read(tmp_path, {"results": {task: {"acc,none": 1.0}}, "configs": configs, "config": {}}).results
        assert (found.budget, found.benchmark) == (budget, "mine" if task == "mine" else "t_tts")

    @pytest.mark.parametrize(
        ("config", "label"),
        [
            ({"method": "shortgpt", "num_blocks": 2, "compare": "row"}, "shortgpt 2 blocks"),
            ({"method": "width", "sparsity": 0.2, "scope": "mlp"}, "width 0.2"),
            ({"method": "wanda", "sparsity": 0.2, "scope": "mlp"}, "wanda uniform 0.2 scope=mlp"),
        ],
    )
    def test_labels(self, tmp_path, config, label):
        assert edited(write_run(tmp_path, CURVE), pruning={"config": config}).configuration.label == label


class TestOthers:
    def test_several_filters_of_a_stock_task(self, tmp_path):
        rows = [
            row("gsm8k", i, i % 2, metric="exact_match", filter_name=f) for i in range(4) for f in ("strict", "loose")
        ]
        found = read(
            tmp_path,
            {
                "results": {
                    "gsm8k": {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.1, "exact_match,loose": 0.5},
                    "group": {"acc,none": 0.7},
                },
                "configs": {"gsm8k": {"generation_kwargs": {"until": ["Q:"], "do_sample": False}, "num_fewshot": 5}},
                "config": {"model": "vllm", "model_args": "pretrained=Qwen/Qwen3-8B,dtype=auto", "limit": None},
            },
            gsm8k=rows,
        )
        assert [(one.task, one.filter, one.metric, one.budget) for one in found.results] == [
            ("gsm8k", "strict", "exact_match", None), ("gsm8k", "loose", "exact_match", None),
        ]  # fmt: skip
        assert all(one.outcomes is not None and len(one.outcomes.correct) == 4 for one in found.results)
        assert (found.configuration.model, found.configuration.label) == ("Qwen/Qwen3-8B", "dense")
        assert ("num_fewshot", "5") in found.results[0].settings
        assert found.sparsity is None

    def test_perplexities_have_no_outcomes(self, tmp_path):
        rows = [row("wiki", i, 0.0, metric="word_perplexity") | {"word_perplexity": [-3.0, 4]} for i in range(3)]
        found = read(tmp_path, {"results": {"wiki": {"word_perplexity,none": 9.5}}, "config": {}}, wiki=rows)
        assert (found.results[0].metric, found.results[0].outcomes, found.problems) == ("word_perplexity", None, ())

    def test_accuracy_comes_before_other_metrics(self, tmp_path):
        found = read(tmp_path, {"results": {"arc": {"acc_norm,none": 0.3, "acc,none": 0.2}}, "config": {}})
        assert found.results[0].metric == "acc"

    def test_nothing_measured(self, tmp_path):
        with pytest.raises(DataError, match="t has no metric: with --predict_only nothing is measured"):
            read(tmp_path, {"results": {"t": {"alias": "t"}}, "config": {}, "configs": {"t": {}}})


class TestBroken:
    @pytest.mark.parametrize(
        "content",
        [
            "", "{", "[]", "{}", "3", '{"results": {}}', '{"results": {}, "config": 3}', "\xff", "[" * 100_000,
            '{"results": [], "config": {}}', '{"results": {"t": 3}, "config": {}}', '{"results": 1, "config": {}}',
            '{"results": {"t": {"acc,none": 1}}, "config": {"pruning": []}}',
            '{"results": {"t": {"acc,none": 1}}, "config": {"pruning": {"config": "x"}}}',
        ],
    )  # fmt: skip
    def test_a_foreign_file_is_named(self, tmp_path, content):
        path = tmp_path / "results_1.json"
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=r"results_1\.json (is not a results file|cannot be read)"):
            read_record(path)

    def test_any_beginning_of_a_results_file_is_refused(self, tmp_path):
        path = write_run(tmp_path, CURVE, has_samples=False)
        whole = path.read_bytes()
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError):
                read_record(path)

    def test_samples_cut_short_cost_their_task_alone(self, tmp_path):
        path = write_run(tmp_path, CURVE)
        samples = next(tmp_path.glob("samples_tiny_tts_16_*"))
        whole = samples.read_bytes()
        for length in (len(whole) - 2, len(whole) * 2 // 3):
            samples.write_bytes(whole[:length])
            found = read_record(path)
            assert [one.outcomes is None for one in found.results] == [True, False]
            assert len(found.problems) == 1
            assert samples.name in found.problems[0]

    def test_samples_that_end_between_two_lines_are_counted(self, tmp_path):
        path = write_run(tmp_path, CURVE)
        samples = next(tmp_path.glob("samples_tiny_tts_16_*"))
        samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:3]))
        (problem,) = read_record(path).problems
        assert problem.endswith("holds 3 of 4 questions")

    def test_a_folder_with_good_and_bad(self, tmp_path):
        write_run(tmp_path / "a", CURVE)
        (tmp_path / "results_torn.json").write_text('{"results": {')
        (tmp_path / "results_other.json").write_text('{"accuracy": 0.5}')
        records, problems = read_records([tmp_path])
        assert len(records) == 1
        named = {name for name in ("torn", "other") if any(f"results_{name}" in one for one in problems)}
        assert (len(problems), named) == (2, {"torn", "other"})

    def test_nothing_but_bad(self, tmp_path):
        (tmp_path / "results_torn.json").write_text("{")
        with pytest.raises(DataError, match="none of the 1 results files can be read"):
            read_records([tmp_path])


class TestFinding:
    def test_each_file_once_and_oldest_first(self, tmp_path):
        for day, name in ((3, "b"), (1, "a"), (2, "b/c")):
            write_run(tmp_path / name, CURVE, day=day)
        records, _ = read_records([tmp_path, tmp_path / "b", next(tmp_path.glob("a/results*"))])
        assert [record.path.name[8:18] for record in records] == ["2026-01-01", "2026-01-02", "2026-01-03"]

    def test_an_empty_folder_says_what_to_do(self, tmp_path):
        with pytest.raises(MissingDataError, match="run lm_eval with --output_path"):
            find_results([tmp_path])

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(MissingDataError, match=r"there is no .*nowhere"):
            find_results([tmp_path / "nowhere"])
