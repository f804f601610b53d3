"""The page of the collection: its parts, its links, and what is kept of what took long."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import insert

from db.engine import writing
from db.ledger.runs import finish_run, start_run
from db.records import RunCounts, RunOrigin, RunStatus
from db.schema.tables import sources
from flows.addresses import app_address, prefect_address, run_address
from flows.app.application import application
from flows.app.guard import Guard
from flows.app.kept import Kept, StillCountingError
from flows.app.served import Served
from tests.flows import scored
from tests.flows.app.conftest import serving
from tests.flows.looking import NOW, SIREN, SPEECH, Collection


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _client(collection: scored.Collection) -> httpx.AsyncClient:
    app = application(Served(collection.engine, collection.home, Guard()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def _failed(engine: object, n_files: int) -> None:
    with writing(engine) as conn:  # type: ignore[arg-type]
        rows = [
            {"path_digest": b"%d" % n, "path": b"/bad/%d" % n, "path_text": f"/bad/<{n}>.wav",
             "size_bytes": 1, "mtime_ns": 1, "status": "failed", "reason": "not audio & <b>",
             "reason_detail": f"detail {n}", "first_seen_at": NOW}
            for n in range(n_files)
        ]  # fmt: skip
        conn.execute(insert(sources), rows)


@pytest.mark.anyio
async def test_the_page_comes_without_counting_and_its_parts_follow(
    collection: scored.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add("/a.wav", {"Siren": [0.9] * 9, "Speech": [0.3] * 9})
    _failed(collection.engine, 60)
    async with _client(collection) as client:
        page = (await client.get("/corpus?min_score=0.2")).text
        assert page.count("counting…") == 7
        heard = (await client.get("/corpus/heard?min_score=0.2")).text
        assert "/?under=Siren&amp;min_score=0.2" in heard
        assert "Speech" in heard
        assert "Speech" not in (await client.get("/corpus/heard?min_score=0.5")).text
        told = await client.get("/corpus/heard?min_score=0.05")
        assert (told.status_code, "scores below 0.1 are not stored" in told.text) == (400, True)
        first = (await client.get("/corpus/failures/files?reason=not audio %26 <b>")).text
        assert first.count("<li>") == 50
        address = re.search('data-more="([^"]+)"', first)
        assert address is not None
        last = (await client.get(address[1].replace("&amp;", "&"))).text
        assert last.count("<li>") == 10
        assert "data-more" not in last
        assert "&lt;59&gt;" in last
        for wrong in ("heard?min_score=2", "runs?skip=-1", "failures/files?reason=x&after=x"):
            assert (await client.get(f"/corpus/{wrong}")).status_code == 400


@pytest.mark.anyio
async def test_a_run_is_told_with_its_page_of_prefect_where_that_is_known(
    collection: scored.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = RunOrigin("night <1>", "f" * 8)
    start_run(collection.engine, "r1", "h", 1, {"model": "yamnet"}, NOW, origin)
    part = RunOrigin("part", None, "r1")
    start_run(collection.engine, "r2", "h", 1, {}, NOW + timedelta(seconds=1), part)
    counts = RunCounts(10, 7, 2, 1, 7200.0)
    end = NOW + timedelta(minutes=2)
    finish_run(collection.engine, "r1", RunStatus.COMPLETED, counts, None, end)
    async with _client(collection) as client:
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
        alone = (await client.get("/corpus/runs")).text
        monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@prefect.example:4200/api")
        linked = (await client.get("/corpus/runs")).text
    assert "href" not in alone
    assert 'href="http://prefect.example:4200/runs/flow-run/ffffffff"' in linked
    row = re.sub(r"<[^>]*>", " ", linked[linked.index("night") :].partition("</tr>")[0]).split()
    assert " ".join(row) == (
        "night &lt;1&gt; yamnet on h, 1 part completed 2024-05-01 12:00Z 2:00.0 7 2 1 2.0 h 60 x"
    )
    assert "secret" not in linked


@pytest.mark.parametrize(
    ("address", "name", "before"),
    [
        # The API, which may have no pages.
        (prefect_address, "prefect.lock", "http://127.0.0.1:9/api\n"),
        (app_address, "app.address", ""),
    ],
)
def test_an_address_is_of_a_server_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: Any, name: str, before: str
) -> None:
    for variable in ("PREFECT_UI_URL", "PREFECT_API_URL", "AUDIOSET_APP_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert address(tmp_path) is None
    for text in ("", "http://127.0.0.1:9/api", "file:///etc/passwd", "http://[x", "\xff"):
        (tmp_path / name).write_bytes((before + text).encode("latin-1"))
        assert address(tmp_path) is None
    with socket.create_server(("127.0.0.1", 0)) as there:
        (tmp_path / name).write_text(f"{before}http://127.0.0.1:{there.getsockname()[1]}/\n")
        assert address(tmp_path) == f"http://127.0.0.1:{there.getsockname()[1]}"


def test_no_page_of_a_run_without_prefect_or_run() -> None:
    assert run_address(None, "x") is None
    assert run_address("http://h", None) is None


def test_what_took_long_is_kept_for_as_long_as_it_is_worth() -> None:
    at_s, counted = [0.0], []
    kept = Kept(lambda: at_s[0])

    def count(cost_s: float) -> int:
        at_s[0] += cost_s
        counted.append(1)
        return len(counted)

    def slow() -> int:
        return count(2.0)

    assert kept.answer("k", 1, slow) == 1
    at_s[0] += 39
    assert kept.answer("k", 2, slow) == 1  # what changed since may be behind for 40 s
    at_s[0] += 2
    assert kept.answer("k", 2, slow) == 2
    at_s[0] += 3_000
    assert kept.answer("k", 2, slow) == 2  # nothing has changed
    at_s[0] += 1_000
    assert kept.answer("k", 2, slow) == 3
    assert kept.answer("fast", 1, lambda: count(0.0)) == 4
    assert kept.answer("fast", 2, lambda: count(0.0)) == 5  # what costs nothing is never behind
    for n in range(200):
        kept.answer(n, 1, lambda: 0)
    assert kept.answer("k", 2, lambda: "again") == "again"

    # While one is computed, others get the old one, or are told to come back: nobody waits.
    at_s[0] += 4_000

    def asks() -> str:
        return str(kept.answer("k", 2, slow))

    assert kept.answer("k", 3, asks) == "again"
    with pytest.raises(StillCountingError):
        kept.answer("new", 1, lambda: kept.answer("new", 1, slow))

    def fails() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        kept.answer("bad", 1, fails)
    assert kept.answer("bad", 1, lambda: 7) == 7


@pytest.mark.slow
def test_the_collection_is_seen_and_searched_by_mouse_and_by_keyboard(
    tmp_path: Path, page: Page, heard: Callable[[Locator], dict[str, float]]
) -> None:
    collection = Collection(tmp_path)
    collection.add(tmp_path / "a.wav", 20.0, {SIREN: (20, 23, 0.9), SPEECH: (0, 9, 0.7)})
    collection.add(tmp_path / "b.wav", 8.0, {SIREN: (0, 3, 0.6)})
    _failed(collection.engine, 60)
    with serving(collection.engine, tmp_path) as address:
        page.goto(f"{address}/corpus")
        expect(page.locator("dl.figures")).to_contain_text("Clips labelled2")
        expect(page.locator("[aria-busy]")).to_have_count(0)
        trail, search = page.locator("#trail button"), page.locator("#searching a")
        expect(trail).to_have_text(["All sounds"])
        expect(search).to_have_count(0)
        # The largest branch begins at the top; its ring is a third of the way out.
        sun = page.locator("#sun svg").bounding_box()
        assert sun is not None
        x, y = sun["x"] + sun["width"] * 0.53, sun["y"] + sun["height"] * 0.33
        page.mouse.click(x, y)
        expect(trail).to_have_text(["All sounds", "Human sounds"])
        expect(search).to_have_text("Search Human sounds")
        page.locator("#sun circle").press("Enter")
        expect(trail).to_have_text(["All sounds"])
        page.locator(".reason summary").click()
        expect(page.locator(".files li")).to_have_count(50)
        page.get_by_role("button", name="More files").press("Enter")
        expect(page.locator(".files li")).to_have_count(60)
        expect(page.locator(".runs tbody tr")).to_have_count(1)
        page.keyboard.press("/")
        page.keyboard.press("Control+a")
        page.keyboard.type("0.65")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"min_score=0\.65"))
        expect(page.locator("#classes-heard, td.name", has_text="Siren").first).to_be_visible()
        page.locator("td.name").get_by_role("link", name="Siren", exact=True).press("Enter")
        expect(page.locator(".card")).to_have_count(1)  # b.wav has 0.6
        page.keyboard.press("j")
        page.keyboard.press("Space")
        assert heard(page.locator(".card audio"))["loudest"] > 0.01
    collection.engine.dispose()
