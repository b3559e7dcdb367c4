"""Fixtures: headless Chromium on leaderboard pages, with its network requests recorded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver

from lm_eval_pruned import cli
from tests.results.written_runs import answers, difficulties, write_divergence, write_run

INSTALL = "no Chromium with a driver: apt-get install chromium chromium-driver, or set CHROMIUM and CHROMEDRIVER"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
CHROMEDRIVER = os.environ.get("CHROMEDRIVER") or "/usr/bin/chromedriver"
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A page that is still scrolling cannot be clicked.
    "--force-prefers-reduced-motion",
)
# None of these leaves the machine; chrome: is the browser's own first tab.
SCHEMES = {"file", "data", "about", "chrome"}
BUDGETS = (16, 32, 64, 128)
QUESTIONS = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


class Browser:
    """A driver with a window size and colour scheme that records requests and console messages."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def open(self, path: Path, fragment: str = "", *, width: int = 1400, height: int = 1000, scheme: str = "light"):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get("about:blank")
        self.driver.get(f"{path.as_uri()}{fragment}")

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", selector)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """Return every address requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    # If these tests are requested explicitly, a missing browser is an error.
    if not CHROMIUM or not Path(CHROMEDRIVER).exists():
        pytest.fail(INSTALL)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With an explicit path selenium does not search the network for a driver.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """Fail tests that leave a console message or request anything but their own files."""
    browser.complaints()
    browser.requests()
    yield
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.requests()} <= SCHEMES


def write_runs(folder: Path) -> None:
    """A dense run and four pruned ones on two benchmarks."""
    generator = np.random.default_rng(0)
    for name, base in (("t", 0.0), ("u", 0.2)):
        chances = difficulties(QUESTIONS, generator)
        for place, (method, sparsity) in enumerate(
            (("none", 0.0), ("wanda", 0.2), ("wanda", 0.7), ("magnitude", 0.5), ("sparsegpt", 0.5))
        ):
            tasks = {
                f"{name}_tts_{budget}": answers(
                    np.clip(chances * (base + np.log2(budget) / 8) * (1 - sparsity / 2), 0, 1), generator
                )
                for budget in BUDGETS
            }
            path = write_run(folder / name, tasks, method=method, sparsity=sparsity, seed=place)
            content = json.loads(path.read_text())
            blocks = [{"index": index, "attn": sparsity, "mlp": sparsity, "achieved": sparsity} for index in range(6)]
            content["config"]["pruning"]["blocks"] = blocks
            for budget in BUDGETS:
                content["results"][f"{name}_tts_{budget}"]["thinking_tokens,none"] = 0.8 * budget
            path.write_text(json.dumps(content))
            if method == "wanda":
                write_divergence(path, folder / f"{name}{sparsity}", kl=sparsity**9, fingerprint=f"{name}{sparsity}")
    cells = [
        {"block": block, "part": part, "sparsity": 0.5, "kl": kl}
        for block in range(6)
        for part, kl in (("attn", 10.0**-block), ("mlp", 0.0))
        if (block, part) != (5, "attn")
    ]
    config = {"pretrained": "tiny-reasoner", "method": "magnitude"}
    (folder / "map.json").write_text(json.dumps({"config": config, "cells": cells}))


def make_page(runs: Path, target: Path, *arguments: str) -> Path:
    assert cli.main(["leaderboard", str(runs), "--output", str(target), *arguments]) == 0
    return target


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_runs(folder / "runs")
    reference = folder / "published.csv"
    rows = "".join(f"paper-model,wanda,owl,0.2,{budget},t,{0.3 + budget / 400},table 1\n" for budget in BUDGETS)
    reference.write_text("model,method,allocation,sparsity,budget,task,acc,source\n" + rows)
    return make_page(folder / "runs", folder / "page.html", "--reference", str(reference))
