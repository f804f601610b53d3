"""A sample is judged by mouse and by keyboard, by one person and by two; nothing said is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from db.judging.shared_reviews import answers
from db.judging.verdicts import find_verdicts
from flows.app.application import application
from flows.app.guard import CSRF_HEADER, Guard
from flows.app.served import Served
from tests.flows import scored
from tests.flows.app.conftest import serving
from tests.flows.looking import SIREN, SPEECH, Collection

ANNA = {"judge": " Anna  B ", "verdict": "present", "mid": SIREN}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _client(collection: scored.Collection) -> httpx.AsyncClient:
    app = application(Served(collection.engine, collection.home, Guard(csrf="secret")))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers={CSRF_HEADER: "secret"}
    )


@pytest.mark.anyio
async def test_a_verdict_is_stored_once_with_its_person_and_its_time(
    collection: scored.Collection,
) -> None:
    clip = collection.add("/a.wav", {"Siren": [0.9] * 9})  # 4.8 s
    said = {**ANNA, "clip": clip, "start_s": 0.5, "end_s": 4.83, "name": "n-000001", "age_s": 60}
    async with _client(collection) as client:
        for is_new in (True, False):
            answer = await client.post("/verdicts", json=said)
            assert (answer.status_code, answer.json()) == (200, {"stored": is_new})
        of_all = {**ANNA, "clip": clip, "judge": "Bo", "verdict": "absent"}
        assert (await client.post("/verdicts", json=of_all)).status_code == 200
    bo, anna = find_verdicts(collection.engine)
    assert (anna.judged_by, anna.verdict) == ("Anna B", "present")
    assert (anna.start_s, anna.end_s) == (0.5, 4.8)
    assert 55 < (datetime.now(UTC) - anna.judged_at).total_seconds() < 120
    assert (bo.judged_by, bo.start_s, bo.file) == ("Bo", None, "audioset app")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"clip": "f" * 64}, "no clip"), ({"clip": "../x"}, "clip"),
        ({"mid": "/m/none"}, "/m/none"),
        ({"judge": "  "}, "write who judges"), ({"judge": "x" * 99}, "judge"),
        ({"verdict": "maybe"}, "verdict"), ({"start_s": 1.0}, "a start and an end"),
        ({"start_s": 3.0, "end_s": 2.0}, "no span"), ({"start_s": 0.0, "end_s": 60.0}, "ends at"),
        ({"end_s": "nan", "start_s": 0}, "end_s"),
    ],
)  # fmt: skip
async def test_a_verdict_that_cannot_be_is_refused_in_a_line(
    collection: scored.Collection, wrong: dict[str, object], told: str
) -> None:
    clip = collection.add("/a.wav", {"Siren": [0.9] * 9})
    async with _client(collection) as client:
        answer = await client.post("/verdicts", json={**ANNA, "clip": clip, **wrong})
    assert answer.status_code == 400
    assert told in answer.text
    assert answer.text.count("\n") == 0
    assert find_verdicts(collection.engine, history=True) == []


@pytest.mark.anyio
async def test_samples_are_drawn_once_and_say_what_is_wrong(collection: scored.Collection) -> None:
    for n in range(4):
        collection.add(f"/{n}.wav", {"Siren": [0.9 - n / 5] * 3})
    async with _client(collection) as client:
        first = await client.post("/judge/samples", json={"under": "siren", "size": 3})
        assert first.json() == {"address": "/judge/1", "n_sounds": 3}
        assert (await client.post("/judge/samples", json={"under": "Siren", "size": 3})).json() == (
            first.json()
        )
        for wanted, told in (
            ({"under": "Sirene"}, "Siren"), ({"under": "Dog"}, "no sound has 'Dog'"),
            ({"under": "Siren", "size": 0}, "size"),
        ):  # fmt: skip
            answer = await client.post("/judge/samples", json=wanted)
            assert (answer.status_code, told in answer.text) == (400, True)
        for path in ("/judge/7", "/judge/7/so-far", "/judge/0", "/judge/x"):
            assert (await client.get(path)).status_code == 400
        assert "Nobody has judged" in (await client.get("/judge/1/so-far")).text


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = Collection(tmp_path)
    for n in range(3):
        heard = {SIREN: (8, 11, 0.9 - n / 10), SPEECH: (0, 9, 0.2)}
        collection.add(tmp_path / f'{n}, "b" <i>.wav', 20.0, heard)
    gone = tmp_path / "gone.wav"
    collection.add(gone, 8.0, {SIREN: (0, 3, 0.55)})
    gone.unlink()
    yield collection
    collection.engine.dispose()


@pytest.fixture
def address(made: Collection, tmp_path: Path) -> Iterator[str]:
    with serving(made.engine, tmp_path) as address:
        yield address


def _draw(page: Page, address: str, under: str) -> None:
    page.goto(f"{address}/judge")
    page.keyboard.press("/")
    page.keyboard.type(under)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/judge/\d+#1$"))


def _leave(page: Page) -> None:
    """End what the page still asks for; that one of the files is gone was no mistake."""
    page.goto("about:blank")
    page.said.clear()  # type: ignore[attr-defined]


def _counting(made: Collection) -> dict[str, str]:
    """By the class's MID and the place in its history, what counts."""
    return {f"{v.judged_by} {v.mid} {v.clip}": v.verdict for v in find_verdicts(made.engine)}


