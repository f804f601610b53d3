"""Who may ask the page for what."""

from __future__ import annotations

import httpx
import pytest

from flows.app.application import application
from flows.app.guard import CSRF_HEADER, HEADERS, Guard
from flows.app.served import Served
from tests.flows.scored import Collection

TOKEN = "a-token"


def _client(
    collection: Collection, guard: Guard, host: str = "127.0.0.1:8001"
) -> httpx.AsyncClient:
    app = application(Served(collection.engine, collection.home, guard))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.5:8001", ""])
async def test_a_page_that_is_asked_for_by_another_name_is_refused(
    collection: Collection, host: str
) -> None:
    async with _client(collection, Guard()) as client:
        assert (await client.get("/", headers={"host": host})).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8001", "localhost:8001", "[::1]:8001", "LOCALHOST"])
async def test_names_of_this_machine_are_answered(collection: Collection, host: str) -> None:
    async with _client(collection, Guard()) as client:
        answer = await client.get("/", headers={"host": host})
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]


async def test_with_a_token_everything_is_refused_without_it(collection: Collection) -> None:
    async with _client(collection, Guard(TOKEN), "archive:8001") as client:
        for path in ("/", "/static/app.js", "/sounds/x.png", "/?token=wrong", "/?token="):
            assert (await client.get(path)).status_code == 401
        entered = await client.get("/", params={"token": TOKEN, "under": "Dog & cat"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/?under=Dog+%26+cat")
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert (await client.get("/")).status_code == 200  # the client keeps the cookie
        elsewhere = await client.get("http://archive:8001//evil.example/", params={"token": TOKEN})
        assert elsewhere.status_code != 303


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 403),
        ({CSRF_HEADER: "guessed"}, 403),
        ({CSRF_HEADER: "secret", "origin": "http://evil.example"}, 403),
        ({CSRF_HEADER: "secret", "origin": "http://127.0.0.1:9999"}, 403),
        ({CSRF_HEADER: "secret", "origin": "null"}, 403),
        ({CSRF_HEADER: "secret", "origin": "http://127.0.0.1:8001"}, 405),
        ({CSRF_HEADER: "secret"}, 405),
    ],
)
async def test_only_a_page_from_here_can_change_something(
    collection: Collection, given: dict[str, str], code: int
) -> None:
    async with _client(collection, Guard(csrf="secret")) as client:
        assert (await client.post("/corpus", headers=given)).status_code == code
    async with _client(collection, Guard(csrf="secret", is_read_only=True)) as client:
        assert (await client.post("/corpus", headers=given)).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/sounds/..%2f..%2fetc%2fpasswd.png", "/sounds/../../etc/passwd", "/static/../guard.py",
        "/static/%2e%2e/guard.py", "/static/..%2fguard.py", "/clips/%2fetc%2fpasswd",
        f"/sounds/{'a' * 64}.png?start_s=0&end_s=1e400",
        f"/sounds/{'a' * 64}.png?start_s=nan&end_s=1",
        f"/sounds/{'A' * 64}.mp3?start_s=0&end_s=1", f"/sounds/{'a' * 64}.mp3?start_s=0&end_s=1",
        f"/sounds/{'a' * 64}.mp3?start_s=5&end_s=1", f"/sounds/{'a' * 64}.mp3?start_s=0&end_s=1e9",
    ],
)  # fmt: skip
async def test_no_path_and_no_odd_number_gives_anything(collection: Collection, path: str) -> None:
    async with _client(collection, Guard()) as client:
        answer = await client.get(path)
    assert answer.status_code in (400, 404)
    assert len(answer.text) < 400


async def test_a_mistake_is_a_page_for_people_and_a_line_for_scripts(
    collection: Collection,
) -> None:
    async with _client(collection, Guard()) as client:
        told = await client.get("/?under=Sirene")
        page = await client.get("/?under=Sirene", headers={"accept": "text/html"})
    assert (told.status_code, page.status_code) == (400, 400)
    assert "Siren" in told.text
    assert told.text.count("\n") == 0
    assert "<h1>" in page.text
