"""The page in a real browser: Chromium without a window."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from amqtt_db.journal import Journal
from amqtt_db.web import app
from tests.web.readings import ROOMS, fill
from tests.web.serving import ROUTES, served, settings_for
from tests.workbench import Workbench

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
EVIL = "<script>document.title='owned'</script>"
PAGES = {
    "overview": "/",
    "topics": "/topics",
    "topic": f"/topic?name={ROOMS[0]}",
    "devices": "/devices",
    "dead": "/dead",
    "routes": "/routes",
    "try": "/try?topic=home/x/climate",
}
WAIT = 30  # seconds that anything here may take at most


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """A browser for all tests of this module."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("AMQTT_DB_REQUIRE_BROWSER"):
            pytest.fail("chromium and chromedriver are not there")
        pytest.skip("chromium and chromedriver are not there (on Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = Chrome(options, Service(driver))
    yield made
    made.quit()


class Window:
    """A browser on the page of a database that is being filled."""

    def __init__(self, browser: Chrome, base: str, bench: Workbench) -> None:
        self.browser = browser
        self.base = base
        self.bench = bench

    def open(self, address: str) -> None:
        """Go to a page."""
        self.browser.get(self.base + address)

    def until(self, expression: str) -> None:
        """Wait until JavaScript finds something true."""
        WebDriverWait(self.browser, WAIT, 0.05).until(lambda _: self.tell(f"return {expression}"))

    def tell(self, script: str) -> Any:
        """What a script returns."""
        return self.browser.execute_script(script)

    def text_of(self, selector: str) -> str:
        """The text of the first element that a selector finds, read at one go: it may be replaced at any time."""
        return str(self.tell(f"return (document.querySelector({selector!r}) || {{innerText: ''}}).innerText"))

    def complaints(self) -> list[str]:
        """What the browser has complained of since it was asked last: blocked scripts and styles, errors."""
        entries = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def window(browser: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """The browser on a filled page."""
    directory = tmp_path_factory.mktemp("browser")
    bench = Workbench(directory, *ROUTES)
    fill(bench)
    bench.send((f"{EVIL}/x", {EVIL: EVIL, "n": 1}))
    pause, app.LIVE_PAUSE = app.LIVE_PAUSE, 0.1  # type: ignore[misc]
    with served(settings_for(directory)) as client:
        yield Window(browser, str(client.base_url).rstrip("/"), bench)
    app.LIVE_PAUSE = pause  # type: ignore[misc]
    bench.close()


def set_media(window: Window, scheme: str, width: int = 1100, height: int = 900) -> None:
    """Choose light or dark, and the size of the screen."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    window.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    window.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_is_content(name: str, window: Window) -> None:
    """On a phone and on a desk, in the light and in the dark: nothing is cut off, and nothing was blocked."""
    for scheme, width in (("dark", 360), ("light", 1100)):
        set_media(window, scheme, width)
        window.open(PAGES[name])
        assert window.tell("return document.documentElement.scrollWidth") <= width
    assert window.tell("return getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 247)"
    assert window.complaints() == []


def test_the_docs_have_pictures(
    browser: Chrome, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--screenshots docs/images` takes them anew, of the pages that docs/web.md shows."""
    shots = request.config.getoption("--screenshots")
    names = re.findall(r"images/page-(\w+)-light\.png", (DOCS / "web.md").read_text(encoding="utf-8"))
    assert set(names) < set(PAGES)
    if not shots:
        pytest.skip("takes pictures only with --screenshots")
    directory = (request.config.invocation_params.dir / shots).absolute()
    monkeypatch.chdir(tmp_path)
    bench = Workbench(Path(), *ROUTES)
    fill(bench)
    with closing(Journal.open("mqtt.journal", max_size=2**30, sync="always")), served(settings_for(Path())) as client:
        window = Window(browser, str(client.base_url).rstrip("/"), bench)
        for name in names:
            set_media(window, "light", height=200)
            window.open(PAGES[name])
            if name == "try":
                browser.find_element(By.ID, "payload").send_keys('{"temp": 21.5, "battery": 97, "mode": "eco"}')
                browser.find_element(By.CSS_SELECTOR, "form button").click()
                window.until("document.getElementById('result')")
            height = min(1500, window.tell("return document.documentElement.scrollHeight"))
            set_media(window, "light", height=height)
            assert browser.save_screenshot(directory / f"page-{name}-light.png")


def test_news_come_by_themselves(window: Window) -> None:
    """A new value appears in plot and rows without a reload; the page says that it is live."""
    window.open(PAGES["topic"])
    window.tell("window.stays = true")
    window.until("(document.getElementById('state') || {}).textContent == 'live'")
    window.bench.send((ROOMS[0], {"temp": 98.75, "mode": "new mode"}))
    window.until("document.querySelector('.plot b').textContent.includes('98.75')")
    assert "new mode" in window.text_of("table")
    assert window.tell("return window.stays")
    assert window.complaints() == []


def test_nothing_changes_under_the_hands(window: Window) -> None:
    """While the focus is in the changing part, it stays as it is; then it changes."""
    window.open("/topics")
    window.until("(document.getElementById('state') || {}).textContent == 'live'")
    window.tell("document.querySelector('#live a').focus()")
    window.bench.send(("aaa/new", {"n": 1}))
    until = monotonic() + 1.0
    while monotonic() < until:
        assert "aaa/new" not in window.text_of("#live")
        sleep(0.2)
    window.tell("document.activeElement.blur()")
    window.bench.send(("aaa/newer", {"n": 1}))
    window.until("document.getElementById('live').textContent.includes('newer')")


def test_the_keyboard_is_enough(window: Window) -> None:
    """The first Tab offers to skip to the content, and the focus can be seen; a form is sent by Enter."""
    window.open("/topics")
    body = window.browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    skip = window.browser.switch_to.active_element
    assert skip.text == "Skip to the content"
    assert window.tell("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    skip.send_keys(Keys.ENTER)
    window.until("document.activeElement.id == 'main'")
    window.browser.find_element(By.ID, "q").send_keys("kitchen", Keys.ENTER)
    window.until("location.search.includes('q=kitchen')")
    assert len(window.browser.find_elements(By.CLASS_NAME, "leaf")) == 1


def test_a_topic_that_is_a_script_is_text(window: Window) -> None:
    """In the tree, on its own page, and in what comes live."""
    window.open("/topics")
    window.tell("[...document.links].find((link) => link.textContent.includes('<script>')).click()")
    window.until("document.querySelector('h1') && document.querySelector('h1').textContent.includes('<script>')")
    window.until("(document.getElementById('state') || {}).textContent == 'live'")
    window.bench.send((f"{EVIL}/x", {EVIL: "<img src=x onerror=document.title='owned'>", "n": 2}))
    window.until("document.getElementById('live').textContent.includes('onerror')")
    assert "owned" not in window.browser.title.replace(EVIL, "")
    assert window.tell("return document.images.length") == 0
    assert window.complaints() == []


def test_a_sample_is_tried_without_scripts(window: Window) -> None:
    """The form works by itself."""
    window.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        window.open("/try?topic=home/x/climate")
        window.browser.find_element(By.ID, "payload").send_keys('{"temp": 3.5}')
        window.browser.find_element(By.CSS_SELECTOR, "form button").click()
        wait = WebDriverWait(window.browser, WAIT, ignored_exceptions=[StaleElementReferenceException])
        wait.until(lambda browser: "stores it" in browser.find_element(By.TAG_NAME, "main").text)
    finally:
        window.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