def _await_history(page: Page, made: Collection, n: int) -> None:
    for _ in range(100):
        if len(find_verdicts(made.engine, history=True)) == n:
            return
        page.wait_for_timeout(50)
    raise AssertionError(len(find_verdicts(made.engine, history=True)))


@pytest.mark.slow
def test_a_sample_is_judged_by_keyboard_alone(
    made: Collection, address: str, page: Page, heard: Callable[[Locator], dict[str, float]]
) -> None:
    _draw(page, address, "Siren")
    expect(page.get_by_label("Who judges")).to_be_focused()
    page.keyboard.type("Anna")
    page.keyboard.press("Enter")
    expect(page.locator("#item")).to_be_focused()
    order = page.evaluate("JSON.parse(document.getElementById('data').textContent).items")
    assert len(order) == 4
    lost = next(n for n, item in enumerate(order) if item["file"] == "gone.wav")
    page.evaluate(f"location.hash = {(lost + 1) % 4 + 1}")
    expect(page.locator("#where")).to_contain_text(f"Sound {(lost + 1) % 4 + 1} of 4")
    sound = heard(page.locator("#player"))
    assert sound["loudest"] > 0.01
    page.evaluate("location.hash = 1")
    for key, verdict in (("y", "yes"), ("n", "no"), ("u", "unsure")):
        n = "yn u".replace(" ", "").index(key)
        expect(page.locator("#where")).to_contain_text(f"Sound {n + 1} of 4")
        if n == lost:
            expect(page.locator("#why")).to_contain_text("no longer exists")
        page.keyboard.press(key)
        expect(page.locator("#dots button").nth(n)).to_have_attribute("data-verdict", verdict)
    page.keyboard.press("z")
    expect(page.locator("#where")).to_contain_text("Sound 3 of 4")
    expect(page.locator("#count")).to_contain_text("2 of 4 judged by Anna")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("y")  # another mind: the newest counts
    expect(page.locator("#count")).to_contain_text("2 of 4 judged by Anna")
    page.keyboard.press("z")  # back to no
    page.keyboard.press("s")
    expect(page.locator("#where")).to_contain_text("Sound 3 of 4")
    so_far = page.locator("#so-far")
    expect(so_far).to_contain_text("2 of 4")
    expect(so_far).to_contain_text("truly have Siren")
    said = {f"Anna {SIREN} {order[0]['clip']}": "present",
            f"Anna {SIREN} {order[1]['clip']}": "absent"}  # fmt: skip
    _await_history(page, made, 6)
    assert _counting(made) == said
    # Whoever comes back goes on where the first sound has no verdict.
    page.goto(page.url.partition("#")[0])
    expect(page.get_by_label("Who judges")).to_have_value("Anna")
    expect(page.locator("#where")).to_contain_text("Sound 3 of 4")
    _leave(page)


