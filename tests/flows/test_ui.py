"""Prefect's own pages in a real browser: what a run shows, and the form that starts one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from flows.ingest_new import ingest_new
from flows.options import AlertOptions, EngineOptions, LabelOptions, WatchOptions
from tests.flows.build import REPOSITORY, write_clip
from tests.flows.servers import Server, prefect, running_server, running_worker, wait_until
from tests.flows.slow_labelling import slow_site

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

N_CLIPS = 24  # per run; below 20 there is no drift
N_BAD = 4
DEPLOYMENT = "ingest-new/scheduled"
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
_WITHIN_MS = 30_000
# Prefect ships two sets of pages: those that its links lead to, and the next ones.
UIS = {"v1": "", "v2": "/v2"}
# The next ones ask a statistics service how to count, whatever the server's settings say. They
# are refused here, and work without an answer.
STATISTICS = "sr-client-cfg.amplitude.com"


@dataclass(frozen=True, slots=True)
class Ingested:
    """A server on which the deployment has run twice, the second time with drift and failures."""

    server: Server
    root: Path
    home: Path
    run: str
    artifacts: dict[str, str]
    """Ids by key, of the second run."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A browser's page on one of the two sets of pages."""

    page: Page
    base: str

    def open(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def read(self) -> str:
        return self.page.locator("body").inner_text()

    def shows(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        message = "no chromium on this machine (install Debian's)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def ingested(
    browser: Browser, placeholder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ingested]:
    folder = tmp_path_factory.mktemp("ui")
    root, home = folder / "recordings", folder / "labels"
    settings = {
        "AUDIOSET_HOME": str(home),
        "AUDIOSET_ROOT": str(root),
        "AUDIOSET_WEIGHTS": str(placeholder),
        "PYTHONPATH": f"{slow_site(folder / 'site', shard_s=20, pause_s=0)}:{REPOSITORY}",
    }
    with running_server(folder / "server", **settings) as server:
        server.post("/work_pools/", name="audioset", type="process")
        done = prefect("deploy", "--all", server=server, cwd=REPOSITORY / "deployments")
        assert done.returncode == 0, done.stdout + done.stderr
        # A full hour would start a run that cancels the ones below.
        server.post(f"/deployments/{server.deployment(DEPLOYMENT)['id']}/pause_deployment")
        with running_worker(server, folder / "worker") as worker:
            for day in range(2):
                _record(root / f"day{day}", day)
                run = server.trigger(DEPLOYMENT, watch={"settle_s": 0})
                wait_until(partial(_has_ended, server, run), 200, what=lambda: worker.said)
                assert server.state(run) == "COMPLETED", worker.said
        found = server.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        artifacts = {artifact["key"]: artifact["id"] for artifact in found}
        yield Ingested(server, root, home, run, artifacts)


def _has_ended(server: Server, run: str) -> bool:
    return server.state(run) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def _record(folder: Path, day: int) -> None:
    """Clips, and one file of each kind of damage."""
    for seed in range(day * N_CLIPS, (day + 1) * N_CLIPS):
        write_clip(folder / f"{seed:02d}.flac", seed)
    (folder / "empty.wav").touch()
    (folder / "noise.wav").write_bytes(bytes(range(1, 250)) * 40)
    (folder / "odd|name *with* <i>marks.wav").write_text("no sound")
    write_clip(folder / "cut.wav", 100 + day, 20.0)
    os.truncate(folder / "cut.wav", 100_000)


@pytest.fixture(params=UIS)
def screen(
    ingested: Ingested, browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Screen]:
    """Nothing but the server can be reached; at the end nothing else was needed."""
    base = ingested.server.url.removesuffix("/api")
    foreign: list[str] = []
    errors: list[str] = []

    def guard(route: Route, asked: Request) -> None:
        if asked.url.startswith(base):
            route.continue_()
        else:
            foreign.append(urlsplit(asked.url).hostname or asked.url)
            route.abort()

    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(_WITHIN_MS)
        expect.set_options(timeout=_WITHIN_MS)
        context.route("**/*", guard)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield Screen(page, base + UIS[request.param])
        if folder := os.environ.get("AUDIOSET_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{request.node.name}.png")
        context.unroute_all(behavior="wait")
    assert errors == []
    assert set(foreign) <= ({STATISTICS} if request.param == "v2" else set())


class TestARun:
    @pytest.fixture(autouse=True)
    def opened(self, screen: Screen, ingested: Ingested) -> None:
        screen.open(f"/runs/flow-run/{ingested.run}")

    def test_its_name_says_how_much_there_was_to_do(
        self, screen: Screen, ingested: Ingested
    ) -> None:
        new, found = N_CLIPS + N_BAD, 2 * (N_CLIPS + N_BAD)
        screen.shows(re.compile(rf"^ingest \d{{4}}-.* UTC .*: {new} of {found} files$"))
        screen.shows("Completed")
        screen.shows("15 Task runs")

    def test_a_task_run_per_shard_and_stage(self, screen: Screen) -> None:
        screen.page.get_by_role("tab", name="Task Runs").click()
        for stage in ("featurize", "infer", "persist"):
            for index in (1, 2, 3):
                screen.shows(re.compile(rf"^{stage} shard {index}/3 \(0\.\d+ h\)$"))
        screen.shows("discover files")

    def test_its_artifacts(self, screen: Screen, ingested: Ingested) -> None:
        screen.page.get_by_role("tab", name="Artifacts").click()
        screen.shows(f"{N_CLIPS} of {N_CLIPS + N_BAD} files labelled, {N_BAD} failed")
        screen.shows(f"{N_BAD} files failed")
        for kind in ("progress", "summary", "failures"):
            screen.shows(f"ingest-new-{kind}")


class TestArtifacts:
    def _open(self, screen: Screen, ingested: Ingested, kind: str) -> Page:
        return screen.open(f"/artifacts/artifact/{ingested.artifacts[f'ingest-new-{kind}']}")

    def test_the_summary(self, screen: Screen, ingested: Ingested) -> None:
        page = self._open(screen, ingested, "summary")
        for heading in ("Labelled with yamnet", "New labels", "Drift", "Failures"):
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
        for cell in ("files found", "labelled now", "truncated", "not audio", "empty"):
            expect(page.get_by_role("cell", name=cell, exact=True).first).to_be_visible()
        expect(page.get_by_role("cell", name=re.compile(r"^[+-]\d+\.\d points$"))).to_have_count(5)
        for name in ("cut.wav", "empty.wav", "noise.wav"):
            screen.shows(str(ingested.root / "day1" / name))

    def test_the_failures(self, screen: Screen, ingested: Ingested) -> None:
        self._open(screen, ingested, "failures")
        for name in ("cut.wav", "empty.wav", "noise.wav", "odd|name *with* <i>marks.wav"):
            screen.shows(str(ingested.root / "day1" / name))
        screen.shows("the header promises 20.00 s")

    def test_the_progress(self, screen: Screen, ingested: Ingested) -> None:
        self._open(screen, ingested, "progress")
        screen.shows(f"{N_CLIPS} of {N_CLIPS + N_BAD} files labelled, {N_BAD} failed")
        screen.shows(re.compile(r"\b100\s?%"))


class TestTheForm:
    @pytest.fixture(autouse=True)
    def opened(self, screen: Screen, ingested: Ingested) -> None:
        deployment = ingested.server.deployment(DEPLOYMENT)
        screen.open(f"/deployments/deployment/{deployment['id']}/run")
        screen.shows("Settle time (s)")

    def test_titles_and_descriptions(self, screen: Screen) -> None:
        shown = screen.read()
        for options in (LabelOptions, WatchOptions, EngineOptions, AlertOptions):
            for field in options.model_fields.values():
                assert field.title, field
                assert field.title in shown
                assert str(field.description) in shown
        for line in (ingest_new.description or "").splitlines():
            if parameter := re.fullmatch(r"    (\w+): (.+)", line):
                assert parameter[1] in shown
                assert parameter[2] in shown

    def test_what_it_sends_starts_a_run(self, screen: Screen, ingested: Ingested) -> None:
        known = {run["id"] for run in ingested.server.post("/flow_runs/filter")}
        screen.page.get_by_role("button", name="Submit").click()
        new: list[Any] = wait_until(
            lambda: [r for r in ingested.server.post("/flow_runs/filter") if r["id"] not in known],
            30,
        )
        sent = ingest_new.validate_parameters(new[0]["parameters"])
        assert sent == {
            "roots": [str(ingested.root)],
            "home": ingested.home,
            "options": LabelOptions(),
            "watch": WatchOptions(settle_s=60),
            "engine": EngineOptions(),
            "alerts": AlertOptions(),
            "database": None,
        }
