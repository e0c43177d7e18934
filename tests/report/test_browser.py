"""The report in a browser: it renders, its slider moves the figures to those of Python, and it asks the network for nothing."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dendrofx.report.collect import collect
from dendrofx.report.given import Given
from dendrofx.report.page import page
from dendrofx.report.replay import Replay
from tests.made import made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real("selenium"),
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="needs chromium and its driver"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser that keeps logs of its console and of its network."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=["mlp", "residual"])
def opened(
    request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path, Replay]:
    """The browser with the report of a made module in it, its file, and what Python replays."""
    subject = made(request.param)
    found = collect(Given.of(subject.module, [subject.rows], None, None), 0.05, 0)
    assert found.replay is not None
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(found), encoding="utf-8")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    start = time.perf_counter()
    browser.get(path.as_uri())
    assert time.perf_counter() - start < 2
    return browser, path, found.replay


def test_it_renders_without_an_error_and_without_a_request(opened: tuple[Any, Path, Replay]) -> None:
    browser, path, _ = opened
    assert browser.find_element("css selector", ".verdict").text.startswith("Routed, ")
    assert len(browser.find_elements("css selector", "svg")) == 4
    assert browser.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert asked == {path.as_uri()}


def test_the_slider_moves_the_figures_to_those_of_python(opened: tuple[Any, Path, Replay]) -> None:
    browser, _, replay = opened
    factors = replay.positions()
    means = set()
    for place in (0, len(factors) // 3, len(factors) // 2, len(factors) - 1):
        browser.execute_script(
            "const s = document.getElementById('slider'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
            place,
        )
        shown = {
            n: float(browser.find_element("id", n).get_attribute("data-value"))
            for n in ("activity", "hard", "mean", "p99")
        }
        wanted = replay.at(factors[place])
        assert shown["hard"] == wanted.hard
        assert (shown["activity"], shown["mean"], shown["p99"]) == pytest.approx(
            (wanted.activity, wanted.mean, wanted.p99), rel=1e-9, abs=1e-12
        )
        assert f"{wanted.hard:,} of {replay.rows:,}" == browser.find_element("id", "hard").text
        means.add(shown["mean"])
    assert len(means) == 4


def test_the_keyboard_reaches_and_moves_the_slider(opened: tuple[Any, Path, Replay]) -> None:
    browser, _, _ = opened
    browser.refresh()
    keys: Any = __import__("selenium.webdriver.common.keys", fromlist=["Keys"]).Keys
    focused = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(keys.TAB)
        focused.append(browser.execute_script("return document.activeElement.id || document.activeElement.className"))
        if focused[-1] == "slider":
            break
    assert focused[:2] == ["skip", "theme"]
    assert focused[-1] == "slider"
    before = browser.find_element("id", "hard").text
    browser.switch_to.active_element.send_keys(keys.HOME)
    assert browser.find_element("id", "tolerance").text == "0"
    assert browser.find_element("id", "hard").text != before
    browser.find_element("id", "back").click()
    assert browser.find_element("id", "hard").text == before


def test_the_button_changes_the_colours(opened: tuple[Any, Path, Replay]) -> None:
    browser, _, _ = opened
    colours = []
    for _ in range(3):
        colours.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        browser.find_element("id", "theme").click()
    assert colours[0] == colours[2] != colours[1]
    assert browser.get_log("browser") == []
