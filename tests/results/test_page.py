"""Page without a browser: its data, and that none of it can become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lm_eval_pruned.errors import DataError
from lm_eval_pruned.grading.extract.extract import extract
from lm_eval_pruned.results.comparison import Pair
from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.leaderboard.page.changes import find_changes, select_changes
from lm_eval_pruned.results.leaderboard.page.content import page_content
from lm_eval_pruned.results.leaderboard.page.document import escape_json, render_page
from lm_eval_pruned.results.leaderboard.page.texts import shorten
from lm_eval_pruned.results.leaderboard.published import read_reference
from lm_eval_pruned.results.limits import MAX_CHANGES, MAX_CHARACTERS, MAX_LOST, MAX_WON
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.results.records.samples import Outcomes, find_rows
from tests.results.written_runs import write_run

DENSE = {"t_tts_16": [1] * 18 + [0] * 2, "t_tts_32": [1] * 20}
PRUNED = {"t_tts_16": [0] * 12 + [1] * 8, "t_tts_32": [0] * 3 + [1] * 17}
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>",
    "\"'`${alert(1)}\u2028\u2029",
    "\ud800",
]


class Tags(HTMLParser):
    """Collects every tag with its attributes, and the text of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def make(folder: Path, reference: Path | None = None) -> dict:
    records = read_records([folder]).records
    return page_content(build_entries(records, read_reference(reference) if reference else []), records, extract)


