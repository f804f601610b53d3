"""The report of a collection: figures from `db.reports.collection`, examples, one page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from sqlalchemy import Engine

from db.catalog.sites import recorded_by_site
from db.errors import DatabaseUserError
from db.query.find import find_clips
from db.query.question import Question, file_conditions
from db.reports import clip as reports
from db.reports import collection as overview
from db.reports import model_coverage as queries
from db.reports.collection import NodeHours
from db.reports.health import health_report
from flows.pages.examples import Exhibit, exhibit
from flows.pages.render import render
from flows.pages.site_pictures import site_pictures
from flows.pages.timeline import timeline

EXAMPLES_EACH = 3
N_TOP_CLASSES = 25
N_WORST = 20
"""Recordings with something wrong that are listed."""
MOST_EXAMPLE_BYTES = 5_000_000
_MOST_REASONS = 20
# At most this many times the wanted number of classes are tried, to find different examples.
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Example:
    """One of the best clips of a class."""

    name: str
    score: float
    file: str
    exhibit: Exhibit


def report_page(
    engine: Engine, asked: Question, *, title: str, n_example_classes: int, now: datetime
) -> bytes:
    """The page of what was recorded at the sites, or near the place, that are asked about.

    Its size depends on the ontology and on the examples, not on the clips.
    """
    min_score = asked.min_score
    heard = overview.node_hours(engine, min_score, asked)
    classes = [node for node in heard if node.is_class]
    edges = overview.ontology_edges(engine)
    tree = ontology_tree(heard, edges)
    branches = [(node["m"], node["n"], node["b"]) for node in tree]
    days = overview.recorded_days(engine, asked)
    sites = recorded_by_site(engine, *file_conditions(asked))
    by_branch = overview.branch_days(engine, [mid for mid, _, _ in branches], min_score, asked)
    return render(
        "report",
        {
            "title": title,
            "now": now.astimezone(UTC),
            "min_score": min_score,
            "only": _only(asked),
            "summary": reports.corpus_summary(engine, asked),
            "models": [model for model in queries.models_known(engine) if model.n_current],
            "n_classes_heard": len(classes),
            "tree": tree,
            "top": classes[:N_TOP_CLASSES],
            "most_hours": max([1e-9, *(node.hours for node in classes)]),
            "timeline": timeline(days, branches, by_branch),
            "what_time": overview.WHAT_TIME,
            "sites": sites,
            "pictures": site_pictures(engine, sites),
            "listen": list(_examples(engine, classes, asked, n_example_classes)),
            "health": health_report(engine, asked, n_worst=N_WORST),
            "failures": overview.failure_reasons(engine, asked=asked)[:_MOST_REASONS],
        },
        shared=("collection",),
    )


def ontology_tree(heard: list[NodeHours], edges: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The heard nodes, nested, most hours first; a node with two parents is there twice.

    Keys are short because the page carries them: n(ame), m(id), h(ours), c(lips), b(ranch: the
    number of the root among all), k(ids).
    """
    by_mid = {node.mid: node for node in heard}
    children: dict[str, list[str]] = {}
    for parent, child in edges:
        children.setdefault(parent, []).append(child)
    below = {child for _, child in edges}
    roots = [mid for mid in dict.fromkeys(parent for parent, _ in edges) if mid not in below]

    def nested(mid: str, branch: int) -> dict[str, Any]:
        node = by_mid[mid]
        kids = [nested(child, branch) for child in children.get(mid, []) if child in by_mid]
        return {
            "n": node.name, "m": mid, "h": round(node.hours, 8), "c": node.n_clips, "b": branch,
            "k": sorted(kids, key=lambda kid: -kid["h"]),
        }  # fmt: skip

    found = [nested(mid, branch) for branch, mid in enumerate(roots) if mid in by_mid]
    return sorted(found, key=lambda node: -node["h"])


def _only(asked: Question) -> str:
    """Which recordings the page is about, if not about all."""
    at = f"at {' or '.join(asked.sites)}" if asked.sites else ""
    if asked.near is None:
        return at
    latitude, longitude, km = asked.near
    return f"{at} within {km:g} km of {latitude:g}, {longitude:g}".strip()


def _examples(
    engine: Engine, classes: list[NodeHours], asked: Question, n_wanted: int
) -> Iterator[tuple[str, list[Example]]]:
    """Classes heard longest, with their best clips; a best clip is shown for one class only.

    Ends when the sounds on the page have `MOST_EXAMPLE_BYTES`.
    """
    n_bytes, n_given = 0, 0
    shown: set[tuple[str, ...]] = set()
    for node in classes[: n_wanted * _TRIES]:
        if n_given == n_wanted or n_bytes > MOST_EXAMPLE_BYTES:
            return
        try:
            best = replace(asked, under=(node.mid,), limit=EXAMPLES_EACH)
            hits = find_clips(engine, best)
        except DatabaseUserError:
            continue  # the least score is below what is stored for this model
        clips = tuple(hit.clip for hit in hits)
        if not hits or clips[:1] in shown:
            continue
        shown.add(clips[:1])
        examples = []
        for hit in hits:
            piece = exhibit(engine, hit.clip, hit.peak_s, hit.window_s, hit.duration_s)
            n_bytes += piece.n_bytes
            file = PurePath(piece.path_text).name or hit.clip[:12]
            examples.append(Example(hit.name, hit.score, file, piece))
        n_given += 1
        yield node.name, examples
