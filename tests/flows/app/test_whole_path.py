"""A person's whole path: label, find examples, teach, judge, learn again, label, search."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Locator, Page, expect

from tests.flows.app.conftest import faults_for_people, serving
from tests.flows.build import Lab

pytestmark = pytest.mark.slow

RATE_HZ = 16_000
N_EACH = 9
SAW_HZ = 400.0


def write_sounds(folder: Path) -> None:
    """Saws (a rough harmonic tone), beeps, noise and clicks: nine recordings of 3 s each."""
    folder.mkdir()
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    for at in range(N_EACH):
        rng = np.random.default_rng(at)
        noise = rng.normal(0, 1, len(time_s))
        rough = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(7, 9) * time_s)
        saw = sum(np.sin(2 * np.pi * SAW_HZ * k * time_s) / k for k in (1, 2, 3, 4, 5))
        beep = np.sin(2 * np.pi * rng.uniform(2800, 3200) * time_s)
        is_on = np.sin(2 * np.pi * rng.uniform(1, 2) * time_s) > 0
        sounds = {
            "saw": 0.25 * rough * saw + 0.01 * noise,
            "beep": 0.4 * beep * is_on + 0.01 * noise,
            "wind": 0.1 * noise,
            "click": 0.5 * noise * (rng.random(len(time_s)) < 0.001) + 0.002 * noise,
        }
        for kind, samples in sounds.items():
            soundfile.write(folder / f"{kind}-{at}.wav", np.clip(samples, -1, 1), RATE_HZ)


@pytest.fixture
def address(lab: Lab, assets: Path, tmp_path: Path) -> Iterator[str]:
    write_sounds(tmp_path / "sounds")
    done = lab.label(tmp_path / "sounds", weights=assets / "weights/yamnet.h5", embeddings=True)
    assert done.n_labelled == 4 * N_EACH
    engine = lab.engine
    with serving(engine, lab.home) as address:
        yield address
    engine.dispose()


def is_saw(card: Locator) -> bool:
    """What an ear would say."""
    return card.locator("p.note a").first.inner_text().startswith("saw")


def names(page: Page) -> list[str]:
    return page.locator("#candidates .asked").evaluate_all(
        "all => all.map(card => card.getAttribute('aria-label'))"
    )


def judge_by_keys(page: Page, n: int) -> None:
    """Say yes and no to the next sounds, with the keyboard alone."""
    for _ in range(n):
        card = page.locator(".asked:focus")
        expect(card).to_have_count(1)
        key, said = ("y", "present") if is_saw(card) else ("n", "absent")
        with page.expect_response("**/verdicts") as answer:
            page.keyboard.press(key)
        assert answer.value.request.post_data_json["verdict"] == said
        page.wait_for_timeout(50)
        expect(page.locator("#candidates")).to_have_attribute("aria-busy", "false")


def check_with_axe(page: Page) -> None:
    said: list[str] = page.said  # type: ignore[attr-defined]
    assert said == []
    assert faults_for_people(page) == []
    said.clear()  # axe measures with styles of its own, which the policy refuses


def test_from_recordings_to_a_class_of_ones_own_that_is_found_below_its_parent(
    address: str, page: Page, heard: Callable[[Locator], dict[str, float]]
) -> None:
    # A class of one's own.
    page.goto(f"{address}/teach")
    page.keyboard.press("a")
    page.keyboard.type("Wood saw")
    page.keyboard.press("Tab")
    page.keyboard.type("power to")
    expect(page.get_by_role("option").first).to_contain_text("Power tool")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Wood saw")
    expect(page.locator("main")).to_contain_text("below Power tool · x:wood-saw")
    expect(page.locator("#candidates")).to_contain_text("There is no example yet")
    # A first sound, from a search; it is heard; then what sounds like it.
    page.keyboard.press("s")
    page.keyboard.type("/?under=Music&min_score=0.1")
    page.keyboard.press("Enter")
    found = page.locator("#candidates .asked")
    expect(found.first).to_be_visible()
    first = next(card for card in found.all() if is_saw(card))
    sound = heard(first.locator("audio"))
    assert sound["loudest"] > 0.01
    assert sound["peak_hz"] == pytest.approx(SAW_HZ, abs=10)
    first.get_by_role("link", name="Sounds like this").click()
    expect(page.locator("#candidates")).to_contain_text("most like")
    alike = [is_saw(card) for card in found.all()][:10]
    assert sum(alike) >= 5
    page.keyboard.press("j")
    page.keyboard.press("y")
    expect(page.locator("#said")).to_contain_text("Write who judges first")
    page.keyboard.type("Ann")
    page.keyboard.press("Enter")
    judge_by_keys(page, 10)
    n_present, n_absent = page.locator("#n-present"), page.locator("#n-absent")
    expect(n_present).to_have_text(str(sum(alike)))
    expect(n_absent).to_have_text(str(10 - sum(alike)))
    # An answer is undone, and given again by mouse.
    last, word = (n_present, "Yes") if alike[-1] else (n_absent, "No")
    n_before = last.inner_text()
    page.keyboard.press("z")
    expect(last).to_have_text(str(int(n_before) - 1))
    page.locator(".asked:focus").get_by_role("button", name=word, exact=True).click()
    expect(last).to_have_text(n_before)
    # So it is with an example, which goes and comes back.
    page.reload()
    page.get_by_text("Examples so far: 10").click()
    examples = page.locator("#examples .asked")
    examples.first.get_by_role("button", name="Remove").click()
    expect(page.locator("#n-examples")).to_have_text("9")
    expect(examples.first).to_be_hidden()
    page.keyboard.press("z")
    expect(page.locator("#n-examples")).to_have_text("10")
    expect(examples.first).to_be_visible()
    # What was learned from them, and how good it is.
    page.keyboard.press("1")
    expect(page).to_have_url(re.compile("order=best"))
    with_interval = re.compile(r"^\d\.\d\d 95 %: \d\.\d\d.\d\.\d\d$")
    expect(page.locator("#ap")).to_have_text(with_interval, timeout=30_000)
    expect(page.locator("#candidates")).to_contain_text("of 36 of 36 recordings")
    before = names(page)
    page.keyboard.press("j")
    # After some answers it learns again, and the list changes.
    judge_by_keys(page, 5)
    assert names(page) != before
    expect(page.locator(".asked:focus")).to_have_count(1)
    judge_by_keys(page, 5)
    page.keyboard.press("r")
    expect(page.locator("#ap")).to_have_text(re.compile(r"^(1\.00|0\.[789])"), timeout=30_000)
    expect(page.locator("#learning circle")).not_to_have_count(0)
    check_with_axe(page)
    for key, order in (("2", "uncertain"), ("3", "diverse")):
        page.keyboard.press(key)
        expect(page).to_have_url(re.compile(f"order={order}"))
        expect(found.first).to_be_visible()
    # It is taught, and the collection is labelled with it.
    page.keyboard.press("t")
    expect(page.locator("#said")).to_contain_text(
        re.compile(r"my-sounds@\w+ is taught: Wood saw"), timeout=120_000
    )
    page.keyboard.press("l")
    status = page.locator(".labelling [role=status]")
    expect(status).to_contain_text("36 of 36 recordings labelled", timeout=60_000)
    # A search below the parent finds it.
    page.get_by_role("link", name="Search below Power tool").click()
    cards = page.locator(".card")
    expect(cards).to_have_count(N_EACH)
    assert all("saw-" in text for text in cards.all_inner_texts())
    # The page of all classes tells of it.
    page.goto(f"{address}/teach")
    check_with_axe(page)
    expect(page.locator("article.taught")).to_contain_text("36 recordings labelled")
    expect(page.get_by_role("row", name=re.compile("Wood saw Power tool"))).to_be_visible()
