"""The page of `audioset app` over a collection, in a real browser, with sound that is heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page
from sqlalchemy import Engine

from flows.app.application import application
from flows.app.guard import Guard
from flows.app.served import Served


@contextmanager
def serving(engine: Engine, home: Path, guard: Guard | None = None) -> Iterator[str]:
    """The address of the page over a home, served from a thread."""
    app = application(Served(engine, home, guard or Guard()))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that asked nobody but the server, and whose scripts had nothing to complain of.

    A test that expects answers with an error empties `page.said` itself.
    """
    asked: list[str] = []
    said: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.said = said  # type: ignore[attr-defined]
        page.on("request", lambda asking: asked.append(asking.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
    assert said == []
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in asked), asked


def faults_for_people(page: Page) -> list[str]:
    """What axe finds: contrast, names of controls, order of headings, ..."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['target']} {node['failureSummary']}"
        for each in found
        for node in each["nodes"]
    ]


_LISTEN = """async (player) => {
  const graph = new AudioContext();
  const source = graph.createMediaElementSource(player);
  const ear = graph.createAnalyser();
  ear.fftSize = 8192;
  source.connect(ear).connect(graph.destination);
  await graph.resume();
  if (player.paused) await player.play();
  const wave = new Float32Array(ear.fftSize), bands = new Float32Array(ear.frequencyBinCount);
  let loudest = 0, peak_hz = 0, at_s = 0;
  for (let n = 0; n < 60 && loudest < 0.01; n++) {
    await new Promise((done) => setTimeout(done, 100));
    ear.getFloatTimeDomainData(wave);
    ear.getFloatFrequencyData(bands);
    loudest = Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
    peak_hz = bands.indexOf(Math.max(...bands)) * graph.sampleRate / ear.fftSize;
    at_s = player.currentTime;
  }
  return { loudest, peak_hz, at_s };
}"""


@pytest.fixture
def heard() -> Callable[[Locator], dict[str, float]]:
    """What comes out of a player: loudness (RMS), the loudest frequency, the place."""

    def listen(player: Locator) -> dict[str, float]:
        found: dict[str, float] = player.evaluate(_LISTEN)
        return found

    return listen
