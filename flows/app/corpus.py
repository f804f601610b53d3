"""The figures of the whole collection, live: what `audioset report` writes, and the runs.

The page comes at once; each part is counted when the page asks for it, and kept for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from audioset_core.errors import UserError
from db.catalog.sites import recorded_by_site, stored_sites
from db.ledger.runs import RunInList, list_runs, progress_mark
from db.records import RunStatus
from db.reports import collection as overview
from db.reports.clip import corpus_summary
from db.reports.health import health_report
from db.reports.model_coverage import models_known, score_floor
from db.reports.recorded_hours import recorded_hours
from flows.addresses import prefect_address, run_address
from flows.app.kept import StillCountingError
from flows.app.served import Home, Served
from flows.pages.heat_map import heat_map
from flows.pages.report_page import N_TOP_CLASSES, N_WORST, ontology_tree
from flows.pages.site_pictures import site_pictures
from flows.pages.timeline import timeline
from flows.terminal import clock, one_line

N_FILES, N_RUNS = 50, 20
PARTS = (("figures", ""), ("heard", "What is heard"), ("time", "Over time"), ("sites", "Sites"),
         ("health", "Health"), ("failures", "Failures"), ("runs", "Runs"))  # fmt: skip
"""(name, heading) of the parts, in the order in which they are counted."""

Score = Annotated[float, Query(ge=0, le=1)]

router = APIRouter(prefix="/corpus")


@router.get("")
def corpus(home: Home, min_score: Score = 0.5) -> HTMLResponse:
    """The page, without any figure yet."""
    return home.page("corpus", {"title": "Collection", "min_score": min_score, "parts": PARTS})


@router.get("/figures")
def figures(home: Home) -> HTMLResponse:
    """Clips, hours and files, and which models labelled them."""
    values = _kept(home, "figures", lambda: {
        "summary": corpus_summary(home.engine),
        "models": [model for model in models_known(home.engine) if model.n_current],
        "now": datetime.now(UTC),
    })  # fmt: skip
    return _part(home, "figures", values)


@router.get("/heard")
def heard(home: Home, min_score: Score = 0.5) -> HTMLResponse:
    """Hours by branch, and the classes that are heard longest."""
    floor = score_floor(home.engine)
    if min_score < floor:
        raise UserError(f"scores below {floor:g} are not stored: ask for at least {floor:g}")
    nodes, tree = _heard(home, min_score)
    classes = [node for node in nodes if node.is_class]
    return _part(
        home, "heard",
        {"tree": tree, "n_classes": len(classes), "top": classes[:N_TOP_CLASSES],
         "most_hours": max([1e-9, *(node.hours for node in classes)]),
         "search_of": _search_of(home, min_score)},
    )  # fmt: skip


@router.get("/time")
def time(home: Home, min_score: Score = 0.5) -> HTMLResponse:
    """Hours recorded by day, the share of branches in them, and days by hours of the day."""

    def count() -> dict[str, Any]:
        branches = [(node["m"], node["n"], node["b"]) for node in _heard(home, min_score)[1]]
        days = overview.recorded_days(home.engine)
        mids = [mid for mid, _, _ in branches]
        by_branch = overview.branch_days(home.engine, mids, min_score)
        return {
            "timeline": timeline(days, branches, by_branch),
            "heat": heat_map(recorded_hours(home.engine)),
            "what_time": overview.WHAT_TIME,
        }

    return _part(home, "time", _kept(home, f"time {min_score}", count))


@router.get("/sites")
def sites(home: Home) -> HTMLResponse:
    """What was recorded at each site."""
    stated = hash(tuple(stored_sites(home.engine)))  # runs say nothing of these

    def count() -> dict[str, Any]:
        found = recorded_by_site(home.engine)
        return {"sites": found, "pictures": site_pictures(home.engine, found)}

    return _part(home, "sites", _kept(home, f"sites {stated}", count))


@router.get("/health")
def health(home: Home) -> HTMLResponse:
    """What is wrong with recordings: how many, the worst, and by recorder."""
    found = _kept(home, "health", lambda: health_report(home.engine, n_worst=N_WORST))
    return _part(home, "health", {"found": found, "clip_of": "/clips/{}".format})


@router.get("/failures")
def failures(home: Home) -> HTMLResponse:
    """Why files failed, and how many for each reason."""
    return _part(home, "failures", {"reasons": overview.failure_reasons(home.engine, 0)})


@router.get("/failures/files")
def failed_files(
    home: Home, reason: Annotated[str, Query(max_length=500)],
    after: Annotated[int, Query(ge=-1, le=2**62)] = -1,
) -> HTMLResponse:  # fmt: skip
    """The next files that failed for a reason."""
    files = overview.failed_files(home.engine, reason, after, N_FILES + 1)
    more = files[N_FILES - 1].source_id if len(files) > N_FILES else None
    return _part(home, "files", {"files": files[:N_FILES], "reason": reason, "more": more})


@router.get("/runs")
def runs(home: Home, skip: Annotated[int, Query(ge=0, le=10**9)] = 0) -> HTMLResponse:
    """The next runs, the newest first."""
    found = list_runs(home.engine, skip, N_RUNS + 1)
    prefect = prefect_address(home.home)
    shown = [_shown_run(each, prefect) for each in found[:N_RUNS]]
    more = skip + N_RUNS if len(found) > N_RUNS else None
    return _part(home, "runs", {"runs": shown, "more": more, "skip": skip})


def _heard(home: Served, min_score: float) -> Any:
    """(nodes with hours, the tree of them); seconds of work where there are a million clips."""

    def count() -> Any:
        nodes = overview.node_hours(home.engine, min_score)
        return nodes, ontology_tree(nodes, overview.ontology_edges(home.engine))

    return _kept(home, f"heard {min_score}", count)


def _kept(home: Served, key: str, count: Callable[[], Any]) -> Any:
    try:
        return home.kept.answer(key, progress_mark(home.engine), count)
    except StillCountingError:
        raise HTTPException(503, "still counting…") from None


def _part(home: Served, name: str, values: dict[str, Any]) -> HTMLResponse:
    return home.page(f"corpus_{name}", {"title": "", **values})


def _search_of(home: Served, min_score: float) -> Callable[[str, str], str]:
    """The address of a search for a node: by its name, or where several have that by its MID."""
    n_named = Counter(node.name.casefold() for node in home.ontology().nodes.values())

    def address(mid: str, name: str) -> str:
        under = name if n_named[name.casefold()] == 1 else mid
        return f"/?{urlencode({'under': under, 'min_score': f'{min_score:g}'})}"

    return address


def _shown_run(each: RunInList, prefect: str | None) -> dict[str, Any]:
    run = each.run
    last = each.ended_at or (run.seen_at if run.status is RunStatus.RUNNING else None)
    took_s = (last - run.started_at).total_seconds() if last else None
    return {
        "name": one_line(each.name or str(each.parameters.get("flow") or run.run_id[:8])),
        "status": run.status.value, "started_at": run.started_at, "counts": run.counts,
        "took": clock(took_s) if took_s is not None else "",
        "speed": run.counts.audio_s / took_s if took_s else None,
        "model": str(each.parameters.get("model") or ""), "host": run.host,
        "n_parts": each.n_parts, "address": run_address(prefect, run.flow_run_id),
    }  # fmt: skip