@pytest.mark.slow
def test_two_people_judge_one_sample_by_mouse(made: Collection, address: str, page: Page) -> None:
    _draw(page, address, "Siren")
    buttons = page.get_by_role("group", name="Verdict").get_by_role("button")
    for who, said in (("Anna", "Yes Yes No"), ("Bo", "Yes No No")):
        page.get_by_label("Who judges").fill(who)
        page.get_by_label("Who judges").blur()
        expect(page.locator("#count")).to_have_text(f"0 of 4 judged by {who}")
        page.get_by_role("button", name="sound 1:").click()
        for n, word in enumerate(said.split()):
            expect(page.locator("#where")).to_contain_text(f"Sound {n + 1} of 4")
            buttons.filter(has_text=f"{word} ").first.click()
        expect(page.locator("#count")).to_have_text(f"3 of 4 judged by {who}")
    so_far = page.locator("#so-far")
    # Of three: twice the same; by chance (2 1 + 1 2) / 9: (2/3 - 4/9) / (5/9).
    expect(so_far.get_by_role("row", name="Anna and Bo")).to_have_text(
        re.compile(r"Anna and Bo\s*3\s*2\s*0\.40")
    )
    expect(so_far).to_contain_text("1 sound is left out")
    so_far.get_by_text("1 sound about which people disagree").click()
    expect(so_far.locator("li")).to_have_text("Sound 2: Anna yes, Bo no")
    so_far.get_by_role("link", name="Sound 2").click()
    expect(page.locator("#where")).to_contain_text("Sound 2 of 4")
    buttons.first.click()
    expect(so_far).not_to_contain_text("disagree")
    expect(so_far.get_by_role("row", name="Anna and Bo")).to_contain_text("1.00")
    assert set(answers(made.engine, 1)) == {"Anna", "Bo"}
    _leave(page)


@pytest.mark.slow
def test_what_the_server_does_not_take_is_kept_and_sent_later(
    made: Collection, address: str, page: Page
) -> None:
    _draw(page, address, "Siren")
    page.get_by_label("Who judges").fill("Anna")
    page.get_by_label("Who judges").blur()
    page.route("**/verdicts", lambda route: route.abort())
    page.keyboard.press("y")
    page.keyboard.press("n")
    expect(page.locator("#unstored")).to_contain_text("2 not stored yet")
    assert _counting(made) == {}
    # The page is closed meanwhile; the server has started anew, with another secret.
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator("#unstored")).to_contain_text("2 not stored yet")
    page.evaluate("document.querySelector('meta[name=csrf]').content = 'old'")
    page.unroute("**/verdicts")
    expect(page.locator("#unstored")).to_be_hidden(timeout=20_000)
    expect(page.locator("#so-far")).to_contain_text("2 of 4")
    assert sorted(_counting(made).values()) == ["absent", "present"]
    _leave(page)


@pytest.mark.slow
def test_of_two_verdicts_the_second_counts_although_the_first_took_long(
    made: Collection, address: str, page: Page
) -> None:
    _draw(page, address, "Siren")
    page.get_by_label("Who judges").fill("Anna")
    page.get_by_label("Who judges").blur()
    held: list[Route] = []
    page.route("**/verdicts", lambda route: held.append(route), times=1)
    page.keyboard.press("y")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("n")
    page.wait_for_timeout(800)
    held[0].continue_()
    _await_history(page, made, 2)
    assert list(_counting(made).values()) == ["absent"]
    _leave(page)


@pytest.mark.slow
def test_a_sound_that_could_not_be_had_is_heard_when_the_server_answers_again(
    made: Collection, address: str, page: Page
) -> None:
    page.route("**/sounds/**", lambda route: route.abort())
    _draw(page, address, "Siren")
    page.get_by_label("Who judges").blur()
    expect(page.locator("#why")).to_have_text(re.compile("The server does not answer"))
    page.unroute("**/sounds/**")
    page.keyboard.press("r")
    expect(page.locator("#picture")).to_be_visible()
    expect(page.locator("#player")).to_be_visible()
    expect(page.locator("#player")).to_have_js_property("paused", False)
    _leave(page)


