"""How long a class is heard, asked in every way that there is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from audioset_core.features.log_mel import FrontendConfig
from audioset_core.models.registry import BUNDLES, ModelBundle
from db.engine import reading, writing
from db.query.hours import hours_heard
from db.query.question import Question
from db.reports.collection import node_hours
from db.reports.export_rows import labelled
from db.reports.model_comparison import compare
from db.reports.score_curves import score_curves
from flows.analysis.dataframes import Labels
from tests.answers.rows import (
    CLASSES,
    DOG,
    GROWLING,
    HISS,
    MUSIC,
    ROOTS,
    Heard,
    forget_labels,
    store_clip,
    store_labelling,
    store_model,
    store_ontology,
    store_parameters,
    store_source,
)

MILLISECOND_S = 1e-3
LEAVES = (GROWLING, HISS, MUSIC)

Seconds = dict[str, float]


@dataclass(frozen=True)
class Labelled:
    """A model under a hop and a framing, and what it heard in each clip."""

    bundle: ModelBundle
    config: FrontendConfig
    heard: tuple[tuple[Heard, ...], ...]


@dataclass(frozen=True)
class Corpus:
    n_samples: tuple[int, ...]
    rates_hz: tuple[int, ...]
    by: tuple[Labelled, Labelled]


@st.composite
def _framed(draw: st.DrawFn) -> tuple[ModelBundle, FrontendConfig]:
    bundle = draw(st.sampled_from(list(BUNDLES.values())))
    framing = draw(st.sampled_from(bundle.framings))
    front_end = bundle.frontend
    if framing == "seed" or front_end.steps_per_patch > 1:  # whose hop is that of its rows
        return bundle, bundle.framed(patch_hop_s=None, framing=framing)
    frames = draw(st.integers(1, front_end.patch_span_frames))
    hop_s = frames * front_end.frame_hop_samples / front_end.sample_rate_hz
    return bundle, bundle.framed(patch_hop_s=hop_s, framing=framing)


@st.composite
def _heard(draw: st.DrawFn, n_patches: int) -> tuple[Heard, ...]:
    """Runs of patches of each class, as pooling gives them: a silent patch between any two."""
    found = []
    for mid in CLASSES:
        at = 0
        steps = st.tuples(st.integers(0, 120), st.integers(1, 200), st.sampled_from([0.2, 0.7]))
        for gap, length, peak in draw(st.lists(steps, max_size=4)):
            first, last = at + gap, min(at + gap + length, n_patches) - 1
            if first >= n_patches:
                break
            found.append(Heard(mid, first, last, peak))
            at = last + 2
    return tuple(found)


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    n_clips = draw(st.integers(1, 3))
    rates = tuple(draw(st.sampled_from([16_000, 22_050, 44_100])) for _ in range(n_clips))
    # From less than a patch to a minute, to the sample.
    n_samples = tuple(draw(st.integers(rate // 10, 60 * rate)) for rate in rates)
    both = []
    for _ in range(2):
        bundle, config = draw(_framed())
        own_hz = config.sample_rate_hz
        lengths = [n * own_hz // rate for n, rate in zip(n_samples, rates, strict=True)]
        heard = tuple(draw(_heard(config.n_steps(n))) for n in lengths)
        both.append(Labelled(bundle, config, heard))
    return Corpus(n_samples, rates, (both[0], both[1]))


def store(engine: Engine, corpus: Corpus) -> None:
    """Both models on every clip; "b" speaks."""
    forget_labels(engine)
    variants = [
        (
            store_model(engine, name, "1", by.config.step_window_s),
            store_parameters(engine, by.config.step_hop_s, by.bundle.name + name),
        )
        for name, by in zip("ab", corpus.by, strict=True)
    ]
    with writing(engine) as conn:
        for n, (n_samples, rate) in enumerate(zip(corpus.n_samples, corpus.rates_hz, strict=True)):
            clip_id = store_clip(conn, str(n), n_samples, rate)
            store_source(conn, f"/audio/{n}.wav", clip_id)
            for hours, (variant, by) in enumerate(zip(variants, corpus.by, strict=True)):
                store_labelling(conn, clip_id, variant, by.heard[n], hours)


def true_seconds(corpus: Corpus, by: Labelled, least: float) -> Seconds:
    """The union of a class's patches in each clip, in fractions."""
    frame = Fraction(by.config.frame_hop_samples, by.config.sample_rate_hz)
    of_steps = frame / by.config.steps_per_patch
    hop, window = by.config.patch_hop_frames * of_steps, by.config.patch_span_frames * of_steps
    seconds: dict[str, Fraction] = defaultdict(Fraction)
    for n, heard in enumerate(by.heard):
        duration = Fraction(corpus.n_samples[n], corpus.rates_hz[n])
        for mid in CLASSES:
            reached = Fraction(0)
            for one in heard:
                if one.mid == mid and one.peak >= least:
                    for patch in range(one.first, one.last + 1):
                        end = min(duration, patch * hop + window)
                        seconds[mid] += max(Fraction(0), end - max(reached, patch * hop))
                        reached = max(reached, end)
    return {mid: float(found) for mid, found in seconds.items() if found}


