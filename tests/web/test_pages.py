"""Every page as a browser without JavaScript gets it."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from amqtt_db.record import EPOCH
from amqtt_db.web import app, pages
from amqtt_db.web.pulse import Pulse
from tests.ports import free_port
from tests.web.serving import ROUTES, events, served, settings_for
from tests.workbench import ARRIVAL, Sent, Workbench

EVIL = "<script>alert(1)</script>"
PAGES = ("/", "/topics", f"/topic?name={EVIL}/x", "/devices", "/dead", "/routes", "/try")


def climate(number: int) -> Sent:
    """One reading of a room."""
    return Sent(f"home/room {number % 3}/climate", {"temp": 20 + number / 10, "on": number % 40 < 20, "mode": "eco"})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the page of a filled database."""
    directory = tmp_path_factory.mktemp("web")
    bench = Workbench(directory, *ROUTES)
    bench.send(*map(climate, range(300)))
    bench.send((f"{EVIL}/x", {"<q>": "<i>", "n": 1}), Sent("bad", b"{\xff<u>"), ("a//b", 1), ("/", {"x": 2}))
    with served(settings_for(directory)) as made:
        yield made
    bench.close()


def get(client: httpx.Client, address: str, status: int = 200) -> str:
    """The text of a page."""
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    return answer.text


@pytest.mark.parametrize("address", PAGES)
def test_every_page_is_whole(address: str, client: httpx.Client) -> None:
    """It has a title, a heading and landmarks, every field has a label, and nothing of the payloads is HTML."""
    text = get(client, address)
    assert re.search("<title>.+ · amqtt_db</title>", text)
    assert text.count("<h1") == 1
    assert text.count("<main") == text.count("<header>") == text.count("<footer>") == 1
    assert set(re.findall(r'<(?:input|textarea) id="(\w+)"', text)) == set(re.findall(r'<label for="(\w+)"', text))
    assert not re.search("<script>|<q>|<i>|<u>| style=|<style", text)


