"""The page in a real browser: Chromium without a window."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from amqtt_db.config import Settings
from amqtt_db.journal import Journal
from amqtt_db.testing.servers import Servers
from amqtt_db.testing.starting import execute
from amqtt_db.web import app
from tests.database.engines.servers import Site
from tests.web.readings import ROOMS, fill
from tests.web.serving import ROUTES, served, settings_for
from tests.workbench import Sent, Workbench

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
EVIL = "<script>document.title='owned'</script>"
IMAGE = "<img src=x onerror=document.title='owned'>"
PAGES = {
    "overview": "/",
    "topics": "/topics",
    "topic": f"/topic?name={ROOMS[0]}",
    "several": "/topic?name=home/%2B/climate",
    "script": f"/topic?name={quote(EVIL)}/x",
    "devices": "/devices",
    "dead": "/dead",
    "letter": "/dead?id={letter}",
    "routes": "/routes",
    "try": "/try?topic=home/x/climate",
    "sample": f"/try?topic={quote(EVIL)}",
    "wrong": f"/topic?name={quote(EVIL)}",
}
FAULTS = """
const all = (selector) => [...document.querySelectorAll(selector)], faults = [];
const levels = all('h1, h2, h3, h4').map((one) => +one.tagName[1]);
if (levels.some((level, index) => level > (levels[index - 1] || 0) + 1)) faults.push(`headings ${levels}`);
const names = (one) => (one.labels ? [...one.labels].map((label) => label.textContent) : [one.textContent]).join('');
for (const one of all('a, button, input, textarea, summary'))
  if (!(names(one).trim() || one.textContent.trim())) faults.push(`no name: ${one.outerHTML}`);
for (const one of all('table')) if (!one.querySelector('thead th[scope=col]')) faults.push('a table without headers');
for (const one of all('main svg:not(svg svg):not([aria-hidden])'))
  if (!(one.getAttribute('role') === 'img' && one.getAttribute('aria-label'))) faults.push('a picture without words');
const ids = all('[id]').map((one) => one.id);
if (new Set(ids).size < ids.length) faults.push(`ids twice: ${ids}`);
if (document.images.length || document.title.replace(arguments[0], '').includes('owned')) faults.push('markup');
for (const {name} of performance.getEntriesByType('resource'))
  if (!name.startsWith(location.origin + '/')) faults.push(`loaded ${name}`);