def rows(content: dict) -> list[dict]:
    return [dict(zip(content["columns"], line, strict=True)) for line in content["lines"]]


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def rewrite(folder: Path, **changed: object) -> None:
    """Change fields of every row of every samples file."""
    for path in folder.glob("samples_*"):
        found = [{**json.loads(line), **changed} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs", DENSE)
    write_run(tmp_path / "runs", PRUNED, method="wanda", sparsity=0.2, seed=8, achieved=0.1995)
    return tmp_path / "runs"


class TestContent:
    def test_lines_are_those_of_the_leaderboard(self, runs):
        records = read_records([runs]).records
        found = rows(make(runs))
        assert [(line["task"], line["budget"], line["acc"]) for line in found] == [
            (entry.line.task, entry.line.budget, entry.line.acc) for entry in build_entries(records)
        ]
        assert [line["area"] for line in found] == [False] * 4 + [True] * 2

    def test_runs_are_taken_apart(self, runs):
        dense, wanda = make(runs)["runs"]
        assert (dense["method"], dense["alloc"], dense["amount"]) == ("dense", "", "")
        assert (wanda["method"], wanda["alloc"], wanda["amount"]) == ("wanda", "uniform", "0.2")
        assert not wanda["published"]

    def test_changes_are_counted_and_shown(self, runs):
        content = make(runs)
        found = rows(content)
        assert [(line["lost"], line["won"]) for line in found if line["run"]] == [(12, 2), (3, 0), (None, None)]
        assert {place: len(shown) for place, shown in content["changes"].items()} == {1: 14, 3: 3}
        question, new, old, own, dense = content["changes"][3][0]
        assert (new, old) == (0, 1)
        assert content["questions"][question][1] == "7"
        # Each response ends in the seed of its run.
        assert [content["responses"][one][0][-1] for one in (own, dense)] == ["8", "7"]

    def test_both_responses_with_their_answers(self, runs):
        pruned = max(runs.glob("results_*")).name.removeprefix("results_").removesuffix(".json")
        for path in runs.glob("samples_*"):
            answer = "3" if pruned in path.name else "7"
            found = [json.loads(line) for line in path.read_text().splitlines()]
            for row in found:
                row["resps"] = row["filtered_resps"] = [[f"<think>\n</think>\n\\boxed{{{answer}}}", "another"]]
            path.write_text("".join(json.dumps(row) + "\n" for row in found))
        content = make(runs)
        _, _, _, own, dense = content["changes"][3][0]
        assert content["responses"][own] == ("<think>\n</think>\n\\boxed{3}", "3")
        assert content["responses"][dense][1] == "7"

    @pytest.mark.parametrize("is_embedded", [True, False], ids=["in the results", "named by the arguments"])
    def test_samples_that_older_versions_and_python_callers_leave_elsewhere(self, runs, is_embedded):
        expected = make(runs)["changes"]
        for place, path in enumerate(sorted(runs.glob("results_*"))):
            content = json.loads(path.read_text())
            content["config"]["model_args"] = arguments = f"pretrained=tiny-reasoner,method={('none', 'wanda')[place]}"
            for file in runs.glob(f"samples_*_{path.stem.removeprefix('results_')}.jsonl"):
                task = re.fullmatch(r"samples_(.*)_.*", file.stem)[1]
                if is_embedded:
                    found = [json.loads(line) for line in file.read_text().splitlines()]
                    content.setdefault("samples", {})[task] = found
                    file.unlink()
                else:
                    file.rename(runs / f"{arguments.replace('=', '__')}_{task}.jsonl")
            path.write_text(json.dumps(content))
        content = make(runs)
        assert content["changes"] == expected
        question, *_, own, dense = content["changes"][3][0]
        assert content["questions"][question][1] == "7"
        assert [content["responses"][one][0][-1] for one in (own, dense)] == ["8", "7"]

    def test_texts_are_shared_and_shorten(self, runs):
        rewrite(runs, resps=[["a" * 10_000]])
        content = make(runs)
        assert len(content["responses"]) == 1
        assert "[… 7,000 characters left out …]" in content["responses"][0][0]

    @pytest.mark.parametrize("odd", [None, 3, [], {}, [[None]], [["-1.5", "True"]], {"a": ["x"]}])
    def test_whatever_stands_in_a_row(self, runs, odd):
        for name in ("resps", "filtered_resps", "target", "doc", "arguments"):
            rewrite(runs, **{name: odd})
            json.loads(escape_json(make(runs)), parse_constant=pytest.fail)

    def test_what_was_scored_was_not_written(self, runs):
        # The harness writes the log-likelihoods of choices as texts.
        rewrite(
            runs, resps=[[["-3.1", "False"]], [["-2.0", "True"]]], filtered_resps=[["-3.1", "False"], ["-2.0", "True"]]
        )
        assert set(make(runs)["responses"]) == {("", "")}

    def test_a_configuration_is_one_run_where_one_budget_was_asked_in_another_way(self, tmp_path):
        write_run(tmp_path, DENSE)
        write_run(tmp_path, {"t_tts_16": DENSE["t_tts_16"]}, kwargs={"temperature": 0.5}, day=2)
        write_run(tmp_path, {"t_tts_16": DENSE["t_tts_16"]}, backend="pruned-vllm", day=3)
        settings = [run["settings"] for run in make(tmp_path)["runs"]]
        assert sorted(settings) == ["backend=pruned-hf", "backend=pruned-hf temperature=0.5", "backend=pruned-vllm"]

    def test_runs_without_samples_have_no_changes(self, tmp_path):
        write_run(tmp_path, DENSE, has_samples=False)
        write_run(tmp_path, PRUNED, method="wanda", sparsity=0.2, has_samples=False, seed=8)
        assert make(tmp_path)["changes"] == {}

    def test_published_rows(self, runs, tmp_path):
        path = tmp_path / "published.csv"
        path.write_text(
            "model,method,allocation,sparsity,budget,task,acc,source\nm,wanda,layer if,0.20,16,t,0.5,table 1\n"
            "m,none,,,16,t,0.6,\nm,shortgpt,2block,,16,t,0.4,\n"
        )
        published = [run for run in make(runs, path)["runs"] if run["published"]]
        assert [(run["method"], run["alloc"], run["amount"]) for run in published] == [
            ("dense", "", ""), ("wanda", "layer if", "0.2"), ("shortgpt", "2block", ""),
        ]  # fmt: skip

    def test_blocks_of_the_report(self, runs):
        path = max(runs.glob("results_*"))
        content = json.loads(path.read_text())
        content["config"]["pruning"]["blocks"] = [{"index": 0, "attn": 0.25, "mlp": 0.5, "achieved": 0.375}]
        path.write_text(json.dumps(content))
        assert [run["blocks"] for run in make(runs)["runs"]] == [[], [[0.25, 0.5, 0.375]]]


class TestChanges:
    def pair(self, new, old) -> Pair:
        keys = np.arange(len(new), dtype=np.uint64)
        return Pair(*(Outcomes(questions=keys, correct=np.asarray(one, dtype=float)) for one in (new, old)))

    def test_largest_first(self):
        shown = select_changes(self.pair([0.5, 0, 1, 1], [1, 1, 1, 0.75]), limit=9).shown
        assert [change.question for change in shown] == [1, 0, 3]

    def test_lost_is_what_became_worse(self):
        pair = self.pair([1, 1, 0], [0, 0.5, 1])
        assert select_changes(pair, limit=9)[:2] == (1, 2)
        assert select_changes(pair, limit=9, sign=-1)[:2] == (2, 1)

    @pytest.mark.parametrize(("lost", "won"), [(40, 40), (40, 0), (0, 40), (2, 40), (40, 2), (0, 0)])
    @pytest.mark.parametrize("limit", [0, 1, 3, 18])
    def test_never_more_than_allowed_and_something_of_each(self, lost, won, limit):
        found = select_changes(self.pair([0] * lost + [1] * won, [1] * lost + [0] * won), limit)
        losses = sum(change.new < change.old for change in found.shown)
        wins = len(found.shown) - losses
        assert (found.lost, found.won) == (lost, won)
        assert len(found.shown) <= limit
        assert losses <= min(MAX_LOST, lost)
        assert wins <= min(MAX_WON, won)
        assert found.shown or not limit or not lost + won
        assert limit < 3 or (losses > 0) == (lost > 0)
        assert limit < 3 or (wins > 0) == (won > 0)

    def test_a_page_shows_only_so_many(self, tmp_path):
        for seed in range(4):
            sparsity = seed / 10
            tasks = {f"t_tts_{2**power}": [1 - (seed > 0)] * 40 for power in range(40)}
            write_run(tmp_path, tasks, seed=seed, method="wanda" if seed else "none", sparsity=sparsity)
        found = find_changes(build_entries(read_records([tmp_path]).records))
        assert len(found) == 120
        assert sum(len(changes.shown) for changes in found.values()) <= MAX_CHANGES
        assert {changes.lost for changes in found.values()} == {40}


class TestFindRows:
    def test_only_those_asked_for(self, runs):
        path = min(runs.glob("samples_t_tts_16_*"))
        wanted = [int(json.loads(line)["doc_hash"][:16], 16) for line in path.read_text().splitlines()[3:5]]
        assert [row["doc_id"] for _, row in find_rows(path, wanted, "none")] == [3, 4]
        assert list(find_rows(path, wanted, "strict")) == []

    def test_rows_without_a_hash(self, tmp_path):
        path = tmp_path / "samples.jsonl"
        path.write_text('{"doc_id": 0, "acc": 1}\n{"doc_id": 1, "acc": 0}\n')
        assert [key for key, _ in find_rows(path, [1], "none")] == [1]

    @pytest.mark.parametrize("line", ["{", '{"doc_hash": "zz"}', '{"acc": 1}'])
    def test_no_row(self, tmp_path, line):
        path = tmp_path / "samples.jsonl"
        path.write_text(line + "\n")
        with pytest.raises(DataError, match="not a row of the harness"):
            list(find_rows(path, [1], "none"))

    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            list(find_rows(tmp_path / "no.jsonl", [1], "none"))


class TestDocument:
    def test_structure(self, runs):
        tags = parsed(render_page(make(runs))).tags
        names = [name for name, _ in tags]
        for name in ("main", "header", "footer", "h1", "table", "caption", "noscript", "form"):
            assert names.count(name) == 1, name
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        labels = {attributes["aria-labelledby"] for _, attributes in tags if "aria-labelledby" in attributes}
        assert labels <= set(ids)
        assert ("html", {"lang": "en"}) in tags

    def test_asks_no_network(self, runs):
        text = render_page(make(runs))
        assert set(re.findall(r"\w+://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|import)\b *\(|@import|url\(", text)
        links = [attributes.get(name) for _, attributes in parsed(text).tags for name in ("src", "href")]
        assert {link for link in links if link} == {"data:,", "#table-section"}
        assert "default-src 'none'" in text

    def test_text_of_models_is_no_markup(self, runs):
        content = make(runs)
        before = parsed(render_page(content))
        content["responses"] = [(text, text, 1) for text in HOSTILE]
        names = ("model", "run", "settings", "source", "method", "others")
        content["runs"][0] |= dict(zip(names, HOSTILE, strict=False))
        content["lines"] = [[HOSTILE[0] if isinstance(cell, str) else cell for cell in row] for row in content["lines"]]
        content["questions"] = [(text, text) for text in HOSTILE]
        after = parsed(render_page(content))
        assert [name for name, _ in after.tags] == [name for name, _ in before.tags]
        assert len(after.scripts) == len(before.scripts) == 2
        assert [one[0] for one in json.loads(after.scripts[0])["responses"]] == HOSTILE

    def test_text_is_put_into_text_nodes_only(self):
        text = render_page({})
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text

    def test_no_number_that_is_none_in_json(self):
        with pytest.raises(ValueError, match="not JSON compliant"):
            escape_json({"acc": float("nan")})


def test_shortened_keeps_both_ends():
    text = "".join(str(digit % 10) for digit in range(MAX_CHARACTERS + 5))
    assert shorten(text[:MAX_CHARACTERS]) == text[:MAX_CHARACTERS]
    assert shorten(text).startswith(text[:1_000] + "\n[… 5 characters")
    assert shorten(text).endswith("]\n" + text[-2_000:])
