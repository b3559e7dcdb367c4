"""The page in a browser: mouse, keyboard, small screens, dark mode."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from lm_eval_pruned.results.divergence.summary import MEANING
from tests.browser.conftest import BUDGETS, Browser, make_page, write_runs
from tests.results.test_page import HOSTILE
from tests.results.written_runs import write_run

DASH, MINUS = "\u2013", "\u2212"
# Five runs, two benchmarks, each budget and the area; the published curve has no area.
LINES = 5 * 2 * (len(BUDGETS) + 1) + len(BUDGETS)


def column(browser: Browser, name: str) -> list[str]:
    titles = browser.texts("#table thead th")
    place = titles.index(name) + 1
    return browser.run(
        "return [...document.querySelectorAll(arguments[0])].map("
        "(cell) => (cell.querySelector('strong') ?? cell.firstChild).textContent)",
        f"#table tbody tr > :nth-child({place})",
    )


def press(browser: Browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(browser.driver).send_keys(key).perform()


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        "const field = document.querySelector(`#filters [name=${arguments[0]}]`); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input', { bubbles: true }))",
        name,
        value,
    )
    browser.driver.execute_async_script("setTimeout(arguments[0], 250)")


class TestTable:
    def test_all_lines_in_the_order_of_the_leaderboard(self, browser, page):
        browser.open(page)
        assert len(browser.all("#table tbody tr")) == LINES
        assert browser.one("#count").text == f"{LINES} of {LINES} lines"
        assert column(browser, "Budget")[0] == "16"
        assert {head.get_attribute("aria-sort") for head in browser.all("#table thead th")} == {"none"}

    def test_sorts_by_a_click_down_up_and_back(self, browser, page):
        browser.open(page)
        first = column(browser, "Accuracy")
        button = browser.one('[data-sort="acc"]')
        head = button.find_element("xpath", "..")
        for sort, is_reversed in (("descending", True), ("ascending", False)):
            button.click()
            values = [float(value) for value in column(browser, "Accuracy")]
            assert head.get_attribute("aria-sort") == sort
            assert values == sorted(values, reverse=is_reversed)
        button.click()
        assert head.get_attribute("aria-sort") == "none"
        assert column(browser, "Accuracy") == first

    def test_sorts_by_the_keyboard(self, browser, page):
        browser.open(page)
        browser.run("document.querySelector('[data-sort=method]').focus()")
        press(browser, "\ue007")
        assert column(browser, "Method") == sorted(column(browser, "Method"))
        assert browser.run("return document.activeElement.dataset.sort") == "method"

    def test_what_is_unknown_stands_last_both_ways(self, browser, page):
        browser.open(page)
        for _ in range(2):
            browser.one('[data-sort="difference"]').click()
            values = column(browser, "vs dense")
            known = [value for value in values if value != DASH]
            assert values[: len(known)] == known
            assert 0 < len(known) < LINES

    def test_significance_and_the_least_drop(self, browser, page):
        browser.open(page)
        marked = [text for text in column(browser, "vs dense") if text.endswith("*")]
        assert marked
        assert all(text.startswith(MINUS) for text in marked)
        assert any(text.startswith(MINUS) for text in column(browser, "Detectable"))

    def test_filters(self, browser, page):
        browser.open(page)
        choose(browser, "method", "wanda")
        assert set(column(browser, "Method")) == {"wanda"}
        choose(browser, "budget", "64")
        assert set(column(browser, "Budget")) == {"64"}
        choose(browser, "q", "U_TTS 0.7")
        assert len(browser.all("#table tbody tr")) == 1
        browser.one("#filters [type=reset]").click()
        assert len(browser.all("#table tbody tr")) == LINES

    def test_nothing_found_is_said(self, browser, page):
        browser.open(page)
        choose(browser, "q", "no such run")
        assert browser.one("#count").text.startswith("0 of 0 lines")
        assert "No run" in browser.one("#charts").text

    def test_the_address_keeps_the_view(self, browser, page):
        browser.open(page)
        browser.one('[data-sort="acc"]').click()
        choose(browser, "method", "wanda")
        fragment = browser.run("return location.hash")
        shown = column(browser, "Accuracy")
        browser.open(page, fragment)
        assert column(browser, "Accuracy") == shown
        assert browser.one("#filters [name=method]").get_attribute("value") == "wanda"
        browser.run("location.hash = '#method=magnitude'")
        browser.driver.execute_async_script("setTimeout(arguments[0], 100)")
        assert set(column(browser, "Method")) == {"magnitude"}

    @pytest.mark.parametrize("fragment", ["#sort=nothing&runs=x.y&comparison=-1&theme=pink", "#%E0%A4%A", "#=&&q"])
    def test_an_odd_address(self, browser, page, fragment):
        browser.open(page, fragment)
        assert browser.one("#table").is_displayed()

    def test_details_are_columns_that_are_asked_for(self, browser, page):
        browser.open(page)
        details = {"Onset", "rep-2"}
        assert not details & set(browser.texts("#table thead th"))
        assert browser.one("#details").text == "Show Onset, rep-2"
        browser.one("#details").click()
        assert set(column(browser, "rep-2")) == {"0.38", DASH}
        assert browser.one("#details").text == "Hide Onset, rep-2"
        browser.open(page, "#columns=all")
        assert details <= set(browser.texts("#table thead th"))
        browser.open(page, "#sort=rep-2&down=1")
        assert details & set(browser.texts("#table thead th")) == {"rep-2"}


def write_others(folder: Path) -> None:
    """Runs of other people: many models, a metric that is better when lower, curves that coincide, a limit."""
    models = ("meta-llama/Llama-3.1-8B-Instruct", "/data/checkpoints/run-7/\u05e9\u05dc\u05d5\u05dd-model/")
    for day, model in enumerate(models, start=1):
        for seed, method in enumerate(("none", "wanda", "magnitude")):
            right = 10 if method == "magnitude" else 30
            tasks = {f"loss_tts_{budget}": [0] * right + [1] * (40 - right) for budget in (16, 32)}
            sparsity = 0.0 if method == "none" else 0.2
            path = write_run(folder, tasks, method=method, sparsity=sparsity, seed=seed, day=day, model=model, limit=40)
            content = json.loads(path.read_text())
            content["higher_is_better"] = {task: {"acc": False} for task in tasks}
            content["n-shot"] = dict.fromkeys(tasks, 5)
            for task in tasks:
                tokens = 0.8 * int(task.rpartition("_")[2])
                content["results"][task] |= {"answer_cut,none": 0.83, "thinking_tokens,none": tokens}
            path.write_text(json.dumps(content))
    write_run(folder, {"loss_tts_16": [0, 1] * 20}, method="wanda", sparsity=0.5, seed=9, kwargs={"temperature": 0.6})


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("others")
    write_others(folder / "runs")
    return make_page(folder / "runs", folder / "page.html")


class TestOthers:
    """The page of runs that were not made for it."""

    def test_empty_columns_leave_with_their_last_value(self, browser, tmp_path):
        write_run(tmp_path / "runs", {"t_tts_16": [0, 1]}, backend="hf", has_samples=False)
        browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"))
        titles = browser.texts("#table thead th")
        assert {"Method", "Task", "Accuracy", "Cut"} <= set(titles)
        assert not {"Sparsity", "vs dense", "Detectable", "Unclosed", "Answer cut", "Lost, won"} & set(titles)

    def test_what_was_asked_and_what_was_cut_is_seen(self, browser, others):
        browser.open(others)
        assert "83 %" in column(browser, "Answer cut")
        assert "5-shot, limit 40" in browser.texts("#table .c-questions small")

    def test_names_break_between_their_words_alone(self, browser, others):
        for width in (1400, 390):
            browser.open(others, width=width)
            # One box for each line of text: a word that is whole has one.
            words = browser.run(
                "return [...document.querySelectorAll('#table .name')].flatMap((name) => {"
                "  const walker = document.createTreeWalker(name, NodeFilter.SHOW_TEXT); const found = [];"
                "  while (walker.nextNode()) { const range = document.createRange();"
                "    range.selectNodeContents(walker.currentNode);"
                "    found.push(new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size); }"
                "  return found; })"
            )
            assert set(words) == {1}
        assert "\u2026/run-7/" in "".join(browser.texts("#table .c-model"))

    def test_lower_is_better(self, browser, others):
        browser.open(others)
        assert "\u2193 lower is better" in "".join(browser.texts("#table .c-task small"))
        assert {text[0] for text in browser.texts("#table .worse")} == {"+"}
        assert browser.texts("#table .better") == []
        browser.one('[data-sort="acc"]').click()
        values = [float(value) for value in column(browser, "Score")]
        assert values == sorted(values)
        browser.run("arguments[0].click()", browser.one("#table [data-line]"))
        assert browser.one("#questions-count").text.startswith("20 lost and 0 won")

    def test_why_nothing_is_compared_is_a_hover_and_a_line_away(self, browser, others):
        browser.open(others)
        button = browser.one("#table .why")
        assert button.accessible_name.startswith("Not compared: ")
        browser.run("arguments[0].focus()", button)
        assert "Not compared" in browser.one("#tooltip").text
        browser.one("#not-compared summary").click()
        assert browser.one("#reasons li").text.startswith("1: ")

    def test_curves_that_coincide_are_all_seen(self, browser, others):
        browser.open(others)
        plots = browser.run(
            "return [...document.querySelectorAll('#charts svg[role=group]')].map((plot) => ["
            "  [...plot.querySelectorAll('.shared')].map((line) => "
            "    [line.style.strokeDasharray, line.style.strokeDashoffset].join(' ')),"
            "  [...plot.querySelectorAll('.point')].map((dot) =>"
            "    [dot.getAttribute('cx'), dot.getAttribute('cy')].join())])"
        )
        assert plots
        for dashes, dots in plots:
            # Four curves share one segment and two another one, each with dashes of its own.
            assert len(dashes) == len(set(dashes)) == 6
            assert len(set(dots)) == len(dots)

    @pytest.mark.parametrize("width", [390, 1400])
    def test_figures_are_in_sight_and_scrolling_is_announced(self, browser, others, width):
        browser.open(others, width=width)
        box = browser.run("return document.getElementById('table-box').getBoundingClientRect().right")
        for name in ("acc", "changed") if width > 1000 else ("acc",):
            assert browser.run("return arguments[0].getBoundingClientRect().right", browser.one(f"td.c-{name}")) <= box
        assert browser.run("return document.documentElement.scrollWidth") <= width
        is_wide = browser.run(
            "const box = document.getElementById('table-box'); return box.scrollWidth > box.clientWidth + 1"
        )
        assert browser.one("#scroll-note").is_displayed() == is_wide
        if width == 390:
            assert "Answer cut" in browser.one("#scroll-note").text
            assert "more-right" in browser.one("#table-frame").get_attribute("class")
            browser.run("document.getElementById('table-box').scrollLeft = 1e6")
            browser.driver.execute_async_script("setTimeout(arguments[0], 100)")
            assert browser.one("#table-frame").get_attribute("class") == "more-left"

    def test_every_column_says_what_it_means(self, browser, others):
        browser.open(others)
        for button in browser.all("#table thead button"):
            described = browser.one("#" + button.get_attribute("aria-describedby"))
            assert described.get_attribute("textContent")
        browser.run("document.querySelector('[data-sort=p]').focus()")
        assert "Holm" in browser.one("#tooltip").text
        browser.one('[data-sort="acc"]').click()
        assert browser.one("#count").text.endswith("sorted by Score, ascending")

    def test_metrics_in_the_thousands_have_an_axis(self, browser, tmp_path):
        for seed, size in enumerate((3.5, 48_213.7)):
            path = write_run(tmp_path / "runs", {"t_tts_16": [0, 1], "t_tts_32": [1, 1]}, seed=seed,
                             method="wanda" if seed else "none", sparsity=0.5, has_samples=False)  # fmt: skip
            text = path.read_text().replace("acc,none", "word_perplexity,none").replace("acc_stderr", "x_stderr")
            content = json.loads(text)
            for metrics in content["results"].values():
                metrics["word_perplexity,none"] = size
            path.write_text(json.dumps(content))
        browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"))
        assert set(column(browser, "Score")) == {"3.500", "48,214"}
        ticks = browser.texts("#charts .tick")
        assert {"10", "1,000"} <= set(ticks)
        assert any("lower is better" in tick for tick in ticks)


class TestCharts:
    def test_two_plots_a_benchmark_and_a_line_a_run(self, browser, page):
        browser.open(page)
        assert browser.texts("#charts figcaption") == ["t_tts", "u_tts"]
        plots = browser.all("#charts svg[role=group]")
        assert len(plots) == 4
        lines = [len(plot.find_elements("css selector", "g.series")) for plot in plots]
        # Published runs have no measured tokens.
        assert lines == [6, 5, 5, 5]
        assert len(browser.all("#charts .band")) == 20

    def test_published_lines_look_different(self, browser, page):
        browser.open(page)
        style = "return getComputedStyle(document.querySelector(arguments[0])).strokeDasharray"
        assert browser.run(style, "#charts .published .line") != browser.run(style, "#charts .dense .line")
        assert browser.all("#charts .published path.point")
        assert "published: table 1" in "".join(browser.texts("#legend button"))

    def test_the_legend_toggles(self, browser, page):
        browser.open(page)
        button = next(one for one in browser.all("#legend button") if "magnitude" in one.text)
        run = button.get_attribute("data-run")
        selector = f'#charts g[data-run="{run}"]'
        assert len(browser.all(selector)) == 4
        button.click()
        assert browser.all(selector) == []
        assert browser.one(f'#legend [data-run="{run}"]').get_attribute("aria-pressed") == "false"
        press(browser, " ")
        assert len(browser.all(selector)) == 4

    def test_hover_explains_a_point(self, browser, page):
        from selenium.webdriver import ActionChains

        browser.open(page)
        assert not browser.one("#tooltip").is_displayed()
        point = browser.one("#charts g.dense .point")
        ActionChains(browser.driver).move_to_element(point).perform()
        tooltip = browser.one("#tooltip")
        assert tooltip.is_displayed()
        assert "accuracy 0." in tooltip.text
        assert "thinking tokens" in tooltip.text
        press(browser, "\ue00c")
        assert not tooltip.is_displayed()

    def test_the_explanation_goes_along_when_the_page_scrolls(self, browser, page):
        browser.open(page, width=390, height=700)
        browser.run("document.querySelector('#charts g.dense .point:last-of-type').focus()")
        browser.driver.execute_async_script("setTimeout(arguments[0], 200)")
        assert browser.run("return scrollY") > 0
        box, point = (
            browser.run("return arguments[0].getBoundingClientRect().toJSON()", browser.one(selector))
            for selector in ("#tooltip", "#charts .point:focus")
        )
        assert browser.one("#tooltip").is_displayed()
        assert box["top"] < point["bottom"]
        assert point["top"] < box["bottom"]
        assert box["left"] >= 0
        assert box["right"] <= 390

    def test_arrows_walk(self, browser, page):
        browser.open(page)
        browser.run("document.querySelector('#charts [tabindex=\"0\"]').focus()")
        heard = [browser.run("return document.activeElement.getAttribute('aria-label')")]
        for key in ("\ue014", "\ue015", "\ue012"):
            press(browser, key)
            heard.append(browser.run("return document.activeElement.getAttribute('aria-label')"))
        assert len(set(heard)) == 4
        assert browser.one("#tooltip").is_displayed()
        assert len(browser.all("#charts svg[role=group] [tabindex='0']")) == 4

    def test_labels_do_not_overlap(self, browser, page):
        for width in (1400, 390):
            browser.open(page, width=width)
            boxes = browser.run(
                "return [...document.querySelectorAll('#charts svg[role=group]')].map((plot) =>"
                "[...plot.querySelectorAll('text')].map((text) => { const { left, right, top, bottom } ="
                "text.getBoundingClientRect(); return [left, right, top, bottom]; }))"
            )
            for plot in boxes:
                for place, (left, right, top, bottom) in enumerate(plot):
                    for other in plot[place + 1 :]:
                        assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top

    def test_many_budgets_have_labels_apart_and_few_have_one(self, browser, tmp_path):
        write_run(tmp_path / "runs", {f"t_tts_{2**power}": [0, 1] for power in range(15)})
        browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"), width=390)
        places = browser.run(
            "return [...document.querySelectorAll('#charts svg[role=group]')].map((plot) =>"
            "[...plot.querySelectorAll('.tick[text-anchor=middle]')].map((tick) => {"
            "const { left, right } = tick.getBoundingClientRect(); return [left, right]; }))"
        )
        many, one = places
        assert len(many) > 3
        assert all(left[1] < right[0] for left, right in pairwise(many))
        # Every run of this page used 12.5 tokens on average.
        assert len(one) == 1

    def test_numbers_in_names_are_in_order(self, browser, tmp_path):
        for seed, sparsity in enumerate((0.0, 0.1, 0.02, 0.25)):
            write_run(
                tmp_path / "runs",
                {"t_tts_16": [0, 1]},
                seed=seed,
                method="wanda" if seed else "none",
                sparsity=sparsity,
            )
        browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"))
        assert browser.texts("#legend button") == [
            "dense", "wanda uniform 0.02", "wanda uniform 0.1", "wanda uniform 0.25",
        ]  # fmt: skip

    def test_sixteen_runs_are_on_and_look_different(self, browser, tmp_path):
        for number in range(18):
            method = "wanda" if number else "none"
            write_run(tmp_path / "runs", {"t_tts_16": [0, 1]}, seed=number, method=method, sparsity=number / 100)
        browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"))
        assert len(browser.all("#legend button")) == 18
        assert len(browser.all("#legend button[aria-pressed=true]")) == 16
        looks = browser.run(
            "return [...document.querySelectorAll('#legend button[aria-pressed=true] .line')].map((line) => {"
            "const { stroke, strokeDasharray } = getComputedStyle(line); return stroke + strokeDasharray; })"
        )
        assert len(set(looks)) == 16

    def test_what_changed_stands_beside_accuracy_with_what_it_does_not_say(self, browser, page):
        browser.open(page, "#sort=kl&down=1")
        assert MEANING in browser.one("#legend-text").text
        assert browser.texts("#table td.c-kl")[:1] == ["0.040.02 \u2013 0.081"]
        assert {text.partition("%")[0] for text in browser.texts("#table td.c-survive")} == {"50 ", "\u2013"}
        assert browser.texts("#table td.c-kl")[-1] == "\u2013"

    def test_maps(self, browser, page):
        browser.open(page)
        assert browser.texts("#maps .label") == ["50 % · attn", "50 % · mlp"]
        assert browser.texts("#maps .value") == ["1", "0.1", "0.01", "0.001", "1.0e\u22124", "\u2013", *["0"] * 6]
        assert MEANING in browser.one("#maps-note").text
        opacities = [
            float(browser.run("return arguments[0].style.fillOpacity", one)) for one in browser.all("#maps rect")
        ]
        assert opacities[:6] == sorted(opacities[:6], reverse=True)

    def test_blocks(self, browser, page):
        browser.open(page)
        assert len(browser.all("#blocks g[role=group]")) == 4
        assert len(browser.all("#blocks .cell")) == 24

    @pytest.mark.parametrize("width", [1400, 390])
    def test_long_names_lie_over_no_block(self, browser, tmp_path, width):
        for day, model in enumerate(("simplescaling/s1.1-7B-with-a-name-that-is-long", "Qwen/Qwen3-8B"), start=1):
            path = write_run(
                tmp_path / "runs", {"t_tts_16": [1, 0]}, method="wanda", sparsity=0.2, model=model, day=day
            )
            content = json.loads(path.read_text())
            content["config"]["pruning"]["blocks"] = [{"index": 0, "attn": 0.2, "mlp": 0.2, "achieved": 0.2}] * 28
            path.write_text(json.dumps(content))
        browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"), width=width)
        strips = browser.run(
            "return [...document.querySelectorAll('#blocks g[aria-label]:has(> .label)')].map((strip) => {"
            "  const [label, cell] = ['.label', '.cell rect'].map("
            "    (one) => strip.querySelector(one).getBoundingClientRect());"
            "  return label.bottom <= cell.top + 1 || label.right <= cell.left; })"
        )
        assert strips == [True, True]
        assert browser.run("return document.documentElement.scrollWidth") <= width


class TestQuestions:
    def test_from_the_table_to_the_texts(self, browser, page):
        browser.open(page)
        button = browser.one("#table [data-line]")
        lost, won = (int(number) for number in button.text.replace(MINUS, "").replace("+", "").split(", "))
        browser.run("arguments[0].click()", button)
        assert browser.run("return document.activeElement.id") == "questions"
        assert browser.one("#questions-count").text.startswith(f"{lost} lost and {won} won of 60 questions")
        browser.one("#changes summary").click()
        opened = browser.one("#changes details[open]").text
        for word in ("Gold: 7", "Pruned: ", "Dense: ", "Answer: "):
            assert word in opened

    def test_lost_or_won(self, browser, page):
        browser.open(page)
        select = "const side = document.getElementById('side'); side.value = arguments[0];"
        for side in ("lost", "won"):
            browser.run(select + "side.dispatchEvent(new Event('change', { bubbles: true }))", side)
            assert set(browser.texts("#changes .badge")) == {side}


class TestAppearance:
    def contrast(self, browser: Browser) -> dict[str, float]:
        """Return the smallest contrast of text with its background, by selector."""
        script = Path(__file__).with_name("contrast.js").read_text()
        return browser.run(script)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_contrast(self, browser, page, scheme):
        browser.open(page, scheme=scheme)
        browser.run("document.querySelector('#changes details').open = true")
        found = self.contrast(browser)
        assert len(found) > 10
        assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}

    def test_dark_follows_the_system_and_the_button(self, browser, page):
        background = "return getComputedStyle(document.body).backgroundColor"
        browser.open(page, scheme="light")
        light = browser.run(background)
        browser.open(page, scheme="dark")
        dark = browser.run(background)
        assert light != dark
        assert browser.one("#theme").get_attribute("aria-pressed") == "true"
        browser.one("#theme").click()
        assert browser.run(background) == light
        assert "theme=light" in browser.run("return location.hash")

    @pytest.mark.parametrize("width", [390, 768, 1400])
    def test_never_scrolls_sideways(self, browser, page, width):
        browser.open(page, width=width)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.run("return document.documentElement.scrollWidth") <= width
        if width == 390:
            assert browser.run("const box = document.getElementById('table-box'); return box.scrollWidth > 390")

    def test_every_control_has_a_name(self, browser, page):
        browser.open(page)
        for control in browser.all("button, select, input"):
            assert not control.is_displayed() or control.accessible_name.strip()

    def test_tab_reaches_the_controls_in_order(self, browser, page):
        browser.open(page)
        reached = []
        for _ in range(10):
            press(browser, "\ue004")
            reached.append(browser.run("const { id, name, type } = document.activeElement; return id || name || type"))
        assert reached[1:3] == ["theme", "q"]
        assert "reset" in reached

    def test_nothing_moves_for_those_who_ask(self, browser, page):
        browser.open(page)
        media = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert browser.run("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_hostile_texts_are_shown_and_never_run(browser, tmp_path):
    write_runs(tmp_path / "runs")
    for number, path in enumerate(sorted(tmp_path.glob("runs/*/samples_*"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            text = HOSTILE[number % len(HOSTILE)].replace("alert(1)", "window.ran = true")
            row.update(resps=[[text]], filtered_resps=[["\\boxed{" + text + "}"]], target=text, doc={"problem": text})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_run(tmp_path / "runs", {"t_tts_16": [0, 1]}, model="</script><img src=x onerror='window.ran=true'>", seed=99)
    browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"))
    options = len(browser.all("#comparison option"))
    for place in range(options):
        browser.run(
            "const select = document.getElementById('comparison'); select.selectedIndex = arguments[0];"
            "select.dispatchEvent(new Event('change', { bubbles: true }));"
            "document.querySelectorAll('details').forEach((one) => { one.open = true; })",
            place,
        )
        assert browser.all("#changes pre")
    assert options > 10
    assert browser.run("return window.ran") is None
    assert browser.all("img, #changes script") == []
    assert "onerror" in browser.one("#table").text
    # Even put into the page as markup they do not run.
    browser.run("document.getElementById('made').innerHTML = `<img src=x onerror='window.ran = true'>`")
    browser.driver.execute_async_script("setTimeout(arguments[0], 200)")
    assert browser.run("return window.ran") is None
    assert any("Content Security Policy" in message for message in browser.complaints())


def test_1800_runs_stay_usable(browser, tmp_path):
    for run in range(450):
        tasks = {f"t{part}_tts_64": [(run + part + place) % 3 > 0 for place in range(10)] for part in range(4)}
        sparsity = run / 1_000
        write_run(tmp_path / "runs", tasks, seed=run, method="wanda" if run else "none", sparsity=sparsity)
    path = make_page(tmp_path / "runs", tmp_path / "page.html")
    assert path.stat().st_size < 20e6
    browser.open(path)
    assert browser.one("#count").text == "200 of 1800 lines"
    browser.one("#more").click()
    assert len(browser.all("#table tbody tr")) == 400
    started = browser.run("return performance.now()")
    choose(browser, "q", "0.321")
    assert len(browser.all("#table tbody tr")) == 4
    browser.run("document.querySelector('[data-sort=acc]').click()")
    assert browser.run("return performance.now()") - started < 3_000