return faults;
"""
"""JavaScript that lists what a screen reader could not tell, what topics smuggled in, and what came from elsewhere."""

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

    def tell(self, script: str, *arguments: str) -> Any:
        """What a script returns."""
        return self.browser.execute_script(script, *arguments)

    def follow(self, text: str) -> None:
        """Go where a link leads that contains a text, by keyboard: while it has the focus, nothing replaces it."""
        self.until(f"[...document.links].some((link) => link.textContent.includes({text!r}))")
        self.tell("[...document.links].find((link) => link.textContent.includes(arguments[0])).focus()", text)
        self.browser.switch_to.active_element.send_keys(Keys.ENTER)

    def until_live(self) -> None:
        """Wait until the page says that it is kept up to date."""
        self.until("(document.getElementById('state') || {}).textContent == 'live'")

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
    bench.send((f"{EVIL}/x", {EVIL: EVIL, "n": 1}), (f"home/{IMAGE}/climate", {"temp": 1.5}))
    bench.send(Sent(f"{EVIL}/x", EVIL.encode()))
    with looking(browser, settings_for(directory), bench) as made:
        yield made
    bench.close()


@contextmanager
def looking(browser: Chrome, settings: Settings, bench: Workbench) -> Iterator[Window]:
    """A browser on a page that is served meanwhile, and kept up to date up to ten times a second."""
    with pytest.MonkeyPatch.context() as patch, served(settings) as client:
        patch.setattr(app, "LIVE_PAUSE", 0.1)
        patch.setattr(app, "_REST_PER_WORK", 1)
        made = Window(browser, str(client.base_url).rstrip("/"), bench)
        yield made
        browser.get("about:blank")
        made.complaints()


def set_media(window: Window, scheme: str, width: int = 1100, height: int = 900) -> None:
    """Choose light or dark, and the size of the screen."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    window.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    window.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_is_content(name: str, window: Window) -> None:
    """On a phone in the dark and on a desk in the light: nothing is cut off, blocked, unnamed or from elsewhere."""
    newest = max(one.id for one in window.bench.dead())
    for scheme, width in (("dark", 360), ("light", 1100)):
        set_media(window, scheme, width)
        window.open(PAGES[name].format(letter=newest))
        assert window.tell("return document.documentElement.scrollWidth") <= width
        assert window.tell(FAULTS, EVIL) == []
    assert window.tell("return getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 247)"
    is_known = name == "wrong"
    assert [("404" in text) and is_known for text in window.complaints()] == [True, True] * is_known


def test_the_docs_have_pictures(
    browser: Chrome, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--screenshots docs/images` takes new ones of the pages that docs/web.md shows."""
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
    window.until_live()
    window.bench.send((ROOMS[0], {"temp": 98.75, "mode": "new mode"}))
    window.until("document.querySelector('.plot b').textContent.includes('98.75')")
    assert "new mode" in window.text_of("table")
    assert window.tell("return window.stays")
    assert window.complaints() == []


def test_nothing_changes_under_the_hands(window: Window) -> None:
    """While the focus is in the changing part, it stays as it is, and the page says so; then it changes."""
    window.open("/topics")
    window.until_live()
    window.tell("document.querySelector('#live a').focus()")
    window.bench.send(("aaa/new", {"n": 1}))
    window.until("document.getElementById('state').textContent.startsWith('paused')")
    assert "aaa/new" not in window.text_of("#live")
    window.tell("document.activeElement.blur()")
    window.until("document.getElementById('live').textContent.includes('aaa/new')")
    window.until_live()


def test_many_pages_at_once(window: Window) -> None:
    """A browser opens at most six connections to a server: pages that nobody sees leave them to the one in front."""
    window.open("/topics")
    first = window.browser.current_window_handle
    for _ in range(6):
        window.browser.switch_to.new_window("tab")
        window.open("/topics")
    window.until_live()
    window.bench.send(("many/pages", {"n": 1}))
    for handle in set(window.browser.window_handles) - {first}:
        window.browser.switch_to.window(handle)
        window.browser.close()
    window.browser.switch_to.window(first)
    window.until("document.getElementById('live').textContent.includes('many/pages')")


def test_a_database_goes_away_and_comes_back(
    browser: Chrome, tmp_path: Path, postgresql: Site, servers: Servers
) -> None:
    """The page says so, and what is stored afterwards appears in it without a reload."""
    name, server = sa.make_url(postgresql.url).database, servers.url("postgresql")
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    bench = Workbench(postgresql, *ROUTES)
    bench.send((ROOMS[0], {"temp": 20.5}))
    with looking(browser, settings_for(tmp_path, postgresql.url), bench) as window:
        window.open(PAGES["topic"])
        window.tell("window.stays = true")
        window.until_live()
        bench.close()
        execute(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", end)
        window.until("document.querySelector('#live [role=alert]')")
        window.until("document.getElementById('live').textContent.includes('not currently accepting connections')")
        execute(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        bench.open()
        bench.send((ROOMS[0], {"temp": 98.75}))
        window.until("document.getElementById('live').textContent.includes('98.75')")
        assert window.tell("return window.stays")


def test_ten_thousand_topics(browser: Chrome, tmp_path: Path) -> None:
    """The tree stays a small page, side by side or nested; each topic is a few clicks, or a search, away."""
    bench = Workbench(tmp_path, {"topic": "#", "model": {"wide": {"table": "t"}}})
    names = [f"flat{number:04}" for number in range(5000)]
    names += [f"site/{number % 10}/{number // 10 % 50}/{number}" for number in range(5000)]
    bench.send(*((name, {"n": 1}) for name in names))
    with looking(browser, settings_for(tmp_path), bench) as window:
        window.open("/topics")
        assert window.tell("return document.querySelectorAll('.tree li').length") == 200
        loaded = window.tell("return performance.getEntriesByType('navigation')[0].toJSON()")
        assert loaded["decodedBodySize"] < 100_000
        assert loaded["domComplete"] < 5000
        window.follow("more")
        window.until("document.querySelector('.leaf').textContent == 'flat0200'")
        window.open("/topics?first=4990")
        for place in ("below site", "below site/3"):
            window.follow(place)
        browser.find_element(By.ID, "q").send_keys("SITE/3/37/4873", Keys.ENTER)
        window.until("document.querySelectorAll('.leaf').length == 1")


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
    window.until_live()
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
