"""Results of Inspect and lighteval, in real files that both wrote: README.md in other_tools says how."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from lm_eval_pruned import cli
from lm_eval_pruned.errors import DataError, MissingPackageError
from lm_eval_pruned.results.records.reading import read_records, read_run

FILES = Path(__file__).parent / "other_tools"
STAMP = "2026-11-29T19-52-42.707109"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def lighteval_run(folder: Path, name: str, model: str, **tasks: str) -> Path:
    """Lay out a run as lighteval does: in results/MODEL, and for each task a file in details/MODEL/TIME."""
    results, details = folder / "results" / model, folder / "details" / model / STAMP
    results.mkdir(parents=True)
    details.mkdir(parents=True)
    for task, file in tasks.items():
        shutil.copy(FILES / f"lighteval_{file}.parquet", details / f"details_{task}_{STAMP}.parquet")
    return Path(shutil.copy(FILES / f"lighteval_{name}.json", results / f"results_{STAMP}.json"))


def dense_run(folder: Path) -> Path:
    return lighteval_run(folder, "dense", "tiny-reasoner", **{"chains|0": "dense_chains", "digits|0": "dense_digits"})


class TestInspect:
    @pytest.fixture(autouse=True)
    def library(self):
        pytest.importorskip("inspect_ai")

    def test_a_log(self):
        found = read_run(FILES / "inspect_dense.eval")
        assert (found.configuration.model, found.configuration.label) == ("small/model", "dense")
        assert dict(found.configuration.settings) == {"backend": "told"}
        (result,) = found.results
        assert (result.task, result.filter, result.metric, result.budget) == ("sums", "match", "accuracy", None)
        assert (result.metrics, list(result.errors)) == ({"accuracy": 0.9, "answer_cut": 0.0}, ["accuracy"])
        assert (dict(result.settings), result.seeds) == (
            {"solver": '["generate"]', "temperature": "0.6"},
            (("seed", "3"),),
        )
        assert sorted(result.outcomes.correct) == [0.0] + 9 * [1.0]
        assert result.outcomes.answers is not None
        assert (result.higher_is_better, found.problems) == (True, ())

    def test_two_models_are_compared_question_by_question(self, tmp_path, capsys):
        baseline = tmp_path / "baseline.json"
        assert run("baseline", FILES / "inspect_dense.eval", "--output", baseline) == 0
        assert run("check", FILES / "inspect_dense.eval", "--baseline", baseline) == 0
        assert run("check", FILES / "inspect_pruned.eval", "--baseline", baseline, "--against", "dense") == 1
        # One question was wrong before, and six more are: 2^-6.
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("REGRESSION"))
        assert "sums (match): -60.0 points" in line
        assert "on 10 questions, p = 0.016, 0.016 corrected (McNemar)" in line

    def test_the_page_shows_what_was_written(self, tmp_path):
        page = tmp_path / "page.html"
        logs = [FILES / f"inspect_{name}.eval" for name in ("dense", "pruned")]
        assert run("leaderboard", *logs, "--output", page, "--against", "small/model · dense") == 0
        text = page.read_text()
        assert '"3 + 6?"' in text
        assert "Hm.\\u003c/think\\u003e\\nANSWER: 1000" in text

    def test_every_score_and_every_reduction_of_epochs_has_a_line(self):
        found = read_run(FILES / "inspect_scores.eval")
        assert {(one.filter, one.metric): round(one.metrics[one.metric], 4) for one in found.results} == {
            ("match", "accuracy"): 0.5, ("match max", "accuracy"): 0.75, ("f1", "f1"): 0.335, ("f1 max", "f1"): 0.5025,
            ("two ease", "ease"): 0.5, ("two ease max", "ease"): 0.75, ("two style", "style"): 0.5,
            ("two style max", "style"): 0.5,
        }  # fmt: skip
        by_name = {one.filter: one for one in found.results}
        assert sorted(by_name["match"].outcomes.correct) == [0.0, 0.5, 0.5, 1.0]
        assert sorted(by_name["match max"].outcomes.correct) == [0.0, 1.0, 1.0, 1.0]
        assert by_name["match"].budget == 64
        assert dict(by_name["match"].settings)["epochs"] == "2"
        # Nothing says what more of `style` means.
        assert [by_name[name].higher_is_better for name in ("match", "two style")] == [True, None]

    def test_questions_are_the_same_in_every_run_that_asks_them(self):
        short, long = (read_run(FILES / f"inspect_{name}.eval").results[0].outcomes for name in ("scores", "pruned"))
        assert set(short.questions) < set(long.questions)

    def test_a_log_in_json(self, tmp_path):
        # Known by its content: any name will do.
        shutil.copy(FILES / "inspect_choices.json", tmp_path / "run.json")
        ((found,), problems) = read_records([tmp_path])
        assert (found.results[0].filter, found.results[0].metrics["accuracy"], problems) == (
            "choice",
            pytest.approx(2 / 3),
            [],
        )
        assert dict(found.configuration.settings)["limit"] == "3"

    def test_samples_that_failed_are_left_out_and_named(self):
        found = read_run(FILES / "inspect_some.eval")
        assert len(found.results[0].outcomes.questions) == 9
        assert [problem.partition(" in ")[0] for problem in found.problems] == ["1 of the 10 samples"]

    @pytest.mark.parametrize(
        ("name", "message"), [("failed", "status error, 5 of 10 samples.*eval-retry"), ("unscored", "holds no score")]
    )
    def test_a_log_without_results_says_why(self, name, message):
        with pytest.raises(DataError, match=message):
            read_run(FILES / f"inspect_{name}.eval")

    @pytest.mark.parametrize("size", [0, 1, 5_000, -1])
    def test_a_log_that_is_cut_short_is_named(self, tmp_path, size):
        path = tmp_path / "cut.eval"
        path.write_bytes((FILES / "inspect_dense.eval").read_bytes()[:size])
        with pytest.raises(DataError, match=r"cut\.eval is cut short or not a log of Inspect"):
            read_run(path)

    def test_values_that_do_not_average_to_the_metric_are_not_compared(self, tmp_path):
        from inspect_ai.log import read_eval_log, write_eval_log

        log = read_eval_log(str(FILES / "inspect_dense.eval"))
        log.results.scores[0].metrics["accuracy"].value = 0.7
        write_eval_log(log, str(tmp_path / "log.eval"))
        (result,) = read_run(tmp_path / "log.eval").results
        assert (result.metrics["accuracy"], result.outcomes, result.questions) == (0.7, None, 10)

    @pytest.mark.parametrize("is_counted", [True, False])
    def test_without_its_samples_a_run_has_the_questions_that_it_asked(self, tmp_path, is_counted):
        from inspect_ai.log import read_eval_log, write_eval_log

        log = read_eval_log(str(FILES / "inspect_scores.eval"))
        # Four questions were asked twice. A limit leaves the data set as large as it is.
        log.samples, log.eval.dataset.samples = [], 1000
        for score in () if is_counted else log.results.scores:
            score.scored_samples = None
        write_eval_log(log, str(tmp_path / "log.eval"))
        assert {(one.outcomes, one.questions) for one in read_run(tmp_path / "log.eval").results} == {(None, 4)}

    def test_samples_that_the_log_lacks_are_named(self, tmp_path):
        from inspect_ai.log import read_eval_log, write_eval_log

        log = read_eval_log(str(FILES / "inspect_dense.eval"))
        del log.samples[4:]
        write_eval_log(log, str(tmp_path / "log.eval"))
        assert read_run(tmp_path / "log.eval").problems == (
            f"6 of the 10 scored samples, which {tmp_path / 'log.eval'} lacks",
        )


def test_without_inspect_the_install_command_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'lm-eval-pruned\[inspect\]'"):
        read_run(FILES / "inspect_dense.eval")
    # What else can be read is read.
    assert run("leaderboard", dense_run(tmp_path), FILES / "inspect_dense.eval", "--output", tmp_path / "t.md") == 0
    assert "pip install" in capsys.readouterr().err


class TestLighteval:
    def test_a_results_file_with_its_details(self, tmp_path):
        found = read_run(dense_run(tmp_path))
        assert (found.configuration.model, found.problems) == ("tiny-reasoner", ())
        assert dict(found.configuration.settings)["backend"] == "lighteval"
        digits, chains = found.results
        assert (chains.task, chains.filter, chains.shots, chains.higher_is_better) == ("chains", "none", "0", True)
        # The first metric that the task names, and not f1.
        assert (chains.metric, chains.metrics["ends_right"], list(chains.errors)) == (
            "ends_right",
            0.25,
            ["ends_right", "f1"],
        )
        assert sorted(chains.outcomes.correct) == 6 * [0.0] + 2 * [1.0]
        assert dict(chains.settings) == {"generation_size": "160", "num_fewshot": "0"}
        assert (digits.metric, digits.outcomes.responses, len(digits.outcomes.questions)) == ("acc", None, 8)

    def test_two_models_are_compared_question_by_question(self, tmp_path, capsys):
        dense_run(tmp_path / "dense")
        lighteval_run(tmp_path / "pruned", "pruned", "pruned", **{"chains|0": "pruned_chains"})
        page, table = tmp_path / "page.html", tmp_path / "table.json"
        for output in (page, table):
            assert run("leaderboard", tmp_path, "--output", output, "--against", "tiny-reasoner · dense") == 0
        (line,) = [one for one in json.loads(table.read_text())["lines"] if one["model"] == "pruned"]
        assert (line["difference"], line["harmful"], line["beneficial"]) == (-0.125, 0.25, 0.125)
        assert "mod 10?" in page.read_text()
        baseline = tmp_path / "baseline.json"
        assert run("baseline", tmp_path / "dense", "--output", baseline) == 0
        assert run("check", tmp_path / "dense", "--baseline", baseline) == 0
        assert "2 fine" in capsys.readouterr().out

    def test_the_layout_of_older_versions(self, tmp_path):
        found = read_run(lighteval_run(tmp_path, "older", "tiny-reasoner", **{"custom|digits|0": "older_digits"}))
        chains, digits = found.results
        assert (digits.task, digits.shots, digits.metric, digits.metrics["acc"]) == ("custom|digits", "0", "acc", 0.25)
        # Saved without details, its questions are only counted.
        assert (chains.outcomes, chains.questions) == (None, 8)
        newer = read_run(dense_run(tmp_path / "newer")).results[0]
        assert digits.outcomes.questions.tolist() == newer.outcomes.questions.tolist()

    def test_details_next_to_the_results_as_on_the_hub(self, tmp_path):
        path = dense_run(tmp_path / "run")
        shutil.copytree(tmp_path / "run" / "details" / "tiny-reasoner" / STAMP, tmp_path / "hub" / STAMP)
        moved = shutil.copy(path, tmp_path / "hub")
        assert [one.outcomes is None for one in read_run(Path(moved)).results] == [False, False]

    def test_details_given_instead_of_results_say_so(self):
        with pytest.raises(DataError, match=r"give the results_\*\.json"):
            read_records([FILES / "lighteval_dense_chains.parquet"])

    def test_details_that_are_cut_short_are_named(self, tmp_path):
        path = dense_run(tmp_path)
        (details,) = tmp_path.rglob("details_chains*")
        details.write_bytes(details.read_bytes()[:9_000])
        found = read_run(path)
        assert [one.outcomes is None for one in found.results] == [False, True]
        assert [str(details) in problem and "cut short" in problem for problem in found.problems] == [True]

    @pytest.mark.parametrize(
        "content",
        [
            '{"config_general": {',
            '{"config_general": 1, "results": {}}',
            '{"config_general": {}, "results": {"all": {"acc": 1}}}',
        ],
    )
    def test_a_file_without_results_is_named(self, tmp_path, content):
        path = tmp_path / "results_1.json"
        path.write_text(content)
        with pytest.raises(DataError, match=r"results_1\.json"):
            read_run(path)

    def test_a_file_that_another_program_wrote_in_another_order(self, tmp_path):
        results = {
            "boolq|0": {"accuracy": 0.78, "accuracy_stderr": 0.02, "note": "not a number"},
            "all": {"accuracy": 0.78},
        }
        (tmp_path / "a.json").write_text(json.dumps({"results": results, "config_general": {"max_samples": 5}}))
        ((found,), problems) = read_records([tmp_path])
        (result,) = found.results
        assert (result.task, result.shots, result.metrics, result.outcomes) == ("boolq", "0", {"accuracy": 0.78}, None)
        assert (dict(found.configuration.settings)["limit"], problems) == ("5", [])
