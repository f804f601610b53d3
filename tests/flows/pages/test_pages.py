"""The pages of `audioset report` and `review` in a real browser, from files; and their size."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import insert, select

from db.engine import writing
from db.schema.tables import clip_scores, clips, detections, labellings, nodes, sources
from db.totals.keeping import add_totals
from db.totals.recount import missing_totals
from flows.pages.review_page import CSV_COLUMNS
from tests.flows.conftest import Said
from tests.flows.looking import NOW, SIREN, SPEECH, Collection

pytestmark = pytest.mark.slow

Command = Callable[..., Said]
ODD = 'a, "b" <i>.wav'


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that asked for nothing but its own file, and had nothing to complain of."""
    asked: list[str] = []
    said: list[str] = []
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        page = context.new_page()
        page.on("request", lambda asking: asked.append(asking.url.split(":")[0]))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
    assert said == []
    assert set(asked) <= {"file", "data", "blob"}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = Collection(tmp_path)
    collection.add(tmp_path / ODD, 20.0, {SIREN: (20, 23, 0.9), SPEECH: (0, 9, 0.7)})
    collection.add(tmp_path / "b.wav", 8.0, {SIREN: (0, 3, 0.6)})
    gone = tmp_path / "gone.wav"
    collection.add(gone, 8.0, {SIREN: (0, 3, 0.3)})
    gone.unlink()
    yield collection
    collection.engine.dispose()


def test_a_report_opens_plays_and_turns(
    made: Collection, audioset: Command, page: Page, tmp_path: Path
) -> None:
    out = tmp_path / "r.html"
    assert audioset("report", "-o", out, "--min-score", 0.2, "--home", tmp_path).code == 0
    page.goto(out.as_uri())
    expect(page.get_by_role("heading", name="What is heard")).to_be_visible()
    players = page.locator("audio")
    lengths = players.evaluate_all(
        """all => Promise.all(all.map(one => one.duration > 0 ? one.duration
             : new Promise(done => { one.onloadedmetadata = () => done(one.duration); })))"""
    )
    assert lengths
    assert all(5.9 < length < 6.2 for length in lengths)
    expect(page.get_by_text("vanished: it was listed, but no longer exists").first).to_be_visible()
    trail = page.locator("#trail button")
    expect(trail).to_have_text(["All sounds"])
    page.locator(
        "#sun path", has=page.locator("title", has_text=re.compile("^Human sounds"))
    ).click()
    expect(trail).to_have_text(["All sounds", "Human sounds"])
    page.locator("#sun circle").press("Enter")
    expect(trail).to_have_text(["All sounds"])
    branch = page.locator("#tree summary", has_text="Alarm")
    branch.first.click()
    expect(trail.last).to_have_text("Alarm")


_DURATION_S = """player => player.duration || new Promise(done => {
  player.addEventListener("loadedmetadata", () => done(player.duration));
})"""


def test_a_review_by_keys_saves_what_was_judged(
    made: Collection, audioset: Command, page: Page, tmp_path: Path
) -> None:
    out = tmp_path / "r.html"
    said = audioset("review", "--under", "Siren", "-o", out, "--home", tmp_path)
    assert said.err.splitlines() == [
        "only 3 clips reach 0.1: all of them are on the page",
        "too few clips to fit a threshold: Siren (3 clips)",
    ]
    page.goto(out.as_uri())
    count = page.locator("#count")
    expect(count).to_have_text("0 of 3 judged")
    for key, n_judged in (("y", 1), ("N", 2)):
        page.keyboard.press(key)
        expect(count).to_have_text(f"{n_judged} of 3 judged")
    page.reload()
    expect(count).to_have_text("2 of 3 judged")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("u")
    page.get_by_role("button", name="clip 1", exact=False).first.click()
    expect(page.get_by_role("button", name="Yes y")).to_have_attribute("aria-pressed", "true")
    seen_why = False
    for index in range(3):
        page.locator("#dots button").nth(index).click()
        seen_why |= page.locator("#why").is_visible()
        if page.locator("#player").is_visible():
            # Not by wait_for_function: the page's policy forbids what that evaluates later.
            duration_s = page.locator("#player").evaluate(_DURATION_S)
            assert duration_s > 0
    assert seen_why
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save CSV").click()
    saved = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(saved)
    with saved.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == CSV_COLUMNS
    assert [row[7] for row in rows] == ["yes", "unsure"]
    with made.engine.connect() as conn:
        known = dict(conn.execute(select(clips.c.sha256, sources.c.path_text).join(sources)).all())
    for clip, path, start_s, end_s, mid, name, score, _, at in rows:
        assert known[clip] == path
        assert (mid, name) == (SIREN, "Siren")
        assert 5.9 < float(end_s) - float(start_s) <= 6.0
        assert float(score) in {0.9, 0.6, 0.3}
        assert datetime.fromisoformat(at).tzinfo is not None


