"""The pages can be used without a mouse, with weak eyes, on a phone and on a large screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser
from sqlalchemy import update

from audioset_core.records import Site
from db.catalog.sites import change_sites
from db.engine import writing
from db.schema.tables import sources
from tests.flows.app.conftest import faults_for_people, serving
from tests.flows.looking import NOW, SIREN, SPEECH, Collection

pytestmark = pytest.mark.slow

PATHS = ("/?under=Siren", "/?under=Sirene", "/clips/{clip}", "/corpus", "/judge", "/teach")
_TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((one) =>
  one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".skip, .scrolled")
).map((one) => one.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The pages' address, and the id of a clip."""
    home = tmp_path_factory.mktemp("home")
    collection = Collection(home)
    clip = collection.add(
        home / 'a, "b" <i>.wav', 20.0, {SIREN: (20, 23, 0.9), SPEECH: (0, 9, 0.7)}
    )
    sites = [
        Site("Pond & <mill>", 52.5, 13.4),
        Site("A name too long for a map of sites", 52.6, 13.4),
    ]
    change_sites(collection.engine, lambda _: sites, NOW)
    with writing(collection.engine) as conn:
        conn.execute(update(sources).values(
            recorded_unix_ms=1_704_063_600_000, recorded_utc_offset_s=3_600, site_id=1
        ))  # fmt: skip
    with serving(collection.engine, home) as address:
        yield address, clip
    collection.engine.dispose()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("width", "colours"), [(420, "dark"), (1280, "light"), (1280, "dark"), (3840, "light")]
)
def test_axe_finds_nothing_and_nothing_is_too_wide(
    browser: Browser, address: tuple[str, str], path: str, width: int,
    colours: Literal["dark", "light"],
) -> None:  # fmt: skip
    base, clip = address
    with browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=colours
    ) as context:
        page = context.new_page()
        page.goto(base + path.format(clip=clip))
        page.wait_for_load_state("networkidle")
        assert faults_for_people(page) == []
        assert page.evaluate(_TOO_WIDE) == []