@pytest.mark.parametrize("address", PAGES)
def test_nothing_comes_from_elsewhere(address: str, client: httpx.Client) -> None:
    """Pages name no other host, and forbid the browser to load anything from one."""
    answer = client.get(address)
    assert not re.findall(r'(?:src|href|action)="(?!/|#)', answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_overview_counts(client: httpx.Client) -> None:
    """Messages by route, and dead letters with their reason."""
    text = get(client, "/")
    assert re.search(r'home/\{room\}/climate</th><td class="n">300<', text)
    assert re.search(r"<strong>1</strong> <span>not JSON", text)


def test_the_tree_has_every_topic(client: httpx.Client) -> None:
    """Each with its newest values; empty levels and strange names lead to their pages too."""
    text = get(client, "/topics")
    links = re.findall(r'<a class="topic leaf" href="([^"]+)"', text)
    assert len(links) == 7
    for link in links:
        assert "<h1" in get(client, link.replace("&amp;", "&"))
    assert re.search(r"room 2/climate</a>\s*<span class=\"values\">.*?temp</span> <b>49.9</b>", text)


def test_topics_are_found_by_words(client: httpx.Client) -> None:
    """All words must be in the topic, whatever their case; the search stays in its field."""
    text = get(client, "/topics?q=CLIMATE+room 1")
    assert len(re.findall(r'class="topic leaf"', text)) == 1
    assert 'value="CLIMATE room 1"' in text


def test_a_topic_is_plotted(client: httpx.Client) -> None:
    """A curve for numbers, bands for states, told in words as well; rows, route and DDL below."""
    text = get(client, "/topic?name=home/room 0/climate")
    assert re.search('aria-label="temp from .*: lowest 20, highest 49.7, now 49.7"', text)
    assert len(re.findall('<path class="curve"', text)) == 1
    assert len(re.findall('class="band"', text)) == 2
    assert "CREATE TABLE climate (\n  id BIGINT NOT NULL" in text
    assert text.count('<td class="time">') == 50


def test_a_filter_shows_several_topics(client: httpx.Client) -> None:
    """The plots of each, and the rows of all with their topics."""
    text = get(client, "/topic?name=home/%2B/climate")
    assert len(re.findall('<path class="curve"', text)) == 3
    assert len(set(re.findall('<td class="topic">(.*?)</td>', text))) == 3


def test_a_device_of_several_topics_has_one_page(tmp_path: Path) -> None:
    """Its link leads to the plots of all its topics, and of no other device's."""
    routes: list[dict[str, Any]] = [
        {"topic": "shelly/{device}/{property}", "property": "{property}", "latest": True},
        {"topic": "zigbee/{device}/{part}", "latest": ["{device}"]},
        {"topic": "one/#", "latest": True},
    ]
    bench = Workbench(tmp_path, *routes)
    bench.send(*((f"shelly/{name}/{what}", 1) for name in "ab" for what in ("temp", "power")))
    bench.send(
        *((f"zigbee/{name}/{part}", {"x": 1}) for name in "ab" for part in ("left", "right")), ("one/x", {"x": 1})
    )
    settings, pulse = settings_for(tmp_path, routes=routes), Pulse(tmp_path / "none")
    topics = {topics for _, topics in pages.view_devices(settings, pulse, {})["states"]}
    assert topics == {"shelly/a/+", "shelly/b/+", "zigbee/a/+", "zigbee/b/+", "one/x"}
    panels = pages.view_topic(settings, pulse, {"name": "shelly/a/+"})["panels"]
    assert [(one.topic, one.curves[0].path) for one in panels] == [
        ("shelly/a/power", "power"),
        ("shelly/a/temp", "temp"),
    ]


def test_a_topic_whose_records_are_deleted_is_still_plotted(tmp_path: Path) -> None:
    """Its sums are left."""
    route = {"topic": "#", "keep": "1 h", "rollup": [{"every": "5 min"}]}
    bench = Workbench(tmp_path, route)
    bench.send(*(("t", {"temp": number % 17 - 0.25}) for number in range(700)))
    bench.now += 86_400
    bench.writer.retention.finish()
    assert not bench.records()
    with served(settings_for(tmp_path, routes=[route])) as client:
        text = get(client, "/topic?name=t")
    assert "15.75" in text
    assert "No rows." in text
    assert "<dd>1 h</dd>" in text


def test_yesterday_is_three_clicks_away(tmp_path: Path) -> None:
    """From the overview to the topics, to a topic, to the day before the newest record."""
    bench = Workbench(tmp_path, {"topic": "#", "time": "at"})
    newest = ARRIVAL // 1_000_000
    bench.send(*(("home/attic", {"at": newest - 3600 * hour, "temp": 20.0 + hour}) for hour in range(60)))
    with served(settings_for(tmp_path)) as client:
        text = get(client, "/")
        for words in ("Topics", "home/attic", "← earlier"):
            link = re.search(rf'<a [^>]*href="([^"]*)"[^>]*>{words}</a>', text)
            assert link is not None
            text = get(client, html.unescape(link[1]))
    assert re.search('aria-label="temp from .*: lowest 44, highest 68', text)


def test_rows_come_a_page_at_a_time(tmp_path: Path) -> None:
    """Each row once, newest first, even if a hundred have the same time."""
    routes = [{"topic": "#", "time": "at", "model": {"wide": {"table": "t"}}}]
    bench = Workbench(tmp_path, *routes)
    bench.send(*(("a", {"n": number, "at": 1_700_000_000 + number // 80}) for number in range(170)))
    settings, pulse, found = settings_for(tmp_path, routes=routes), Pulse(tmp_path / "none"), []
    query = {"name": "a"}
    while True:
        page = pages.view_topic(settings, pulse, query)
        found += [record["n"] for record in page["rows"]]
        if page["following"] is None:
            break
        query["before"] = page["following"]
    assert found == list(range(169, -1, -1))


def test_time_ranges(client: httpx.Client) -> None:
    """A range ends at the newest record, or where it is told to; from there one can go earlier and later."""
    name = "home/room 0/climate"
    text = get(client, f"/topic?name={name}&range=10min")
    assert "lowest 20," in text
    end = (EPOCH + timedelta(microseconds=ARRIVAL, seconds=100)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = get(client, f"/topic?name={name}&range=10min&end={end}")
    assert "highest 29.9" in text
    assert "later →" in text


@pytest.mark.parametrize(
    ("address", "status", "says"),
    [
        ("/nowhere", 404, "There is no such page."),
        ("/static/nothing", 404, "Not Found."),
        ("/topic?name=nobody", 404, "Nothing is stored for nobody."),
        ("/topic", 404, "Name a topic: /topic?name=…"),
        ("/topic?name=a/%23/b", 400, "is not a topic filter"),
        ("/topic?name=home/room 0/climate&range=1m", 400, "it is one of 10min, 1h"),
        ("/topic?name=home/room 0/climate&end=now", 400, "is not a time"),
        ("/topic?name=home/room 0/climate&before=x", 400, "is not a number"),
        ("/dead?id=7", 404, "There is no dead letter 7."),
        ("/dead?id=x", 400, "is not a number"),
        ("/topics?first=one", 400, "is not a number"),
    ],
)
def test_mistakes_are_told(address: str, status: int, says: str, client: httpx.Client) -> None:
    """In one sentence, on a page that leads back."""
    answer = client.get(address)
    assert answer.status_code == status
    assert says in answer.text.replace("&#39;", "'")


def test_a_dead_letter_is_shown(client: httpx.Client) -> None:
    """With its payload, harmlessly, and the command that replays it."""
    (link,) = re.findall(r'href="(/dead\?id=\d+)"', get(client, "/dead"))
    text = get(client, link)
    assert r"{\xff&lt;u&gt;" in text
    assert "amqtt-db dead replay --id" in text


@pytest.mark.parametrize(
    ("topic", "payload", "says"),
    [
        ("home/x/climate", '{"temp": 1.5, "new": true}', "ADD COLUMN new"),
        ("home/x/climate", '{"temp": 1.5}', "No table would change."),
        ("new", "1", "CREATE TABLE new (\n  id BIGINT NOT NULL"),
        ("home/x/climate", "{", "would become a dead letter"),
        ("home/x/climate", "", "would be counted as empty"),
        ("$SYS/x", "1", "would be counted as ignored"),
        ("a/+", "1", "without + and #"),
    ],
)
def test_a_sample_is_tried(topic: str, payload: str, says: str, client: httpx.Client) -> None:
    """The page says what would become of it, as `check` does, and stores nothing."""
    answer = client.post("/try", data={"topic": topic, "payload": payload})
    assert answer.status_code == 200
    assert says in answer.text
    assert get(client, "/").count(">300<") == 2


def test_a_sample_has_limits(client: httpx.Client) -> None:
    """A million bytes; more are refused."""
    assert client.post("/try", content=b"x" * 1_000_001).status_code == 413


release = threading.Event()


def decode_never(payload: bytes) -> object:
    """A decoder that is stuck."""
    release.wait(60)
    return {}


def test_a_decoder_that_is_stuck_holds_up_nothing_else(tmp_path: Path) -> None:
    """The page says so after the time limit; other pages answer, and a second sample must wait."""
    routes = [{"topic": "#", "decode": "tests.web.test_pages.decode_never"}]
    settings = settings_for(tmp_path, routes=routes)
    settings = attrs.evolve(settings, writer=attrs.evolve(settings.writer, time_limit=0.2))
    with served(settings) as client:
        sample = {"topic": "a", "payload": "1"}
        answers = [client.post("/try", data=sample) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert "takes longer than 0.2 s (time_limit)" in answers[0].text
        assert "Another sample is being tried" in answers[1].text
        assert client.get("/").status_code == 200
    release.set()


def test_an_empty_database(tmp_path: Path) -> None:
    """Pages say that nothing is stored yet, before the database and after its tables are created."""
    with served(settings_for(tmp_path)) as client:
        for address in ("/topics", "/topic?name=a", "/dead"):
            assert "Nothing is stored yet" in get(client, address)
        assert "does not exist yet" in get(client, "/")
        assert get(client, "/devices")
        Workbench(tmp_path, *ROUTES).close()
        assert "0 topics" in get(client, "/topics")
        assert "Every message could be stored" in get(client, "/dead")


@pytest.mark.parametrize("is_there", [False, True], ids=["away", "unreadable"])
def test_a_database_that_cannot_be_read(is_there: bool, tmp_path: Path) -> None:
    """The overview says so and still shows the journal; other pages answer 503 and say that nothing is lost."""
    (tmp_path / "mqtt.db").write_bytes(b"this is no database" * 100)
    url = None if is_there else f"postgresql://mqtt:secret@127.0.0.1:{free_port()}/mqtt"
    with served(settings_for(tmp_path, url)) as client:
        assert "the database answers" in get(client, "/")
        assert "Nothing is lost" in get(client, "/topics", 503)
        assert "secret" not in get(client, "/") + get(client, "/topics", 503)
        with closing(events(client, "/live/topics")) as stream:
            assert next(stream).startswith('<p class="note bad" role="alert">')


def test_live_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes is sent again within seconds, and nothing else."""
    monkeypatch.setattr(app, "LIVE_PAUSE", 0.05)
    bench = Workbench(tmp_path, *ROUTES)
    bench.send(("home/a/climate", {"temp": 1.25}))
    with served(settings_for(tmp_path)) as client:
        with closing(events(client, "/live/topic?name=home/a/climate")) as stream:
            assert "1.25" in next(stream)
            bench.send(("home/a/climate", {"temp": 2.75}))
            assert "2.75" in next(stream)
        assert client.get("/live/routes").status_code == 404
