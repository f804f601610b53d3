"""The page of a recording, by mouse and by keyboard, with sound that is heard."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, expect

from db.records import Remark
from flows.app.application import application
from flows.app.guard import Guard
from flows.app.recording.hearing import played_hz
from flows.app.served import Served
from tests.flows.app.conftest import serving
from tests.flows.looking import SIREN, SPEECH, Collection

pytestmark = pytest.mark.slow

STEP_HZ = 100


def _steps(n_s: int, rate_hz: int, first_hz: float, step_hz: float) -> np.ndarray:
    """A tone that is higher by a step in each second, without a jump of its phase."""
    hz = first_hz + step_hz * (np.arange(n_s * rate_hz) // rate_hz)
    return 0.4 * np.sin(2 * np.pi * np.cumsum(hz) / rate_hz)


@dataclass
class Made(Collection):
    """Clip ids by what they are."""

    steps: str = ""
    bat: str = ""
    one: str = ""
    gone: str = ""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("recordings")
    collection = Made(folder)
    soundfile.write(folder / "steps <i>.flac", _steps(90, 16_000, 300, STEP_HZ), 16_000)
    collection.steps = collection.add_file(
        folder / "steps <i>.flac",
        {SIREN: (20, 23, 0.9), SPEECH: (100, 140, 0.6)},
        [Remark("truncated", "the file ends before its header says", 90.0)],
    )
    bat = _steps(6, 192_000, 20_000, 5_000)
    soundfile.write(folder / "bat.wav", np.stack([bat, 0.5 * bat], 1), 192_000)
    collection.bat = collection.add_file(folder / "bat.wav", {SIREN: (2, 4, 0.8)})
    soundfile.write(folder / "one.wav", np.array([0.5]), 44_100)
    collection.one = collection.add_file(folder / "one.wav", {})
    gone = folder / "gone.wav"
    collection.gone = collection.add(gone, 8.0, {SIREN: (0, 3, 0.55)})
    gone.unlink()
    yield collection
    collection.engine.dispose()


def _client(collection: Made) -> httpx.AsyncClient:
    app = application(Served(collection.engine, collection.home, Guard()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- what the script asks for


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "slowed"), [("steps", 1), ("bat", 1), ("bat", 10)])
async def test_spans_that_follow_each_other_are_the_whole(
    made: Made, name: str, slowed: int
) -> None:
    clip = getattr(made, name)
    edges = [0.0, 1.2345678, 1.3, 3.9000001, 5.0]

    async def sound(start_s: float, end_s: float) -> tuple[np.ndarray, int]:
        asked = {"start_s": start_s, "end_s": end_s, "slowed": slowed > 1}
        answer = await client.get(f"/clips/{clip}/sound.wav", params=asked)
        assert answer.status_code == 200
        return soundfile.read(io.BytesIO(answer.content), always_2d=True)

    async with _client(made) as client:
        whole, rate_hz = await sound(edges[0], edges[-1])
        parts = [(await sound(a, b))[0] for a, b in pairwise(edges)]
    stored_hz = soundfile.info(
        made.home / {"steps": "steps <i>.flac", "bat": "bat.wav"}[name]
    ).samplerate
    assert rate_hz == played_hz(stored_hz, slowed)
    assert whole.shape == (5 * slowed * rate_hz, 2 if name == "bat" else 1)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-4)
    # The third second, of which the tone is known.
    second = whole[2 * slowed * rate_hz : 3 * slowed * rate_hz, 0]
    loudest = np.abs(np.fft.rfft(second)).argmax() / slowed
    if name == "bat" and slowed == 1:
        assert np.abs(second).mean() < 0.001  # 30 kHz cannot be heard
    else:
        assert loudest == pytest.approx({"steps": 500, "bat": 30_000 / slowed}[name], abs=1)


@pytest.mark.anyio
async def test_a_cut_is_what_is_stored_under_a_name_that_sorts(made: Made) -> None:
    async with _client(made) as client:
        answer = await client.get(f"/clips/{made.bat}/cut", params={"start_s": 1.5, "end_s": 2.25})
        long = await client.get(f"/clips/{made.bat}/cut?start_s=7&end_s=9")
    assert answer.headers["content-type"] == "audio/flac"
    name = f"bat_00h00m01.500s-00h00m02.250s_{made.bat[:8]}.flac"
    assert name in answer.headers["content-disposition"]
    cut, rate_hz = soundfile.read(io.BytesIO(answer.content), dtype="int16")
    stored, _ = soundfile.read(made.home / "bat.wav", dtype="int16")
    assert rate_hz == 192_000
    np.testing.assert_array_equal(cut, stored[288_000:432_000])
    assert (long.status_code, long.text) == (400, "there is no sound from 7 to 9 s")


@pytest.mark.anyio
async def test_scores_and_labels_of_a_span(made: Made) -> None:
    clip = made.steps
    asked = {"start_s": 8.0, "end_s": 18.0, "n": 10, "mid": [SIREN, SPEECH, "/m/none"]}
    async with _client(made) as client:
        rows = (await client.get(f"/clips/{clip}/scores", params=asked)).content
        labels = (await client.get(f"/clips/{clip}/labels")).json()
    siren, speech, none = np.frombuffer(rows, np.uint8).reshape(3, 10)
    # Patches 20 to 23: from 9.6 to 12 s.
    assert [round(value / 255, 1) for value in siren] == [0, 0.9, 0.9, 0.9, 0, 0, 0, 0, 0, 0]
    assert speech.max() < 3
    assert none.max() == 0
    assert [name for _, name, _ in labels["classes"]][:2] == ["Siren", "Speech"]
    assert labels["detections"][0] == [
        0,
        pytest.approx(9.6),
        pytest.approx(12.0),
        pytest.approx(0.9, abs=1e-4),
    ]
    assert labels["remarks"] == [
        [90.0, None, "truncated: the file ends before its header says", True]
    ]


@pytest.mark.anyio
async def test_what_cannot_be_had_is_told_in_a_line(made: Made) -> None:
    paths = {
        "/clips/zz": (400, "clip: 'zz' is not an id"),
        f"/clips/{'0' * 64}": (404, "there is no recording 000000000000"),
        f"/clips/{made.steps}/columns?axis=mel&level=20&tile=9": (404, "has 2 columns at level 20"),
        f"/clips/{made.steps}/columns?axis=mel&level=2&tile=0": (400, "level:"),
        f"/clips/{made.steps}/sound.wav?start_s=0&end_s=61": (400, "up to 60 s"),
        f"/clips/{made.steps}/scores?start_s=0&end_s=1&n=9999&mid=x": (400, "n:"),
        f"/clips/{made.gone}/sound.wav?start_s=0&end_s=1": (404, "no longer exists"),
        f"/clips/{made.gone}/cut?start_s=0&end_s=1": (404, "no longer exists"),
        f"/clips/{made.gone}/columns?axis=mel&level=3&tile=0": (404, "no longer exists"),
    }
    async with _client(made) as client:
        for path, (code, text) in paths.items():
            answer = await client.get(path)
            assert (answer.status_code, text in answer.text) == (code, True), (path, answer.text)
            assert answer.text.count("\n") == 0


# --- the page

_EAR = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...more) {
  if (to instanceof AudioDestinationNode) {
    const ear = new AnalyserNode(this.context, { fftSize: 8192, smoothingTimeConstant: 0 });
    window.ear = ear;
    connect.call(this, ear);
  }
  return connect.call(this, to, ...more);
};
window.listen = () => {
  const bands = new Float32Array(window.ear.frequencyBinCount);
  window.ear.getFloatFrequencyData(bands);
  const best = bands.indexOf(Math.max(...bands));
  const shown = document.getElementById("time").textContent;
  return [best * window.ear.context.sampleRate / 8192, bands[best], shown];
};
"""


