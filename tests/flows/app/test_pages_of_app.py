"""The pages of `audioset app` by mouse and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.flows.app.conftest import serving
from tests.flows.looking import SIREN, SPEECH, Collection

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = Collection(tmp_path)
    collection.add(tmp_path / 'a, "b" <i>.wav', 20.0, {SIREN: (20, 23, 0.9), SPEECH: (0, 9, 0.7)})
    collection.add(tmp_path / "b.wav", 8.0, {SIREN: (0, 3, 0.6)})
    gone = tmp_path / "gone.wav"
    collection.add(gone, 8.0, {SIREN: (0, 3, 0.55)})
    gone.unlink()
    yield collection
    collection.engine.dispose()


@pytest.fixture
def address(made: Collection, tmp_path: Path) -> Iterator[str]:
    with serving(made.engine, tmp_path) as address:
        yield address


def test_a_sound_is_found_and_heard_by_keyboard_alone(
    address: str, page: Page, heard: Callable[[Locator], dict[str, float]]
) -> None:
    page.goto(address)
    page.keyboard.press("/")
    page.keyboard.type("Siren")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(3)
    page.wait_for_load_state()  # keys are of use when the scripts have run
    page.keyboard.press("j")
    expect(page.locator(".card").first).to_be_focused()
    page.keyboard.press("Space")
    sound = heard(page.locator(".card audio").first)
    assert sound["loudest"] > 0.01
    page.keyboard.press("j")
    page.keyboard.press("Space")
    assert page.locator(".card audio").first.evaluate("player => player.paused")
    page.keyboard.press("j")
    expect(page.locator(".card").nth(2).locator(".why")).to_contain_text("no longer exists")
    page.said.clear()  # type: ignore[attr-defined]  # the picture that could not be made
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("write what to look for")
    page.keyboard.press("Escape")
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/clips/[0-9a-f]{64}"))