def test_a_review_of_a_category_says_what_else_it_is(
    made: Collection, audioset: Command, page: Page, tmp_path: Path
) -> None:
    """Yes, no, another alarm: each is a line on the siren, and one on alarms."""
    out = tmp_path / "r.html"
    asked = ("review", "--under", "Alarm", "--per-class", 1, "-o", out, "--home", tmp_path)
    assert audioset(*asked).code == 0
    page.goto(out.as_uri())
    expect(page.get_by_role("button", name="No, another Alarm o")).to_be_visible()
    for key in "yon":
        page.keyboard.press(key)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save CSV").click()
    waiting.value.save_as(tmp_path / "v.csv")
    with (tmp_path / "v.csv").open(newline="") as file:
        rows = [(row["name"], row["verdict"]) for row in csv.DictReader(file)]
    assert rows == [
        ("Siren", "yes"), ("Alarm", "yes"), ("Siren", "no"), ("Alarm", "yes"),
        ("Siren", "no"), ("Alarm", "no"),
    ]  # fmt: skip
    assert audioset("verdicts", "import", tmp_path / "v.csv", "--home", tmp_path).code == 0
    said = audioset("estimate", "--under", "Alarm", "--home", tmp_path)
    assert "\nclips with the sound\t2\t2-2\n" in said.out


@pytest.mark.slow
def test_a_report_of_100_000_clips_stays_small(
    made: Collection, audioset: Command, tmp_path: Path
) -> None:
    """Rows only: the files are not there, as on a disk that is not mounted."""
    n_clips, each = 100_000, 3
    with writing(made.engine) as conn:
        first = dict(conn.execute(select(labellings)).mappings().first() or {})
        ids = conn.execute(select(nodes.c.id).order_by(nodes.c.id)).scalars().all()
        base = 1_000
        conn.execute(insert(clips), [
            {"id": base + i, "sha256": f"{i:064x}", "size_bytes": 1, "duration_s": 30.0,
             "sample_rate_hz": 16_000, "n_channels": 1, "n_samples": 480_000, "format": "WAV",
             "first_seen_at": NOW} for i in range(n_clips)
        ])  # fmt: skip
        conn.execute(insert(sources), [
            {"path_digest": i.to_bytes(16), "path": b"/x/%d" % i, "path_text": f"/x/{i}",
             "size_bytes": 1, "mtime_ns": (1_600_000_000 + 1_000 * i) * 10**9,
             "status": "identified", "clip_id": base + i, "first_seen_at": NOW}
            for i in range(n_clips)
        ])  # fmt: skip
        conn.execute(insert(labellings), [
            {**first, "id": base + i, "clip_id": base + i, "source_id": None}
            for i in range(n_clips)
        ])  # fmt: skip
        heard = [
            (base + i, ids[(i * 7 + 13 * k) % len(ids)], 0.2 + 0.75 * ((i * 31 + k) % 97) / 97)
            for i in range(n_clips) for k in range(each)
        ]  # fmt: skip
        conn.execute(insert(clip_scores), [
            {"labelling_id": row, "node_id": n, "peak": p, "mean": p / 2} for row, n, p in heard
        ])  # fmt: skip
        conn.execute(insert(detections), [
            {"labelling_id": row, "node_id": n, "start_patch": 3, "end_patch": 9, "peak": p,
             "mean": p / 2, "peak_patch": 4} for row, n, p in heard
        ])  # fmt: skip
        add_totals(conn, missing_totals(conn))
    out = tmp_path / "r.html"
    assert audioset("report", "-o", out, "--home", tmp_path).code == 0
    page = out.read_text()
    assert "100,003" in page
    assert out.stat().st_size < 3_000_000