@pytest.mark.slow
def test_another_class_of_the_branch_is_no_and_yes(
    made: Collection, address: str, page: Page
) -> None:
    """Where one of several classes is asked about, `other` denies it and affirms the branch."""
    for n in range(3):
        made.add(made.home / f"speech{n}.wav", 8.0, {SPEECH: (2, 3, 0.95)})
    page.goto(f"{address}/judge")
    page.get_by_label("Class or branch").fill("Human voice")
    page.get_by_label("Of each class at least").fill("2")
    page.get_by_role("button", name="Draw a sample").click()
    page.get_by_label("Who judges").fill("Anna")
    page.get_by_label("Who judges").blur()
    expect(page.locator("#question")).to_have_text("Do you hear: Speech?")
    page.keyboard.press("o")
    expect(page.locator("#dots button").first).to_have_attribute("data-verdict", "other")
    expect(page.locator("#so-far")).to_contain_text("truly have Human voice")
    assert sorted((v.name, v.verdict) for v in find_verdicts(made.engine)) == [
        ("Human voice", "present"), ("Speech", "absent")
    ]  # fmt: skip
    page.keyboard.press("z")
    expect(page.locator("#dots button").first).not_to_have_attribute("data-verdict", "other")
    page.wait_for_timeout(300)
    assert find_verdicts(made.engine) == []
    _leave(page)


@pytest.mark.slow
def test_a_span_of_a_recording_is_judged_by_keyboard(
    made: Collection, address: str, page: Page
) -> None:
    """The page tells which span is marked, and has a place for what to do with it."""
    clip = made.add(made.home / "long.wav", 20.0, {SIREN: (0, 3, 0.9)})

    def with_place(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        if 'id="span-actions"' not in text:
            text = text.replace("</main>", '<div id="span-actions"></div></main>')
        route.fulfill(response=answer, body=text)

    page.route(f"**/clips/{clip}", with_place)
    page.goto(f"{address}/clips/{clip}")
    page.evaluate(
        """clip => document.dispatchEvent(
             new CustomEvent("span", {detail: {clip, start_s: 2.5, end_s: 4.25}}))""", clip
    )  # fmt: skip
    page.evaluate("document.getElementById('span-actions').hidden = false")
    page.keyboard.press("c")
    page.keyboard.type("chains")
    expect(page.get_by_role("option").first).to_contain_text("Chainsaw")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("l")
    expect(page.locator("#said")).to_contain_text("Write who judges first")
    page.keyboard.type("Anna")
    page.keyboard.press("Enter")
    page.keyboard.press("l")
    expect(page.locator("#said")).to_have_text("Stored: no Chainsaw, says Anna.")
    expect(page.locator("#judged tbody tr")).to_have_text(re.compile("0:02.5.0:04.2.*Chainsaw.*no"))
    page.keyboard.press("c")
    page.keyboard.press("Control+a")
    page.keyboard.type("Chainsow")
    page.keyboard.press("Enter")
    page.keyboard.press("y")
    expect(page.locator("#said")).to_contain_text("Chainsaw")  # the nearest name
    (only,) = find_verdicts(made.engine)
    assert (only.name, only.verdict, only.start_s, only.end_s, only.judged_by) == (
        "Chainsaw", "absent", 2.5, 4.25, "Anna"
    )  # fmt: skip
    _leave(page)


@pytest.mark.slow
def test_read_only_everything_is_heard_and_nothing_judged(
    made: Collection, page: Page, tmp_path: Path
) -> None:
    with serving(made.engine, tmp_path) as address:
        _draw(page, address, "Siren")
    with serving(made.engine, tmp_path, Guard(is_read_only=True)) as address:
        page.goto(f"{address}/judge/1")
        expect(page.locator("#question")).to_have_text("Do you hear: Siren?")
        page.keyboard.press("y")
        for name in ("Yes", "No n", "Unsure", "Undo"):
            expect(page.get_by_role("button", name=name)).to_be_disabled()
        _leave(page)
    assert find_verdicts(made.engine, history=True) == []
