"""Names are somebody else's input: on Prefect's pages they are text, and nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from audioset_core.errors import Reason
from flows.run_report.drift import Share
from flows.run_report.prefect_artifacts import Monitor
from flows.run_report.safe_markdown import as_cell, as_code, cleaned
from flows.run_report.summary import Summary
from flows.terminal import one_line

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = st.text(
    st.sampled_from(list("\\`*_[](){}<>#+-.!|~&;:/@='\" \r\n\t\0\x1b1aw\u202e\udcff")), max_size=40
)
HOSTILE = (
    '<img src=x onerror="alert(1)">', "[click](javascript:alert(1))", "x\\|[click](http:evil)",
    "a\r\r# head\r[click](http:evil)\r", "`[click](http:evil)", "![pixel](http:evil)",
    "<http:evil>", "&lt;b&gt;", "**bold** ~~gone~~ _em_", "1. list", "- list", "    code",
    "[a]: http:evil",
    "a | b", "===", "\\", "\u202egnp.wav",
)  # fmt: skip


def _text(page: str) -> str:
    """What a person reads, one space for any number: HTML shows no more."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


def _is_shown(text: str, markdown: str, tags: set[str]) -> None:
    page = READER.render(markdown)
    assert set(re.findall(r"<(\w+)", page)) <= tags, page
    assert _text(page) == " ".join(one_line(text).split())


@given(MARKUP | st.text(max_size=40))
@pytest.mark.parametrize("shown", [cleaned, as_code, as_cell])
def test_a_line_shows_as_it_is(shown: Callable[[str], str], text: str) -> None:
    _is_shown(text, shown(text), {"p", "code"})


@pytest.mark.parametrize("shown", [cleaned, as_code, as_cell])
@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_hostile_shows_as_it_is(shown: Callable[[str], str], text: str) -> None:
    _is_shown(text, shown(text), {"p", "code"})


@given(MARKUP)
@example("x\\|[click](http:evil)")
def test_a_row_keeps_its_cells(text: str) -> None:
    row = f"| {as_code(text)} | {cleaned(text)} | end |"
    page = READER.render(f"| a | b | c |\n|---|---|---|\n{row}")
    cells = [_text(cell) for cell in re.findall(r"<td>(.*?)</td>", page, re.DOTALL)]
    shown = " ".join(one_line(text).split())
    assert cells == [shown, shown, "end"]


@pytest.mark.parametrize(
    "text", ["http://evil.org", "HTTPS://evil.org", "www.evil.org", "a@evil.org"]
)
def test_addresses_are_no_links(text: str) -> None:
    """GitHub's Markdown links what merely looks like an address; only code is safe from it."""
    for shown in (cleaned(text), as_cell(text)):
        assert not re.search(r"(?i)(?<!\\)(://|@)|www\.", shown)
        assert _text(READER.render(shown)) == text


@pytest.mark.parametrize(
    "text", ["/rec/a_b [1] (x), y.wav", "the header promises 20.00 s, 6.24 s are there", "/ü.wav"]
)
def test_usual_names_are_left_as_they_are(text: str) -> None:
    assert as_cell(text) == text
    assert as_code(text) == f"`{text}`"


@given(MARKUP)
@example(HOSTILE[0])
def test_a_whole_page_holds_nothing_of_a_names_making(text: str) -> None:
    summary = Summary(n_found=3, n_labelled=2, labels={text: 1}, problems=[f"/rec: {text}"])
    summary.drift = (Share(text, 0.1, 0.2),)
    summary.failures[Reason.DAMAGED] = 1
    summary.shown_failures = [(text, Reason.DAMAGED, text)]
    summary.passed_over.by_suffix[text] = 2
    page = READER.render(summary.as_markdown(f"Labelled with yamnet {text}"))
    assert set(re.findall(r"<(\w+)", page)) <= {
        "h1", "h2", "p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip


def test_a_table_of_failures_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[dict[str, str]] = []
    monkeypatch.setattr(
        "flows.run_report.prefect_artifacts.create_table_artifact",
        lambda rows, **_: left.extend(rows),
    )
    monkeypatch.setattr(
        "flows.run_report.prefect_artifacts.create_markdown_artifact", lambda *_, **__: None
    )
    summary = Summary()
    for text in HOSTILE:
        summary.failures["not audio"] += 1
        summary.shown_failures.append((text, "not audio", text))
    Monitor("label-audio", "page", Path("home")).end(summary, "1", None, is_whole=False)
    assert len(left) == len(HOSTILE)
    for row, text in zip(left, HOSTILE, strict=True):
        _is_shown(text, row["file"], {"p"})
        _is_shown(text, row["detail"], {"p"})
