"""The search page: what it answers, how mistakes are told, and how sounds are scrolled through."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from audioset_core.ontology.graph import load_default
from flows.app.application import application
from flows.app.asked import N_CARDS
from flows.app.classes import suggested
from flows.app.guard import Guard
from flows.app.served import Served
from tests.flows import looking
from tests.flows.app.conftest import serving
from tests.flows.embedded import Embedded
from tests.flows.scored import Collection


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def asking(collection: Collection) -> AsyncIterator[httpx.AsyncClient]:
    app = application(Served(collection.engine, collection.home, Guard()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers={"accept": "text/html"}
    ) as client:
        yield client


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _names(page: httpx.Response) -> list[str]:
    return re.findall(r"<h2>(.*?) <span", page.text)


def _links(page: httpx.Response) -> dict[str, str]:
    found = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>([^<]*)</a>', page.text)
    return {html.unescape(text): html.unescape(address) for address, text in found}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("under=Animal", ["Dog", "Dog"]),
        ("under=Dog&under=Siren&min_score=0.7", ["Dog", "Siren"]),
        ("under=&under=Dog&under=", ["Dog", "Dog"]),
        ("under=Dog&all_of=Siren&min_score=0.1", ["Dog"]),
        ("all_of=Siren&all_of=Dog&min_score=0.1", ["Dog"]),
        ("under=Dog&not_under=Siren&min_score=0.1", ["Dog"]),
        ("under=Dog&min_score=0.1&path=b.wav", ["Dog"]),
        ("under=Dog&min_duration=1.3", ["Dog"]),
        ("under=Dog&each=1&min_score=0.1", ["Dog", "Dog", "Dog"]),
        ("under=Dog&order=duration", ["Dog", "Dog"]),
        ("under=Dog&offset=1", ["Dog"]),
        ("under=Dog&model=yamnet", ["Dog", "Dog"]),
    ],
)
async def test_what_is_found(
    collection: Collection, asking: httpx.AsyncClient, asked: str, expected: list[str]
) -> None:
    collection.add("/x/a.wav", {"Dog": [0.9, 0.01, 0.6], "Siren": [0.2, 0.2, 0.2]})
    collection.add("/y/b.wav", {"Dog": [0.6, 0.6, 0.01]})
    collection.add("/y/c.wav", {"Siren": [0.8, 0.01, 0.01]})
    page = await asking.get(f"/?{asked}")
    assert page.status_code == 200
    assert _names(page) == expected
    assert all("&amp;class=%2Fm%2F" in line for line in page.text.splitlines() if "/clips/" in line)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "said", "link"),
    [
        ("under=Sirene", "No class or branch is called 'Sirene'.", "Siren"),
        ("under=Dog&min_score=0.05", "scores below 0.1 are not stored", None),
        ("under=Dog&min_score=2", "Score from: '2' is not a number from 0 to 1.", None),
        ("under=Dog&min_score=nan", "Score from: 'nan' is not a number", None),
        ("under=Dog&min_duration=x", "Seconds at least: 'x' is not a number", None),
        ("under=Dog&from_day=yesterday", "From the day: 'yesterday' is not a day", None),
        ("under=Dog&to_day=9999-12-31", "To the day: '9999-12-31' is not a day", None),
        ("under=Dog&from_day=2024-05-02&to_day=2024-05-01", "is before 2024-05-02", None),
        ("under=Dog&from_hour=25:00", "From the time of day: '25:00' is not a time", None),
        ("under=Dog&order=colour", "there is no order 'colour'", None),
        ("under=Dog&model=none", "no labels by a model called 'none'", None),
        ("under=Dog&set=night", "night", None),
        ("under=Dog&path=[z-a]", "is not a valid pattern for paths", None),
        ("under=Dog&offset=99999999", "offset: '99999999' is not a number", None),
        ("not_under=Dog", "alone finds nothing", None),
        ("like=../../etc/passwd", "is not a clip and a moment", None),
        (f"like={'a' * 64}@0.5", "a" * 12, None),
        ("under=Pant+(dog)", "yamnet cannot predict 'Pant (dog)'", None),
        (f"under={'x' * 5000}", "No class or branch is called", None),
    ],
)
async def test_a_mistake_is_told_below_the_form_which_keeps_what_was_written(
    collection: Collection, asking: httpx.AsyncClient, asked: str, said: str, link: str | None
) -> None:
    collection.add("/x/a.wav", {"Dog": [0.9]})
    page = await asking.get(f"/?{asked}")
    assert page.status_code == 400
    told = html.unescape(page.text.partition('role="alert">')[2].partition("</div>")[0])
    assert said in told
    if link:
        assert _links(page)[link] == f"/?under={link}"
    for name, value in parse_qsl(asked):
        if name not in ("order", "offset", "like", "model", "set"):
            assert re.search(
                rf'name="{name}"[^>]* value="{re.escape(html.escape(value))}"', page.text
            )


@pytest.mark.anyio
async def test_nothing_found_says_what_was_asked_and_what_finds_more(
    collection: Collection, asking: httpx.AsyncClient
) -> None:
    page = await asking.get("/")
    assert "Nothing is heard here yet" in page.text
    collection.add("/x/a.wav", {"Dog": [0.4]})
    page = await asking.get("/?under=Dog&path=nowhere&from_hour=04:00")
    assert "<h2>Dog, at 0.5 or above</h2>" in page.text
    assert "Nothing was found." in page.text
    links = _links(page)
    assert links["without the folder or file"] == "/?under=Dog&from_hour=04%3A00"
    assert links["without the time of day"] == "/?under=Dog&path=nowhere"
    page = await asking.get(links["without the time of day"] + "&min_score=0.1")
    assert _names(page) == []
    page = await asking.get("/?under=Dog")
    page = await asking.get(_links(page)["from a score of 0.1"])
    assert _names(page) == ["Dog"]


@pytest.mark.anyio
async def test_classes_are_suggested_with_their_paths_and_counts(
    collection: Collection, asking: httpx.AsyncClient
) -> None:
    collection.add("/x/a.wav", {"Dog": [0.9], "Bark": [0.8]})
    collection.add("/x/b.wav", {"Bark": [0.8]})
    found = (await asking.get("/classes", params={"text": "dog"})).json()
    assert found[0] == {
        "mid": "/m/0bt9lr", "name": "Dog", "path": "Animal / Domestic animals, pets / Dog",
        "clips": "2",
    }  # fmt: skip
    at_more = {"text": "dog", "min_score": 0.85}
    assert (await asking.get("/classes", params=at_more)).json()[0]["clips"] == "1"
    roots = (await asking.get("/classes")).json()
    assert [each["name"] for each in roots] == [n.name for n in load_default().roots]
    assert (await asking.get("/classes", params={"text": "x" * 201})).status_code == 400


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("dog", "Dog"), ("DOG ", "Dog"), ("civil", "Civil defense siren"), ("/m/0bt9lr", "Dog"),
        ("kid speaking", "Child speech, kid speaking"), ("animal/dog", "Dog"),
        ("sirene", "Siren"), ("vehicle horn", "Vehicle horn, car horn, honking"),
    ],
)  # fmt: skip
def test_what_is_suggested_first(text: str, first: str) -> None:
    assert suggested(load_default(), text)[0].name == first


def test_odd_texts_suggest_something_or_nothing() -> None:
    for text in ("/", "//", "(", "\0", "a" * 200, "🐕", "' OR 1=1"):
        assert len(suggested(load_default(), text)) <= 10


@pytest.mark.anyio
async def test_sounds_like_one_are_found_by_its_embeddings(
    collection: Collection, asking: httpx.AsyncClient
) -> None:
    embedded = Embedded(collection)
    saw = embedded.add("/x/saw one.wav", "saw")
    others = [embedded.add("/x/saw two.wav", "saw"), embedded.add("/x/dog.wav", "dog")]
    page = await asking.get(f"/?like={saw}@0.50")
    assert "Sounds like saw one.wav at 0:00.5" in page.text
    assert "by embeddings of yamnet@emb, with 2 other recordings" in page.text
    assert re.findall(r'data-clip="(\w+)"', page.text) == others
    page = await asking.get(f"/?like={saw}")
    assert re.findall(r'data-clip="(\w+)"', page.text) == others
    page = await asking.get(f"/?like={saw}@99")
    assert (page.status_code, "ends at 2.40 s" in page.text) == (400, True)
    for spoil in (damage, Path.unlink):
        spoil(collection.files["embeddings /x/dog.wav"])
        page = await asking.get(f"/?like={saw}")
        assert (page.status_code, "embeddings cannot be read: " in page.text) == (400, True)
        assert "see `audioset verify`" in page.text


@pytest.fixture
def many(tmp_path: Path) -> Iterator[looking.Collection]:
    """Of one second each, with scores that fall from sound to sound."""
    collection = looking.Collection(tmp_path)
    for number, score in enumerate(np.linspace(0.95, 0.55, 2 * N_CARDS + 5)):
        collection.add(tmp_path / f"{number:03}.wav", 1.0, {looking.SIREN: (0, 0, float(score))})
    yield collection
    collection.engine.dispose()


def _shown(page: Page) -> list[str]:
    return page.locator(".card h2 + p a:first-child").all_inner_texts()


@pytest.mark.slow
def test_sounds_are_scrolled_through_to_the_last_by_mouse_and_by_keys(
    many: looking.Collection,
    tmp_path: Path,
    page: Page,
    heard: Callable[[Locator], dict[str, float]],
) -> None:
    every = [f"{number:03}.wav" for number in range(2 * N_CARDS + 5)]
    with serving(many.engine, tmp_path) as address:
        page.goto(f"{address}/?under=Siren")
        expect(page.locator("#shown")).to_have_text("The first 60 recordings of more.")
        assert heard(page.locator(".card audio").first)["loudest"] > 0.01
        for n_shown in (2 * N_CARDS, len(every)):
            page.mouse.wheel(0, 40_000)
            expect(page.locator(".card")).to_have_count(n_shown, timeout=30_000)
        assert _shown(page) == every
        expect(page.locator("#more")).to_have_count(0)
        expect(page.locator("#shown")).to_have_text(f"All {len(every)}.")
        # By keys alone, in a window as high as two rows.
        page.set_viewport_size({"width": 1280, "height": 500})
        page.goto(f"{address}/?under=Siren")
        expect(page.locator(".card").first).to_be_visible()
        for number, name in enumerate(every):
            expect(page.locator(".card")).not_to_have_count(number, timeout=30_000)
            page.keyboard.press("j")
            expect(page.locator(".card:focus")).to_contain_text(name, timeout=30_000)
        assert _shown(page) == every
        # Without script the link leads to the next page, and an address keeps its place.
        page.goto(f"{address}/?under=Siren&offset=60")
        expect(page.locator("#shown")).to_contain_text("Recordings 61 to 120 of more.")
        assert _shown(page)[0] == every[60]
        page.goto("about:blank")  # pictures that are not there yet are not asked for any more


@pytest.mark.slow
def test_no_sound_is_left_out_since_another_of_its_recording_was_shown(
    tmp_path: Path, page: Page
) -> None:
    made = looking.Collection(tmp_path)
    both = {looking.SIREN: (0, 0, 0.9), looking.SPEECH: (0, 0, 0.6)}
    for number in range(N_CARDS):
        made.add(tmp_path / f"{number}.wav", 1.0, both)
    with serving(made.engine, tmp_path) as address:
        page.goto(f"{address}/?under=Siren&under=Speech&each=1")
        expect(page.locator(".card")).to_have_count(N_CARDS)
        page.keyboard.press("m")
        expect(page.locator("#shown")).to_have_text(f"All {2 * N_CARDS}.")
        expect(page.locator(".card")).to_have_count(2 * N_CARDS)
        page.goto("about:blank")
    made.engine.dispose()


@pytest.mark.slow
def test_a_class_is_chosen_from_those_that_fit(
    many: looking.Collection, tmp_path: Path, page: Page
) -> None:
    with serving(many.engine, tmp_path) as address:
        page.goto(address)
        field = page.get_by_role("combobox").first
        page.keyboard.press("/")
        page.keyboard.type("sire")
        options = page.get_by_role("listbox").get_by_role("option")
        expect(options.first).to_contain_text("Siren")
        expect(options.first).to_contain_text("125")
        expect(field).to_have_attribute("aria-expanded", "true")
        page.keyboard.press("ArrowDown")
        expect(options.first).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Enter")
        expect(field).to_have_value("Siren")
        expect(options).to_have_count(0)
        page.keyboard.press("Enter")
        page.wait_for_url("**/?under=Siren&min_score=0.5")
        # The second field, by mouse; Escape closes the list and keeps what is written.
        second = page.get_by_role("combobox").nth(1)
        second.click()
        second.type("speec")
        page.get_by_role("option", name="Speech", exact=False).first.click()
        expect(second).to_have_value("Speech")
        expect(page.locator("input[name=under]")).to_have_count(3)
        second.type("x")
        expect(page.get_by_role("listbox")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("listbox")).to_have_count(0)
        second.fill("Speech")
        page.get_by_role("button", name="Search").click()
        page.wait_for_url("**/?under=Siren&under=Speech&min_score=0.5")
        page.get_by_role("link", name="every time it is heard").click()
        page.wait_for_url("**/?under=Siren&under=Speech&min_score=0.5&each=1")
        page.keyboard.press("3")
        page.wait_for_url("**order=duration**")
        expect(page.locator(".ways [aria-current=true]")).to_have_text(
            ["longest first", "every time it is heard"]
        )
        for address in ("**order=duration", "**order=duration&each=1"):
            page.keyboard.press("e")
            page.wait_for_url(address)
        page.keyboard.press("f")
        page.get_by_label("Folder, file or pattern").fill("007.wav")
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_have_count(1)
        expect(page).to_have_url(re.compile("path=007.wav.*order=duration&each=1"))
        page.goto("about:blank")  # the picture is not asked for any more