@pytest.fixture
def address(made: Made) -> Iterator[str]:
    with serving(made.engine, made.home) as address:
        yield address


@pytest.fixture
def ear(page: Page) -> Page:
    page.add_init_script(_EAR)
    return page


def _heard(page: Page, tone_hz: float, within_s: float = 10) -> str:
    """The place that is shown while this tone is heard."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        hz, level_db, shown = page.evaluate("window.ear ? listen() : [0, -999, '']")
        if level_db > -60 and abs(hz - tone_hz) < 12:
            return str(shown)
        time.sleep(0.02)
    raise AssertionError(
        f"{tone_hz} Hz was not heard; last {hz:.0f} Hz at {level_db:.0f} dB, {shown}"
    )


def _seconds(shown: str) -> float:
    minutes, seconds = re.match(r"(\d+):([\d.]+) of", shown).groups()  # type: ignore[union-attr]
    return 60 * int(minutes) + float(seconds)


def test_it_is_heard_where_one_clicks_over_the_ends_of_spans(
    address: str, ear: Page, made: Made
) -> None:
    ear.goto(f"{address}/clips/{made.steps}?at=9.6")
    expect(ear.locator("h1")).to_have_text("steps <i>.flac")
    expect(ear.locator(".warning")).to_contain_text("Not everything that was recorded")
    expect(ear.locator("#state")).to_have_text("")
    ear.locator("#whole").click()
    box = ear.locator("#spectrum").bounding_box()
    assert box is not None
    ear.mouse.click(box["x"] + box["width"] * 40.5 / 90, box["y"] + 100)
    assert 40 <= _seconds(_heard(ear, 300 + 40 * STEP_HZ)) < 41.15
    # 4 s are loaded first, then 12: the tone goes on where one ends and the other begins.
    for second in range(43, 47):
        assert second <= _seconds(_heard(ear, 300 + second * STEP_HZ)) < second + 1.15
    ear.locator("#play").click()
    expect(ear.locator("#play")).to_have_text("Play")
    expect(ear).to_have_url(re.compile(r"at=4[5-8]\.\d"))


def test_by_keys_alone_a_sound_is_found_heard_marked_and_kept(
    address: str, ear: Page, made: Made, tmp_path: Path
) -> None:
    ear.goto(f"{address}/clips/{made.steps}")
    expect(ear.locator("#names li")).to_have_count(2)
    ear.evaluate("document.addEventListener('span', (event) => { window.marked = event.detail; })")
    ear.keyboard.press("n")
    expect(ear.locator("#what")).to_have_text("0:09.60 to 0:12.00 (2.40 s)")
    ear.keyboard.press("n")
    assert ear.evaluate("window.marked.start_s") == pytest.approx(48.0)
    ear.keyboard.press("p")
    assert ear.evaluate("window.marked") == {"clip": made.steps, "start_s": 9.6, "end_s": 12.0}
    ear.keyboard.press("s")
    assert 10 <= _seconds(_heard(ear, 300 + 10 * STEP_HZ)) < 11.15
    expect(ear.locator("#play")).to_have_text("Play")  # it ends with the span
    with ear.expect_download() as downloading:
        ear.keyboard.press("d")
    kept = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(kept)
    assert re.fullmatch(r"steps.*_00h00m09\.600s-00h00m12\.000s_[0-9a-f]{8}\.flac", kept.name)
    assert soundfile.info(kept).frames == round(2.4 * 16_000)
    for key in ("+", "+", "+", "ArrowRight"):
        ear.keyboard.press(key)
    expect(ear).to_have_url(re.compile("from=.*&to=.*&start=9.600&end=12.000"))
    view = {name: float(value) for name, value in re.findall("(from|to)=([0-9.]+)", ear.url)}
    assert view["to"] - view["from"] == pytest.approx(90 / 8, abs=0.01)
    ear.reload()
    expect(ear.locator("#what")).to_have_text("0:09.60 to 0:12.00 (2.40 s)")
    expect(ear).to_have_url(re.compile(f"from={view['from']:.3f}"))
    ear.keyboard.press("x")
    expect(ear.locator("#span-actions")).to_be_hidden()


def test_the_mouse_zooms_moves_and_marks(address: str, page: Page, made: Made) -> None:
    page.goto(f"{address}/clips/{made.steps}")
    expect(page.locator("#state")).to_have_text("")
    box = page.locator("#spectrum").bounding_box()
    assert box is not None
    x, y, width = box["x"], box["y"] + 60, box["width"]
    page.mouse.move(x + width / 2, y)
    for _ in range(3):
        page.mouse.wheel(0, -240)
    expect(page).to_have_url(re.compile("from=39.375&to=50.625"))
    page.mouse.wheel(width / 2, 0)
    expect(page).to_have_url(re.compile("from=45.0"))
    page.mouse.down()
    page.mouse.move(x + width * 0.75, y, steps=4)
    page.mouse.up()
    expect(page.locator("#what")).to_contain_text("(2.8")
    axis = page.locator("#axis").bounding_box()
    assert axis is not None
    page.mouse.move(x + 100, axis["y"] + 10)
    page.mouse.down()
    page.mouse.move(x + 100 + width / 3, axis["y"] + 10, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"from=41\.2"))
    page.get_by_label("Show Siren").uncheck()
    expect(page.locator("#names li")).to_have_count(1)
    page.get_by_label("Show a class").fill("siren")
    page.keyboard.press("Enter")
    expect(page.locator("#names li")).to_have_count(2)
    # The whole picture is there, near by and from far: no column is black.
    for key in ("0", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+"):
        page.locator("body").press(key)
    expect(page.locator("#state")).to_have_text("")
    end = time.monotonic() + 20
    while not page.evaluate(_NO_COLUMN_IS_BLACK):
        assert time.monotonic() < end
        time.sleep(0.1)


_NO_COLUMN_IS_BLACK = """() => {
  const canvas = document.getElementById("spectrum"), { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  for (let x = 0; x < width; x++) {
    let most = 0;
    for (let y = 0; y < height; y++) most = Math.max(most, pixels[4 * (y * width + x)]);
    if (most < 40) return false;
  }
  return true;
}"""


def test_ultrasound_is_heard_slowed_tenfold(address: str, ear: Page, made: Made) -> None:
    ear.goto(f"{address}/clips/{made.bat}")
    expect(ear.locator("#frequencies")).to_have_value("linear")
    ear.keyboard.press("u")
    ear.keyboard.press(" ")
    assert _seconds(_heard(ear, 2000)) < 1
    for _ in range(30):
        ear.keyboard.press(".")
    assert 3 <= _seconds(_heard(ear, 3500)) < 4


def test_what_is_stored_is_shown_without_the_sound(address: str, page: Page, made: Made) -> None:
    page.goto(f"{address}/clips/{made.gone}")
    expect(page.locator("#why")).to_contain_text("no longer exists")
    expect(page.locator("#names")).to_have_text(re.compile("Siren 0.55"))
    page.keyboard.press(" ")
    expect(page.locator("#said")).to_contain_text("no longer exists")
    page.said.clear()  # type: ignore[attr-defined]  # the answers without a sound
    page.goto(f"{address}/clips/{made.one}")
    expect(page.locator("#state")).to_have_text("")
    expect(page.locator("#time")).to_contain_text("0:00.0")
