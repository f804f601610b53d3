"""`audioset plot`, `curve`, `report`, `review`: what they draw, and that pages are safe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from audioset_core.ontology.graph import load_default
from db.judging.review_sample import ReviewItem, review_sample, score_bin
from db.query.question import Question
from db.reports import collection as overview
from flows.pages.render import shown_hours
from tests.flows.conftest import Said
from tests.flows.looking import ANIMAL, SIREN, SPEECH, Collection

Command = Callable[..., Said]
HOSTILE = "<script>alert(1)<x>\"'&$x_{\u202egpj.wav"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    collection = Collection(tmp_path)
    yield collection
    collection.engine.dispose()


def _bars(figure: object) -> list[tuple[float, float]]:
    from matplotlib.collections import PolyCollection

    axes = figure.axes[2]  # type: ignore[attr-defined]
    spans = []
    for bars in axes.collections:
        assert isinstance(bars, PolyCollection)
        for path in bars.get_paths():
            x = path.vertices[:, 0]
            spans.append((round(float(x.min()), 6), round(float(x.max()), 6)))
    return sorted(spans)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The figures that the command draws."""
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    from flows.figures import clip_figure

    figures: list[object] = []
    real = clip_figure.image_bytes

    def kept(figure: object, kind: str) -> bytes:
        figures.append(figure)
        return real(figure, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(clip_figure, "image_bytes", kept)
    return figures


class TestPlot:
    def test_bars_and_scores_are_at_the_patches_times(
        self, made: Collection, audioset: Command, drawn: list[object], tmp_path: Path
    ) -> None:
        clip = made.add(tmp_path / "a.wav", 9.6, {SIREN: (5, 9, 0.9), SPEECH: (0, 0, 0.4)})
        out = tmp_path / "a.png"
        said = audioset("plot", clip[:8], "-o", out, "--home", tmp_path)
        assert (said.code, said.out, said.err) == (0, f"{out}\n", "")
        (figure,) = drawn
        # Patch k covers 0.48 k to 0.48 k + 0.96.
        assert _bars(figure) == [(0.0, 0.96), (2.4, 5.28)]
        wave, mel, classes, *_ = figure.axes
        for axes in (wave, mel, classes):
            assert axes.get_xlim() == (0, 9.6)
        assert [t.get_text() for t in classes.get_yticklabels()] == ["Siren", "Speech"]
        siren, _ = classes.get_images()
        assert siren.get_extent()[:2] == [0, 9.6]
        strong = np.flatnonzero(siren.get_array()[0] > 0.5) * 9.6 / siren.get_array().shape[1]
        assert strong.min() == pytest.approx(2.4, abs=0.011)
        assert strong.max() == pytest.approx(5.28, abs=0.022)
        assert mel.get_images()[0].get_extent()[:2] == pytest.approx([0, 9.6])
        assert wave.get_ylim()[1] == pytest.approx(0.3 * 1.08, rel=0.01)
        width = int.from_bytes(out.read_bytes()[16:20])
        assert width == 1200

    def test_a_recording_that_is_gone_leaves_its_scores(
        self, made: Collection, audioset: Command, drawn: list[object], tmp_path: Path
    ) -> None:
        made.add(tmp_path / HOSTILE, 3.0, {SIREN: (0, 3, 0.9)})
        (tmp_path / HOSTILE).unlink()
        said = audioset("plot", tmp_path / HOSTILE, "-o", tmp_path / "a.svg", "--home", tmp_path)
        assert said.code == 0
        assert "without the sound: " in said.err
        assert "vanished" in said.err
        assert _bars(drawn[0]) == [(0.0, 2.4)]

    @pytest.mark.parametrize("command", [("plot", "abcdef"), ("curve", "--under", "Siren")])
    def test_an_ending_that_is_no_picture(
        self, audioset: Command, command: tuple[str, ...]
    ) -> None:
        said = audioset(*command, "-o", "x.jpeg")
        assert said.code == 2
        assert "must end in .png, .svg, .pdf" in said.err

    def test_without_matplotlib(
        self, made: Collection, audioset: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        clip = made.add(tmp_path / "a.wav", 2.0, {SIREN: (0, 0, 0.9)})
        monkeypatch.setitem(__import__("sys").modules, "flows.figures.clip_figure", None)
        said = audioset("plot", clip, "--home", tmp_path)
        assert said.code == 2
        assert said.err.strip().endswith("pip install 'audioset-flows[plot]'")

    @pytest.mark.parametrize(
        ("seconds", "step", "text"),
        [(0.25, 0.05, "0.25 s"), (75, 5, "1:15"), (36_000, 3600, "10:00:00")],
    )
    def test_times(self, seconds: float, step: float, text: str) -> None:
        pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
        from flows.figures.clip_figure import time_label

        assert time_label(seconds, step) == text


class TestCurve:
    def test_data(self, made: Collection, audioset: Command, tmp_path: Path) -> None:
        made.add(tmp_path / "a.wav", 4.8, {SIREN: (0, 3, 0.9)})
        made.add(tmp_path / "b.wav", 4.8, {SIREN: (2, 2, 0.3), "/m/07pp_mv": (0, 0, 0.6)})
        said = audioset("curve", "--under", "Alarm", "--json", "--home", tmp_path)
        whole, *classes = json.loads(said.out)
        assert whole["curve"] == [[0.9, 1], [0.6, 1]]
        assert {(c["name"], c["n_clips"], c["n_clips_at_least"]) for c in classes} == {
            ("Siren", 2, 1), ("Alarm", 1, 1)
        }  # fmt: skip
        siren = next(c for c in classes if c["name"] == "Siren")
        assert siren["hours"] == pytest.approx(2.4 / 3600)

    def test_picture(
        self, made: Collection, audioset: Command, drawn: list[object], tmp_path: Path
    ) -> None:
        for n, score in enumerate((0.9, 0.6, 0.2)):
            made.add(tmp_path / f"{n}.wav", 2.0, {SIREN: (0, 0, score)})
        said = audioset("curve", "--under", "Siren", "-o", tmp_path / "c.png", "--home", tmp_path)
        assert said.code == 0
        whole, siren, *_ = drawn[0].axes[0].get_lines()
        assert whole.get_ydata() == pytest.approx([0.9, 0.9, 0.6, 0.2])
        assert siren.get_xdata().tolist() == [0, 1, 2, 3]


class TestOverview:
    def test_hours_below_a_node_are_a_union(self, made: Collection, tmp_path: Path) -> None:
        dog, bark = "/m/0bt9lr", "/m/05tny_"
        made.add(
            tmp_path / "a.wav", 9.6, {dog: (0, 4, 0.9), bark: (3, 8, 0.8), SPEECH: (0, 1, 0.2)}
        )
        found = {n.name: (round(n.hours * 3600, 6), n.n_clips) for n in
                 overview.node_hours(made.engine, 0.5)}  # fmt: skip
        assert found["Dog"] == (4.8, 1)  # 0 to 2.88 and 1.44 to 4.8
        assert found["Bark"] == (3.36, 1)
        assert found["Animal"] == (4.8, 1)
        assert "Speech" not in found

    def test_an_ambiguous_class_counts_for_a_source_in_company(
        self, made: Collection, tmp_path: Path
    ) -> None:
        hiss = load_default().find("Hiss")
        made.add(tmp_path / "a.wav", 2.0, {hiss.mid: (0, 0, 0.9), SIREN: (0, 0, 0.9)})
        names = {n.name for n in overview.node_hours(made.engine, 0.5)}
        assert {"Hiss", "Source-ambiguous sounds", "Siren", "Alarm"} <= names
        assert not {"Cat", "Snake", "Steam", "Animal"} & names
        cat = load_default().find("Meow")
        made.add(tmp_path / "b.wav", 2.0, {hiss.mid: (0, 1, 0.9), cat.mid: (0, 0, 0.6)})
        hours = {n.name: round(n.hours * 3600, 6) for n in overview.node_hours(made.engine, 0.5)}
        assert (hours["Meow"], hours["Cat"], hours["Animal"]) == (0.96, 1.44, 1.44)
        assert not {"Snake", "Steam"} & set(hours)


class TestSample:
    def test_equal_parts_and_the_same_again(self, made: Collection, tmp_path: Path) -> None:
        scores = [0.15] * 6 + [0.35] * 6 + [0.95] * 2
        for n, score in enumerate(scores):
            made.add(tmp_path / f"{n}.wav", 1.0, {SIREN: (0, 0, score)})

        def draw(size: int, seed: int) -> tuple[ReviewItem, ...]:
            asked = Question(under=(SIREN,))
            return review_sample(made.engine, asked, size, per_class=10, seed=seed).items

        first = draw(6, 1)
        # Six clips are enough for three parts: 0.1 to 0.4, 0.7 and 1.
        bins = [score_bin(item.score, 0.1, 3) for item in first]
        assert sorted(bins) == [0, 0, 0, 0, 2, 2]
        assert draw(6, 1) == first
        assert draw(6, 2) != first
        assert len(draw(100, 1)) == 14
        assert {(i.start_s, i.end_s, i.peak_s) for i in first} == {(0.0, 0.96, 0.0)}


PAGES = {"report": (), "review": ("--under", "Siren")}


@pytest.mark.parametrize("command", PAGES)
class TestPages:
    def test_names_are_text_and_nothing_is_loaded(
        self, made: Collection, audioset: Command, tmp_path: Path, command: str
    ) -> None:
        made.add(tmp_path / HOSTILE, 8.0, {SIREN: (0, 3, 0.9)})
        out = tmp_path / "x.html"
        said = audioset(command, *PAGES[command], "-o", out, "--home", tmp_path)
        assert (said.code, said.out) == (0, f"{out}\n")
        page = out.read_text()
        assert "<script>alert" not in page
        assert "\u202e" not in page
        assert "\\u202egpj.wav" in page
        assert page.count("<script") == 2
        assert "data:audio/mpeg;base64," in page
        addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page)
        assert all(address.startswith("data:") for address in addresses)
        urls = set(re.findall(r"https?://[^\s\"'<)]+", page))
        assert urls == {"http://www.w3.org/2000/svg"} if command == "report" else urls == set()
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        assert policy is not None
        assert "default-src &#39;none&#39;" in policy[1]
        assert "unsafe" not in policy[1]

    def test_a_recording_that_is_gone_is_told(
        self, made: Collection, audioset: Command, tmp_path: Path, command: str
    ) -> None:
        made.add(tmp_path / "gone.wav", 8.0, {SIREN: (0, 3, 0.9)})
        (tmp_path / "gone.wav").unlink()
        out = tmp_path / "x.html"
        assert audioset(command, *PAGES[command], "-o", out, "--home", tmp_path).code == 0
        page = out.read_text()
        assert "vanished" in page
        assert "data:audio" not in page

    def test_wrong_ending(self, audioset: Command, tmp_path: Path, command: str) -> None:
        said = audioset(command, *PAGES[command], "-o", tmp_path / "x.pdf")
        assert said.code == 2
        assert "must end in .html" in said.err


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.002, "7 s"), (0.1, "6.0 min"), (0.5, "30 min"), (2.25, "2.2 h"), (1234.5, "1,234 h")],
)
def test_hours_for_people(hours: float, text: str) -> None:
    assert shown_hours(hours) == text


def test_animals_are_not_sirens(made: Collection, audioset: Command, tmp_path: Path) -> None:
    made.add(tmp_path / "a.wav", 2.0, {ANIMAL: (0, 0, 0.9)})
    said = audioset("review", "--under", "Siren", "-o", tmp_path / "x.html", "--home", tmp_path)
    assert said.code == 2
    assert "no clip has 'Siren' at 0.1 or above" in said.err
