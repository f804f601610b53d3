"""Prefect's own pages in a real browser: what a run shows, and the form that starts one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from flows.ingest_new import ingest_new
from flows.run_options import AlertOptions, ExecutionOptions, WatchOptions
from flows.run_report.safe_markdown import as_cell
from tasks.labelling.options import LabelOptions
from tests.flows.build import REPOSITORY, write_clip
from tests.flows.servers import Server, prefect, running_server, running_worker, wait_until
from tests.flows.slow_labelling import slow_site

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

N_CLIPS = 24  # per run; below 20 there is no drift
HOSTILE = "[click](javascript:alert(1)) <img src=x> `|.wav"
BAD = ("empty.wav", "noise.wav", "odd|name [1] a_b_c.wav", HOSTILE)
CUT = "cut.wav"  # labelled as far as it goes
N_LABELLED = N_CLIPS + 1
N_NEW = N_LABELLED + len(BAD)
N_SHARDS = 3
PROGRESS = f"{N_LABELLED} of {N_NEW} files labelled, {len(BAD)} failed"
DEPLOYMENT = "ingest-new/scheduled"
_WITHIN_MS = 30_000
# Prefect ships two sets of pages: those that its links lead to, and the next ones.
UIS = {"v1": "", "v2": "/v2"}
# The next ones ask a statistics service how to count, whatever the server's settings say; they
# work without an answer.
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

    def contains(self, text: str) -> None:
        """The page shows the text, or does once it has drawn itself."""
        expect(self.page.locator("body")).to_contain_text(text, use_inner_text=True)

    def turn_to(self, tab: str) -> None:
        self.page.get_by_role("tablist").get_by_text(tab, exact=True).click()

    def shows(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible()


@pytest.fixture(scope="module", autouse=True)
def _patience() -> None:
    expect.set_options(timeout=_WITHIN_MS)


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
    (folder / "odd|name [1] a_b_c.wav").write_text("no sound")
    (folder / HOSTILE).write_text("nor here")
    write_clip(folder / CUT, 100 + day, 20.0)
    os.truncate(folder / CUT, 100_000)


@pytest.fixture(params=UIS)
def screen(
    ingested: Ingested, browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Screen]:
    """The browser finds nothing but the server; at the end nothing else was needed."""
    base = ingested.server.url.removesuffix("/api")
    asked: set[str] = set()
    errors: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(_WITHIN_MS)
        page.on("request", lambda asking: asked.add(asking.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield Screen(page, base + UIS[request.param])
        if folder := os.environ.get("AUDIOSET_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{request.node.name}.png")
    assert errors == []
    elsewhere = {urlsplit(url).hostname for url in asked if url.startswith(("http:", "https:"))}
    assert elsewhere - {"127.0.0.1"} <= ({STATISTICS} if request.param == "v2" else set())


class TestARun:
    @pytest.fixture(autouse=True)
    def opened(self, screen: Screen, ingested: Ingested) -> None:
        screen.open(f"/runs/flow-run/{ingested.run}")

    def test_its_name_says_how_much_there_was_to_do(
        self, screen: Screen, ingested: Ingested
    ) -> None:
        screen.shows(re.compile(rf"^ingest \d{{4}}-.* UTC .*: {N_NEW} of {2 * N_NEW} files$"))
        screen.shows("Completed")
        screen.shows(f"{3 + 3 * N_SHARDS} Task runs")

    def test_a_task_run_per_shard_and_stage(self, screen: Screen) -> None:
        screen.turn_to("Task Runs")
        for stage in ("featurize", "infer", "persist"):
            for index in range(1, N_SHARDS + 1):
                screen.shows(re.compile(rf"^{stage} shard {index}/{N_SHARDS} \(0\.\d+ h\)$"))
        screen.shows("discover files")

    def test_its_artifacts(self, screen: Screen, ingested: Ingested) -> None:
        screen.turn_to("Artifacts")
        screen.shows(PROGRESS)
        screen.shows(f"{len(BAD)} files failed")
        for kind in ("progress", "summary", "failures"):
            screen.shows(f"ingest-new-{kind}")


class TestArtifacts:
    def _open(self, screen: Screen, ingested: Ingested, kind: str) -> Page:
        return screen.open(f"/artifacts/artifact/{ingested.artifacts[f'ingest-new-{kind}']}")

    def test_the_summary(self, screen: Screen, ingested: Ingested) -> None:
        page = self._open(screen, ingested, "summary")
        for heading in ("Labelled with yamnet", "New labels", "Drift", "Remarks", "Failures"):
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
        for cell in ("files found", "labelled now", "truncated", "not audio", "empty"):
            expect(page.get_by_role("cell", name=cell, exact=True).first).to_be_visible()
        expect(page.get_by_role("cell", name=re.compile(r"^[+-]\d+\.\d points$"))).to_have_count(5)
        screen.contains("the header states 20.00 s")
        for name in (*BAD, CUT):
            screen.shows(str(ingested.root / "day1" / name))
        self._has_no_markup_of_names(page)

    @staticmethod
    def _has_no_markup_of_names(page: Page) -> None:
        expect(page.locator("a[href^='javascript']")).to_have_count(0)
        expect(page.get_by_role("link", name="click")).to_have_count(0)
        expect(page.locator("img[src='x']")).to_have_count(0)

    def test_the_failures(self, screen: Screen, ingested: Ingested) -> None:
        page = self._open(screen, ingested, "failures")
        takes_markdown = not screen.base.endswith(UIS["v2"])
        for name in BAD:
            path = str(ingested.root / "day1" / name)
            screen.shows(path if takes_markdown else as_cell(path))
        self._has_no_markup_of_names(page)

    def test_the_progress(self, screen: Screen, ingested: Ingested) -> None:
        self._open(screen, ingested, "progress")
        screen.shows(PROGRESS)
        screen.shows(re.compile(r"\b100\s?%"))


class TestTheForm:
    @pytest.fixture(autouse=True)
    def opened(self, screen: Screen, ingested: Ingested) -> None:
        deployment = ingested.server.deployment(DEPLOYMENT)
        screen.open(f"/deployments/deployment/{deployment['id']}/run")
        screen.shows("Settle time (s)")

    def test_titles_and_descriptions(self, screen: Screen) -> None:
        for options in (LabelOptions, WatchOptions, ExecutionOptions, AlertOptions):
            for field in options.model_json_schema()["properties"].values():
                screen.contains(field["title"])
                screen.contains(field["description"])
        for line in (ingest_new.description or "").splitlines():
            if parameter := re.fullmatch(r"    (\w+): (.+)", line):
                screen.contains(parameter[1])
                screen.contains(parameter[2])

    def test_what_it_sends_starts_a_run(self, screen: Screen, ingested: Ingested) -> None:
        with screen.page.expect_response(re.compile("/create_flow_run$")) as answer:
            screen.page.get_by_role("button", name="Submit").click()
        run = ingested.server.get(f"/flow_runs/{answer.value.json()['id']}")
        sent = ingest_new.validate_parameters(run["parameters"])
        assert sent == {
            "roots": [str(ingested.root)],
            "home": ingested.home,
            "options": LabelOptions(),
            "watch": WatchOptions(settle_s=60),
            "execution": ExecutionOptions(),
            "alerts": AlertOptions(),
            "database": None,
            "engine": None,
        }
