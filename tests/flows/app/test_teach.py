"""The Teach page: what it asks, says, stores and refuses, on hand-made embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from audioset_core.storage.score_files import read_scores
from audioset_core.teaching.heads import read_heads
from db.judging.verdicts import find_verdicts
from db.score_files.teachable import embedded_models
from flows.app.application import application
from flows.app.guard import CSRF_HEADER, Guard
from flows.app.served import Served
from flows.app.teaching import Teaching
from flows.asking import ontology_of
from tasks.teaching import patches as patches_module
from tasks.teaching.learning import Teacher, ask, still_open
from tasks.teaching.patches import read_patches
from tasks.teaching.teach import Lesson, teach
from tests.flows.embedded import SAW, Embedded
from tests.flows.scored import Collection

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def made(collection: Collection) -> Embedded:
    """Five saws, and fifteen recordings of something else."""
    made = Embedded(collection)
    for kind in ("saw", "dog", "rain", "wind"):
        for at in range(5):
            made.add(f"/c/{kind}/{at}.wav", kind)
    return made


@pytest.fixture
async def client(made: Embedded) -> AsyncIterator[httpx.AsyncClient]:
    app = application(Served(made.collection.engine, made.collection.home, Guard(csrf="secret")))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    headers = {CSRF_HEADER: "secret"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers=headers
    ) as client:
        yield client


def clip_of(made: Embedded, path: str) -> str:
    return str(
        made.rows(
            "SELECT c.sha256 FROM clips c JOIN sources s ON s.clip_id = c.id "
            f"WHERE s.path_text = '{path}'"
        )[0][0]
    )


def say(path: str, made: Embedded, verdict: str = "present", **more: Any) -> dict[str, Any]:
    span = {"start_s": 0.0, "end_s": 1.0}  # the first two patches have their centre there
    given = {"mid": SAW, "clip": clip_of(made, path), "verdict": verdict, "judge": "Ann"}
    return {**given, **span, **more}


async def asked(client: httpx.AsyncClient, **more: str) -> str:
    """The part of the page with sounds to judge, once the embeddings are read."""
    for _ in range(100):
        found = await client.get("/teach/candidates", params={"name": SAW, **more})
        assert found.status_code == 200, found.text
        if "data-wait" not in found.text:
            return found.text
        await asyncio.sleep(0.05)
    raise AssertionError("the embeddings are not read")


def files_in(text: str) -> list[str]:
    return [part.split('"')[0] for part in text.split('title="')[1:]]


async def test_likeness_ranks_from_the_first_example_and_a_head_as_soon_as_there_can_be_one(
    client: httpx.AsyncClient, made: Embedded
) -> None:
    nothing = await asked(client)
    assert "There is no example yet" in nothing
    assert "search=/%3Funder%3DPower%2520tool%26min_score%3D0.3" in nothing
    assert (await client.post("/verdicts", json=say("/c/saw/0.wav", made))).json() == {
        "stored": True
    }
    text = await asked(client)
    assert "It takes 3 more examples and 1 more recording to learn Wood saw." in text
    assert {file.split("/")[2] for file in files_in(text)[:5]} == {"saw"}
    assert "like 0." in text
    assert "80 of 80 patches are looked at, of 20 of 20 recordings" in text
    # What was judged, and what overlaps with that, is not asked again.
    first = f'data-clip="{clip_of(made, "/c/saw/0.wav")}" data-name="{SAW}" data-start="'
    assert first + "0.000" not in text
    assert first + "0.480" not in text
    for at in (1, 2):
        await client.post("/verdicts", json=say(f"/c/saw/{at}.wav", made))
    text = await asked(client)
    assert "It takes" not in text
    assert "score 0." in text
    (figures,) = (await client.get("/teach/figures", params={"name": SAW})).json()
    assert (figures["n_patches"], figures["n_recordings"]) == (6, 3)
    assert figures["ap"] < 0.9  # the two saws that nobody has judged count as others
    for at in (3, 4):
        await client.post("/verdicts", json=say(f"/c/saw/{at}.wav", made))
    before, now = (await client.get("/teach/figures", params={"name": SAW})).json()
    assert before == figures
    assert (now["n_patches"], now["n_recordings"], now["ap"]) == (10, 5, 1.0)
    assert now["interval"] == [1.0, 1.0]


async def test_what_the_page_ranks_by_is_what_is_taught(
    client: httpx.AsyncClient, made: Embedded
) -> None:
    for at in range(4):
        await client.post("/verdicts", json=say(f"/c/saw/{at}.wav", made))
    await client.post("/verdicts", json=say("/c/rain/1.wav", made, "absent"))
    engine, home = made.collection.engine, made.collection.home
    (base,) = embedded_models(engine)
    patches = read_patches(engine, home, base)
    learned = Teacher(engine, home).learned(base, SAW, "Wood saw")
    every = still_open(patches, [])
    numbers = ask(learned, patches, "best", every, len(patches.rows)).numbers
    answer = await client.post("/teach/models", json={"name": "my-sounds", "classes": [SAW]})
    title = answer.json()["title"]
    assert title == teach(engine, home, Lesson("my-sounds", [SAW]), ontology_of(engine)).title
    heads = read_heads(home / "taught" / f"{title.replace('@', '-')}.safetensors")
    taught = heads.logits(patches.rows)[:, 0]
    by_recording: dict[int, list[float]] = {}
    for number in numbers.tolist():
        at = int(patches.places.recordings[number])
        by_recording.setdefault(at, []).append(float(taught[number]))
    assert all(own == sorted(own, reverse=True) for own in by_recording.values())
    firsts = [own[0] for own in by_recording.values()]
    assert firsts == sorted(firsts, reverse=True)
    assert len(firsts) == 20


def test_of_very_many_patches_a_sample_is_held(
    made: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.add("/c/long.wav", "saw", n_patches=500)
    engine, home = made.collection.engine, made.collection.home
    (base,) = embedded_models(engine)
    monkeypatch.setattr(patches_module, "MOST_NUMBERS", 200 * 8)
    found = read_patches(engine, home, base)
    assert (len(found.rows), found.n_all, found.n_unread) == (200, 580, 0)
    # The short ones as a whole, and so much of the long one as there is room for.
    assert sorted(np.bincount(found.places.recordings).tolist()) == [4] * 20 + [120]
    for number in (0, 77, 199):
        clip = found.clip_of(number)
        stored = read_scores(home / str(clip.embeddings_path))
        row = stored[found.places.patches[number]]
        assert found.rows[number].tolist() == row.astype(np.float32).tolist()
    broken = made.collection.files["embeddings /c/dog/0.wav"]
    broken.write_bytes(broken.read_bytes()[:-1])
    assert read_patches(engine, home, base).n_unread == 1


async def test_a_verdict_is_undone_and_its_history_stays(
    client: httpx.AsyncClient, made: Embedded
) -> None:
    clip = clip_of(made, "/c/saw/0.wav")

    def own(verdict: str, **more: Any) -> dict[str, Any]:
        return say("/c/saw/0.wav", made, verdict, end_s=0.96, **more)

    await client.post("/verdicts", json=say("/c/saw/1.wav", made))
    await client.post("/verdicts", json=own("absent", judge="Bo"))
    for verdict in ("present", "unsure"):
        await client.post("/verdicts", json=own(verdict))
    # A search shows also what was judged: what whoever asks says of it, else somebody else.
    for judge, shown in (("Ann", 'unsure" data-by="Ann'), ("Bo", 'absent" data-by="Bo')):
        found = await asked(client, like=clip_of(made, "/c/saw/1.wav"), at="0.5", judge=judge)
        card = found[found.index(f'data-clip="{clip}" data-name="{SAW}" data-start="0.000"') :]
        assert shown in card[:300]
    assert f'data-clip="{clip}" data-name="{SAW}" data-start="0.000"' not in await asked(client)
    await client.post("/verdicts", json=own("withdrawn", judge="Bo"))
    await client.post("/verdicts", json=own("present"))
    page = (await client.get("/teach/class", params={"name": SAW})).text
    assert page.count("Wood saw, by Ann") == 2
    await client.post("/verdicts", json=own("withdrawn"))
    page = (await client.get("/teach/class", params={"name": SAW})).text
    assert (page.count("Wood saw, by Ann"), "by Bo" in page) == (1, False)
    assert '<dd id="n-present">1</dd>' in page
    # Nobody says anything of it any more: it is asked again.
    assert f'data-clip="{clip}" data-name="{SAW}" data-start="0.000"' in await asked(client)
    engine = made.collection.engine
    assert [(v.verdict, v.judged_by) for v in find_verdicts(engine)] == [("present", "Ann")]
    assert len(find_verdicts(engine, history=True)) == 7


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("classes", {"name": "Dog", "under": ["Animal"]}, "'Dog' is there already"),
    ("classes", {"name": "Owl of ours", "under": ["Brid"]}, "did you mean 'Bird'"),
    ("classes", {"name": "Owl of ours", "under": [""]}, "say what it is a kind of"),
    ("classes/change", {"name": "Dog", "under": ["Animal"]}, "only your own can be changed"),
    ("classes/remove", {"name": "Dog"}, "only your own can be changed"),
    ("models", {"name": "my-sounds", "classes": [SAW]}, "there are no examples"),
    ("models", {"name": "../x", "classes": [SAW]}, "cannot be the name of a folder"),
    ("models", {"name": "yamnet", "classes": [SAW]}, "the name of a model"),
    ("labellings", {"model": "../../etc"}, "no taught model is called"),
]  # fmt: skip


async def test_mistakes_are_one_line_and_change_nothing(
    client: httpx.AsyncClient, made: Embedded
) -> None:
    for path, body, said in MISTAKES:
        answer = await client.post(f"/teach/{path}", json=body)
        assert (answer.status_code, answer.text.count("\n")) == (400, 0), answer.text
        assert said in answer.text
    assert made.rows("SELECT count(*) FROM verdicts") == [(0,)]
    assert not (made.collection.home / "taught").exists()


async def test_odd_addresses_are_told(client: httpx.AsyncClient, made: Embedded) -> None:
    clip = clip_of(made, "/c/saw/0.wav")
    for params, said in (
        ({"order": "odd"}, "order 'odd': best, uncertain, diverse"),
        ({"search": "https://example.org"}, "paste the address of a search"),
        ({"search": "/?under=Brid"}, "did you mean"),
        ({"search": "/?under=Dog&site=Pond"}, "unknown site 'Pond': there are no sites yet"),
        ({"like": "f" * 64}, "no clip"),
        ({"like": clip, "at": "99"}, "the recording ends at"),
    ):
        answer = await client.get("/teach/candidates", params={"name": SAW, **params})
        assert answer.status_code == 400, answer.text
        assert said in answer.text
    alike = await asked(client, like=clip, at="0.5")
    assert {file.split("/")[2] for file in files_in(alike)[:4]} == {"saw"}
    page = await client.get("/teach/class", params={"name": "Wood swa"})
    assert (page.status_code, "Wood saw" in page.text) == (400, True)


async def test_without_embeddings_the_page_says_what_to_do(collection: Collection) -> None:
    app = application(Served(collection.engine, collection.home, Guard()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert "audioset label --embeddings PATH" in (await client.get("/teach")).text
        answer = await client.get("/teach/candidates", params={"name": "Dog"})
    assert (answer.status_code, "no embeddings are stored here" in answer.text) == (400, True)


async def test_the_collection_is_labelled_by_a_process_that_others_see(
    client: httpx.AsyncClient, made: Embedded
) -> None:
    for at in range(5):
        await client.post("/verdicts", json=say(f"/c/saw/{at}.wav", made))
    taught = await client.post("/teach/models", json={"name": "my-sounds", "classes": [SAW]})
    assert taught.json()["classes"] == ["Wood saw"]
    engine, home = made.collection.engine, made.collection.home

    async def ended(after: str) -> dict[str, Any]:
        begun = await client.post("/teach/labellings", json={"model": "my-sounds"})
        assert begun.json()["is_at_work"], after
        other = Teaching(engine, home)  # as after a new start of the page
        assert other.labelling("my-sounds").is_at_work
        again = await client.post("/teach/labellings", json={"model": "my-sounds"})
        assert again.status_code == 200  # begins no second one
        for _ in range(600):
            state = await client.get("/teach/labellings", params={"model": "my-sounds"})
            if not state.json()["is_at_work"]:
                return dict(state.json())
            await asyncio.sleep(0.1)
        raise AssertionError(state.text)

    state = await ended("taught")
    assert (state["n_done"], state["n_all"], state["has_failed"]) == (20, 20, False)
    assert state["said"][0].endswith("20 clips scored, 20 in all")
    assert len(made.taught()) == 20
    page = await client.get("/teach")
    assert "20 recordings labelled" in page.text
    (heads,) = (home / "taught").glob("*.safetensors")
    heads.unlink()
    state = await ended("its weights are lost")
    assert state["has_failed"]
    assert "are not there: teach again" in " ".join(state["said"])
    assert "Its file is missing or damaged" in (await client.get("/teach")).text


async def test_read_only_everything_is_seen_and_nothing_changed(made: Embedded) -> None:
    guard = Guard(csrf="secret", is_read_only=True)
    app = application(Served(made.collection.engine, made.collection.home, guard))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    headers = {CSRF_HEADER: "secret"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers=headers
    ) as client:
        page = await client.get("/teach/class", params={"name": SAW})
        assert page.status_code == 200
        assert "data-say" not in page.text
        for path, body, _ in MISTAKES:
            assert (await client.post(f"/teach/{path}", json=body)).status_code == 403
