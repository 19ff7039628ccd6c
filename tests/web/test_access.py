"""Who may see the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web.serving import served, settings_for

TOKEN = "0123456789abcdef"  # noqa: S105 - it opens nothing


def test_only_this_machine_without_a_token(tmp_path: Path) -> None:
    """A page of another site cannot reach it under its own name, and no form comes from there."""
    with served(settings_for(tmp_path)) as client:
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"Host": "localhost:1"}).status_code == 200
        refused = client.get("/", headers={"Host": "evil.example"})
        assert (refused.status_code, "not as 'evil.example'" in refused.text) == (403, True)
        form = {"topic": "a", "payload": "1"}
        assert client.post("/try", data=form, headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post("/try", data=form, headers={"Origin": str(client.base_url).rstrip("/")}).status_code == 200


def test_a_token_opens_it(tmp_path: Path) -> None:
    """Once in a form, after which the browser has a cookie that is not the token; or with each request."""
    with served(settings_for(tmp_path), TOKEN) as client:
        page = client.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "/login")
        assert client.get("/").status_code == client.get("/live/overview").status_code == 401
        assert client.get("/static/style.css").status_code == client.get("/login").status_code == 200
        assert client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/", headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
        assert client.post("/login", data={"token": "wrong"}).status_code == 403
        answer = client.post("/login", data={"token": TOKEN})
        assert answer.status_code == 303
        assert TOKEN not in answer.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
        assert client.get("/", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize("token", [None, TOKEN])
def test_there_is_nothing_to_log_in_to(token: str | None, tmp_path: Path) -> None:
    """Without a token the form is not shown."""
    with served(settings_for(tmp_path), token) as client:
        assert client.get("/login").status_code == (303 if token is None else 200)
