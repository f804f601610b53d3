"""Sites in the app: in the search form, on cards, on the pages of recording and collection."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from audioset_core.records import Site, SiteRule
from db.catalog.sites import change_sites
from tasks.labelling.start_times import time_recordings
from tests.flows import looking
from tests.flows.app.conftest import serving


@pytest.mark.slow
def test_sounds_of_a_site_are_found(tmp_path: Path, page: Page) -> None:
    made = looking.Collection(tmp_path)
    for number, folder in enumerate(("pond", "pond", "wood")):
        (tmp_path / folder).mkdir(exist_ok=True)
        made.add(tmp_path / folder / f"{number}.wav", 1.0, {looking.SIREN: (0, 0, 0.9)})
    rule = SiteRule("folder", str(tmp_path / "pond"))
    pond = Site("Pond & <mill>", 52.5, 13.4, rules=(rule,))
    change_sites(made.engine, lambda _: [pond, Site("Wood", 52.6, 13.4)], looking.NOW)
    time_recordings(made.engine, again=True)
    cards = page.locator(".card")
    with serving(made.engine, tmp_path) as address:
        page.goto(f"{address}/?under=Siren")
        expect(cards).to_have_count(3)
        page.get_by_text("Narrow down").click()
        names = page.locator("#sites option").all_text_contents()
        assert names == ["Pond & <mill>", "Wood"]
        page.get_by_label("Site", exact=True).fill("pond & <MILL>")
        page.get_by_label("Site", exact=True).press("Enter")
        expect(cards).to_have_count(2)
        expect(cards.first).to_contain_text("Pond & <mill>")
        page.goto(f"{address}/?under=Siren&near=52.51,13.4&km=2")
        expect(cards).to_have_count(2)
        page.goto(f"{address}/?under=Siren&site=Wood")
        expect(page.locator("main")).to_contain_text("Nothing was found.")
        page.get_by_role("link", name="without the site").click()
        expect(cards).to_have_count(3)
        page.goto(f"{address}/?under=Siren&site=Pnd")
        expect(page.get_by_role("alert")).to_contain_text("unknown site 'Pnd'; nearest: Pond")
        page.goto(f"{address}/?under=Siren&near=13.4E,52.5N")
        expect(page.get_by_role("alert")).to_contain_text("is a longitude")
        page.said.clear()  # type: ignore[attr-defined]
        page.goto(f"{address}/corpus")
        row = page.locator("section", has=page.get_by_role("heading", name="Sites")).locator(
            "tr", has_text="Pond & <mill>"
        )
        expect(row).to_contain_text("52.5000, 13.4000")
        row.get_by_role("link").click()
        expect(page.get_by_label("Site", exact=True)).to_have_value("Pond & <mill>")
        page.locator("#under").fill("Siren")
        page.locator("#under").press("Enter")
        expect(cards).to_have_count(2)
        cards.first.get_by_role("link").first.click()
        expect(page.locator("main")).to_contain_text("Pond & <mill>")
        page.goto("about:blank")
    made.engine.dispose()
