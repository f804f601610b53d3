"""Terminals of 40 columns, and pages of 420 pixels: words stay whole, paths keep their end."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser
from rich.cells import cell_len
from sqlalchemy import update

from audioset_core.ontology.graph import load_default
from db.engine import writing
from db.schema.tables import sources
from flows.table_layout import column_widths, record_lines, shortened
from tests.flows.build import REPOSITORY
from tests.flows.collection import make_collection
from tests.flows.looking import INDEX, Collection
from tests.flows.terminals import in_terminal

NAME = "20240518_043000.flac"
COLUMNS = 40
_WORD = st.text("abcdefgh", min_size=1, max_size=16)
_PHRASE = st.lists(_WORD, max_size=4).map(" ".join)
_NUMBER = st.integers(0, 10**9).map(lambda value: f"{value:,}")
_PATH = st.lists(_WORD, min_size=1, max_size=9).map(lambda parts: f"/{'/'.join(parts)}.wav")
_ROWS = st.lists(st.tuples(_NUMBER, _PHRASE, _PATH), min_size=1, max_size=4)
HEADINGS = (">score", "class", "file")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_collection(tmp_path_factory.mktemp("narrow") / "home", (f"site-3/{NAME}", "b.wav"))
    with writing(made.engine) as conn:
        failed = {"status": "failed", "reason": "not audio", "reason_detail": "this is text"}
        conn.execute(update(sources).where(sources.c.path_text == "/audio/b.wav").values(failed))
    made.engine.dispose()
    return made.home


def _shown(home: Path, *arguments: str) -> list[str]:
    asked = () if "--help" in arguments else ("--home", str(home))
    line = [sys.executable, "-m", "flows.cli.program", *arguments, *asked]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": str(COLUMNS)}
    with in_terminal(line, environment, REPOSITORY, f"narrow {arguments}") as terminal:
        terminal.wait(30)
        said = terminal.said
    return [line.rstrip() for line in said.replace("\r", "").split("\n")]


@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        (("query", "--under", "Animal", "--min-score", "0.1"), [NAME, "Meow"]),
        (("show", f"/audio/site-3/{NAME}"), ["Siren", "/m/03kmc9"]),
        (("hours", "--by", "class", "--under", "Vehicle"), ["minutes"]),
        (("failures",), ["b.wav", "not audio", "bytes"]),
        (("rank", "--under", "Animal"), [NAME]),
        (("curve", "--help"), ["MID"]),
        (("export", "--help"), ["audioset-strong", "per recording, a"]),
        (("thresholds", "list"), ["no sets yet"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_nothing_is_wider_than_the_terminal(
    home: Path, arguments: tuple[str, ...], whole: list[str]
) -> None:
    lines = _shown(home, *arguments)
    # What cannot be broken: the digest of a clip, and how a program is called.
    wide = [line for line in lines if cell_len(line) > COLUMNS and " " in line.strip()]
    assert [line for line in wide if not re.match(r"clip [0-9a-f]{64}|Usage:", line)] == []
    text = " ".join(" ".join(lines).split())
    assert [word for word in whole if word not in text] == []


@given(_ROWS, st.integers(30, 120))
def test_columns_fit_and_numbers_and_words_are_whole(
    rows: list[tuple[str, ...]], width: int
) -> None:
    fit = column_widths(HEADINGS, rows, width)
    if fit is None:
        lines = list(record_lines(HEADINGS, rows, width))
        assert max(map(cell_len, lines)) <= width
        assert len(lines) >= len(HEADINGS) * len(rows) + len(rows) - 1
        text = " ".join(lines)
        assert all(word in text for row in rows for word in (row[0], *row[1].split()))
        return
    widths, gap = fit
    assert sum(widths) + gap * (len(widths) - 1) + 2 <= width
    assert widths[0] >= max(len(row[0]) for row in rows)
    assert widths[1] >= max((len(word) for row in rows for word in row[1].split()), default=0)


@given(_PATH, st.integers(2, 60))
def test_a_path_keeps_its_end(path: str, width: int) -> None:
    short = shortened(path, width)
    assert cell_len(short) <= width
    assert short == path or (short[0] == "…" and path.endswith(short[1:]) and len(short) == width)


def test_a_table_that_fits_is_as_wide_as_its_cells() -> None:
    rows = [("1.00", "Insect", "a.wav"), ("0.5", "Wild animals", "b/c.wav")]
    assert column_widths(HEADINGS, rows, 80) == ([5, 12, 7], 3)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = Collection(tmp_path)
    classes = ("Siren", "Onomatopoeia", "Heart sounds, heartbeat", "Civil defense siren", "Speech")
    mids = [load_default().find(name).mid for name in classes]
    heard = {mid: (20, 23, 0.9) for mid in mids if mid in INDEX}
    assert len(heard) >= 4
    collection.add(tmp_path / NAME, 20.0, heard)
    yield collection
    collection.engine.dispose()


# The texts of which a word stands on more than one line.
_BROKEN = """selector => {
  const broken = [];
  for (const element of document.querySelectorAll(selector)) {
    const text = element.firstChild;
    for (const word of (text ? text.data : "").matchAll(/\\\\S+/g)) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(box => box.top)).size > 1)
        broken.push(element.textContent);
    }
  }
  return broken;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["report", "review"])
def test_a_page_on_a_telephone(
    made: Collection, audioset: Callable[..., Any], browser: Browser, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "page.html"
    under = ("--under", "Siren") if what == "review" else ()
    assert audioset(what, "-o", out, *under, "--home", tmp_path).code == 0
    with browser.new_context(viewport={"width": 420, "height": 900}) as context:
        page = context.new_page()
        page.goto(out.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        if what == "report":
            assert page.locator(".node span").count() > 3
            names = page.evaluate(_BROKEN, ".node > span, td.name, h2, h3")
            assert names == []
            assert page.get_by_text(NAME).first.is_visible()
            ends = page.locator(".node small:last-child").evaluate_all(
                "all => all.filter(one => one.offsetParent)"
                ".map(one => Math.round(one.getBoundingClientRect().right))"
            )
            assert max(ends) - min(ends) <= 1