def in_python(spans: dict[tuple[str, str], list[tuple[float, float]]]) -> Seconds:
    """The union of spans by class and clip, summed by class."""
    seconds: Seconds = defaultdict(float)
    for (mid, _), its in spans.items():
        reached = 0.0
        for start_s, end_s in sorted(its):
            seconds[mid] += max(0.0, end_s - max(reached, start_s))
            reached = max(reached, end_s)
    return {mid: found for mid, found in seconds.items() if found}


def by_hours(engine: Engine, least: float, model: str | None = None) -> Seconds:
    asked = Question(under=ROOTS, min_score=least, model=model, with_ambiguous=True)
    rows = hours_heard(engine, asked, "class")
    return {str(row.mid): row.hours * 3600 for row in rows if row.hours}


def by_view(engine: Engine) -> Seconds:
    with reading(engine) as conn:
        rows = conn.execute(text("SELECT mid, hours FROM class_hours"))
        return {row.mid: row.hours * 3600 for row in rows}


def by_curve(engine: Engine, least: float) -> Seconds:
    curves = {c.mid: c for mid in CLASSES for c in score_curves(engine, mid, least)[1:]}
    return {mid: c.hours * 3600 for mid, c in curves.items() if c.hours}


def by_diff(engine: Engine) -> tuple[Seconds, Seconds]:
    changes = compare(engine, "a", "b").changes
    sides = [{c.mid: getattr(c, f"minutes_{side}") * 60 for c in changes} for side in "ab"]
    return tuple({mid: s for mid, s in side.items() if s} for side in sides)  # type: ignore[return-value]


def by_frame(engine: Engine, least: float, model: str | None = None) -> Seconds:
    frame = Labels(Path(), engine).hours(
        "class", ROOTS, min_score=least, model=model, with_ambiguous=True
    )
    return {mid: h * 3600 for mid, h in zip(frame["mid"], frame["hours"], strict=True) if h}


def by_export(engine: Engine, least: float, model: str | None = None) -> Seconds:
    spans: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with reading(engine) as conn:
        for recording, events in labelled(conn, Question(min_score=least, model=model)):
            for one in events:
                spans[one.mid, recording.clip].append((one.start_s, one.end_s))
    return in_python(spans)


def by_report(engine: Engine, least: float) -> Seconds:
    """Of classes without classes below them; what stands above others includes those."""
    found = {node.mid: node.hours * 3600 for node in node_hours(engine, least)}
    return {mid: seconds for mid, seconds in found.items() if mid in LEAVES}


@pytest.mark.slow
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(corpus=corpora(), least=st.sampled_from([0.0, 0.5]))
def test_every_way_to_ask_gives_the_same_minutes(
    fresh_db: Engine, corpus: Corpus, least: float
) -> None:
    store_ontology(fresh_db)
    store(fresh_db, corpus)
    a, b = (true_seconds(corpus, by, least) for by in corpus.by)
    exactly = {
        name: pytest.approx(true, abs=MILLISECOND_S) for name, true in {"a": a, "b": b}.items()
    }
    for name in ("a", "b"):
        assert by_hours(fresh_db, least, name) == exactly[name]
        assert by_frame(fresh_db, least, name) == exactly[name]
        assert by_export(fresh_db, least, name) == exactly[name]
    assert by_hours(fresh_db, least) == exactly["b"]
    assert by_curve(fresh_db, least) == exactly["b"]
    leaves = {mid: seconds for mid, seconds in b.items() if mid in LEAVES}
    assert by_report(fresh_db, least) == pytest.approx(leaves, abs=MILLISECOND_S)
    if least == 0.0:
        assert by_view(fresh_db) == exactly["b"]
        assert by_diff(fresh_db) == (exactly["a"], exactly["b"])


def test_intervals_that_overlap_count_once(fresh_db: Engine) -> None:
    """A hop of 0.1 s: patches 0, 2 and 4 cover 1.36 s together, not 2.88."""
    store_ontology(fresh_db)
    bundle = BUNDLES["yamnet"]
    by = Labelled(
        bundle,
        bundle.framed(patch_hop_s=0.1, framing="reference"),
        (tuple(Heard(DOG, n, n, 0.7) for n in (0, 2, 4)),),
    )
    corpus = Corpus((16_000,), (16_000,), (by, by))
    store(fresh_db, corpus)
    # The clip ends after 1 s.
    assert true_seconds(corpus, by, 0.0) == {DOG: 1.0}
    for found in (by_view(fresh_db), by_curve(fresh_db, 0.0), *by_diff(fresh_db)):
        assert found == pytest.approx({DOG: 1.0})
