"""`audioset serve`: one command that watches, labels, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from audioset_core.ontology.graph import load_default
from db.alerts.raised import raised_alerts
from db.alerts.rules import AlertRule, change_rules
from db.engine import open_engine, sqlite_url
from db.migrate import ensure_schema
from db.query.question import Question
from flows.addresses import prefect_address
from flows.prefect_server.own_server import MARK
from flows.prefect_server.serve import ARRIVED, HEARTBEAT_AUTOMATION
from tests.db.build import NOW
from tests.flows.build import command, run_command, write_clip
from tests.flows.servers import (
    Process,
    ask,
    clean_environment,
    free_port,
    kill_all_with,
    processes_with,
    running_server,
    started,
    trigger,
    wait_until,
)

Audioset = Callable[..., Any]
NAMES = {
    ("label-audio", "ad-hoc"),
    ("ingest-new", "scheduled"),
    ("label-partition", "machines"),
    ("prepare-model", "ad-hoc"),
    ("verify", "weekly"),
    ("update-index", "nightly"),
}
NEVER_SOON = "0 0 1 1 *"


class TestMistakes:
    @pytest.fixture
    def serve(self, audioset: Audioset, tmp_path: Path, placeholder: Path) -> Callable[..., str]:
        (tmp_path / "in").mkdir()
        settings = {"--root": tmp_path / "in", "--weights": placeholder, "--home": tmp_path / "h"}

        def run(**changed: Any) -> str:
            own = {**settings, **{f"--{name}": value for name, value in changed.items()}}
            said = audioset("serve", *(x for pair in own.items() if pair[1] for x in pair))
            assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said
            return str(said.err)

        return run

    def test_no_root(self, serve: Callable[..., str]) -> None:
        assert "--root DIR" in serve(root=None)

    def test_a_root_that_is_not_there(self, serve: Callable[..., str], tmp_path: Path) -> None:
        assert f"did you mean {str(tmp_path / 'in')!r}" in serve(root=tmp_path / "inn")

    def test_a_root_that_is_a_file(self, serve: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "a.wav").touch()
        assert "not a folder" in serve(root=tmp_path / "a.wav")

    @pytest.mark.parametrize(
        "cron", ["hourly", "61 * * * *", "* * *", "H * * * *", "0 0 30 2 *", " "]
    )
    def test_a_cron_that_is_none(self, serve: Callable[..., str], cron: str) -> None:
        assert f"--cron {cron!r}" in serve(cron=cron)

    def test_an_unknown_timezone(self, serve: Callable[..., str]) -> None:
        assert "did you mean Europe/Berlin?" in serve(timezone="Europe/Berlni")
        assert "such as Europe/Berlin" in serve(timezone="???")

    def test_a_settle_time_that_is_none(self, serve: Callable[..., str]) -> None:
        assert "0 to 86400" in serve(settle="-1")

    def test_an_unknown_model(self, serve: Callable[..., str]) -> None:
        assert "there is yamnet" in serve(model="yamnot")

    def test_weights_that_are_not_there(self, serve: Callable[..., str], tmp_path: Path) -> None:
        assert "no weights file" in serve(weights=tmp_path / "none.h5")

    def test_a_database_that_does_not_answer(self, serve: Callable[..., str]) -> None:
        said = serve(db="postgresql://me:secret@127.0.0.1:9/x")
        assert "secret" not in said


class _Place:
    """A watched folder, a home, and the command that serves them."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder, self.root, self.home = folder, folder / "in", folder / "home"
        self.environment = clean_environment(folder, AUDIOSET_WEIGHTS=str(weights))
        for seed in range(3):
            write_clip(self.root / f"{seed}.wav", seed)
        self._n_started = 0

    def line(self, *more: str) -> list[Any]:
        own = ("--root", self.root, "--cron", NEVER_SOON, "--settle", "0", "--home", self.home)
        return command("serve", *own, *more)

    @contextmanager
    def served(self, *more: str, **settings: str) -> Iterator[tuple[Process, str]]:
        """The process and the address of the API that it reports to."""
        self._n_started += 1
        log = self.folder / f"serve{self._n_started}.log"
        with started(self.line(*more), {**self.environment, **settings}, log) as process:

            def is_up() -> bool:
                assert process.popen.poll() is None, process.said
                return "stop with Ctrl-C" in process.said

            wait_until(is_up, 120, what=lambda: process.said)
            at = next(line for line in process.said.splitlines() if line.startswith("Prefect"))
            yield process, at.split()[-1].removesuffix("/api") + "/api"

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return run_command(*arguments, env=self.environment, cwd=self.folder)

    def n_labelled(self) -> int:
        conn = sqlite3.connect(self.home / "labels.db")
        try:
            query = "SELECT count(*) FROM labellings WHERE status = 'done'"
            return int(conn.execute(query).fetchone()[0])
        finally:
            conn.close()


@pytest.fixture
def place(tmp_path: Path, placeholder: Path) -> Iterator[_Place]:
    place = _Place(tmp_path, placeholder)
    yield place
    kill_all_with(f"{MARK}={place.home.absolute()}")  # where a test has failed half-way


def _names(url: str) -> set[tuple[str, str]]:
    flows = {flow["id"]: flow["name"] for flow in ask(url, "POST", "/flows/filter", {})}
    found = ask(url, "POST", "/deployments/filter", {})
    return {(flows[deployment["flow_id"]], deployment["name"]) for deployment in found}


def _state(url: str, run_id: str) -> Any:
    return ask(url, "GET", f"/flow_runs/{run_id}")["state"]


def _is_over(url: str, run_id: str) -> Any:
    state = _state(url, run_id)
    return state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and state


def _ended(popen: subprocess.Popen[bytes], within_s: float = 30) -> int:
    return popen.wait(within_s)


def _metrics(port: int) -> dict[str, Any]:
    """What a Prometheus server would scrape; by status, where there are runs of that status."""
    found: dict[str, Any] = {}
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    for sample in (s for family in text_string_to_metric_families(text) for s in family.samples):
        if not sample.labels:
            found[sample.name] = sample.value
        elif sample.value:
            found.setdefault(sample.name, {})[sample.labels["status"]] = sample.value
    return found


@pytest.mark.slow
@pytest.mark.server
def test_one_command_brings_everything_and_takes_it_away(place: _Place) -> None:
    port = free_port()
    with place.served("--timezone", "Europe/Berlin", "--metrics", str(port)) as (process, url):
        assert _metrics(port)["audioset_recordings_labelled_total"] == 0
        assert _names(url) == NAMES
        assert prefect_address(place.home) is None  # it has no pages
        watch = ask(url, "GET", "/deployments/name/ingest-new/scheduled")
        schedule = watch["schedules"][0]["schedule"]
        assert (schedule["cron"], schedule["timezone"]) == (NEVER_SOON, "Europe/Berlin")
        assert watch["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        assert watch["global_concurrency_limit"]["limit"] == 1
        assert watch["parameters"]["roots"] == [str(place.root)]
        assert watch["tags"] == ["audioset"]
        automations = ask(url, "POST", "/automations/filter", {})
        names = {a["name"] for a in automations}
        assert names == {HEARTBEAT_AUTOMATION["name"], ARRIVED["name"]}

        run = trigger(url, "label-audio/ad-hoc", paths=[str(place.root)])
        state = wait_until(lambda: _is_over(url, run), 90, what=lambda: process.said)
        assert state["type"] == "COMPLETED", process.said
        assert place.n_labelled() == 3
        assert "3 clips labelled" in process.said

        write_clip(place.root / "new.wav", 99)
        run = trigger(url, "ingest-new/scheduled")
        assert wait_until(lambda: _is_over(url, run), 90)["type"] == "COMPLETED", process.said
        assert place.n_labelled() == 4

        # Other commands on the home report to the same server, and a second one is refused.
        write_clip(place.folder / "other" / "x.wav", 100)
        done = place.run("label", place.folder / "other", "--home", place.home)
        assert done.returncode == 0, done.stderr
        runs = [run["name"] for run in ask(url, "POST", "/flow_runs/filter", {})]
        assert any("/other" in name for name in runs), runs
        found = _metrics(port)
        assert found["audioset_recordings_labelled_total"] == 5
        assert found["audioset_runs"] == {"completed": 3}
        assert found["audioset_files_waiting"] == found["audioset_files_failed_total"] == 0
        assert found["audioset_audio_seconds_labelled_total"] > 5
        assert found["audioset_last_run_speed"] > 0
        assert time.time() - 600 < found["audioset_last_success_timestamp_seconds"] < time.time()
        second = place.run("serve", "--root", place.root, "--home", place.home)
        assert second.returncode == 2
        assert second.stderr.decode().count("\n") == 1
        assert f"audioset serve, {url}" in second.stderr.decode()

        process.popen.send_signal(signal.SIGTERM)
        assert _ended(process.popen) == 0, process.said
        assert "Traceback" not in process.said
        assert processes_with(str(place.home)) == []
    # Started again: the same deployments, and no second automation.
    with place.served() as (_, url):
        assert _names(url) == NAMES
        assert len(ask(url, "POST", "/automations/filter", {})) == 2


@pytest.mark.slow
@pytest.mark.server
def test_a_running_flow_is_stopped_with_it_and_nothing_is_lost(place: _Place) -> None:
    for seed in range(4):
        write_clip(place.root / f"long{seed}.wav", 10 + seed, 600.0)
    with place.served() as (process, url):
        run = trigger(url, "label-audio/ad-hoc", paths=[str(place.root)])
        wait_until(lambda: "infer shard 1/" in process.said, 120, what=lambda: process.said)
        # As Ctrl-C does it: every process of the terminal gets it at once.
        os.killpg(process.popen.pid, signal.SIGINT)
        # Six seconds where other work keeps both cores busy; more tests may do that at once.
        assert _ended(process.popen, within_s=20) == 0, process.said
        assert processes_with(str(place.home)) == []
    with place.served() as (process, url):
        assert _state(url, run)["type"] in ("CANCELLED", "CRASHED")
        again = trigger(url, "label-audio/ad-hoc", paths=[str(place.root)])
        assert wait_until(lambda: _is_over(url, again), 180)["type"] == "COMPLETED", process.said
        assert place.n_labelled() == 7


@pytest.mark.slow
@pytest.mark.server
def test_after_a_kill_the_next_start_cleans_up(place: _Place) -> None:
    for seed in range(4):
        write_clip(place.root / f"long{seed}.wav", 10 + seed, 600.0)
    with place.served() as (process, url):
        run = trigger(url, "ingest-new/scheduled")
        wait_until(lambda: "infer shard 1/" in process.said, 120, what=lambda: process.said)
        process.popen.kill()
        process.popen.wait()
        # Prefect's server, and the run.
        mark = f"{MARK}={place.home.absolute()}"
        wait_until(lambda: not processes_with(mark), 10, what=lambda: processes_with(mark))
        with place.served() as (process, url):
            assert _state(url, run)["type"] == "CRASHED"
            # The dead run does not hold the deployment's only slot.
            again = trigger(url, "ingest-new/scheduled")
            state = wait_until(lambda: _is_over(url, again), 180, what=lambda: process.said)
            assert state["type"] == "COMPLETED", (state, process.said)
            assert place.n_labelled() == 7


@contextmanager
def _webhook() -> Iterator[tuple[str, list[Any]]]:
    """An address that takes JSON by POST, and what was sent there."""
    sent: list[Any] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", sent
        server.shutdown()


def _save_block(url: str, block: str, data: Mapping[str, Any]) -> None:
    """Save a block, TYPE/NAME, as Prefect's pages do."""
    kind, name = block.split("/")
    block_type = ask(url, "GET", f"/block_types/slug/{kind}")["id"]
    asked = {"block_schemas": {"block_type_id": {"any_": [block_type]}}}
    schema = ask(url, "POST", "/block_schemas/filter", asked)[0]["id"]
    body = {"name": name, "data": data, "block_type_id": block_type, "block_schema_id": schema}
    ask(url, "POST", "/block_documents/", body)


@pytest.mark.slow
@pytest.mark.server
def test_what_a_rule_hears_reaches_the_webhook_once(place: _Place) -> None:
    """As docs/alerts.md has it; two sounds of a run are told, and the others counted."""
    home = ("--home", place.home)
    rule = AlertRule(
        name="any", question=Question(under=(load_default().find("Animal").mid,), min_score=0.1),
        notify="custom-webhook/ranger",
    )  # fmt: skip
    raw = replace(rule, name="raw", notify="webhook/siren", first_in="day")
    # Nothing here predicts what it asks for, and its block cannot send.
    lute = Question(under=(load_default().find("Mandolin").mid,))
    mute = replace(rule, name="mute", question=lute, notify="secret/key")
    place.home.mkdir()
    engine = open_engine(sqlite_url(place.home / "labels.db"))
    ensure_schema(engine)
    change_rules(engine, lambda _: [rule, raw, mute], NOW)
    # Without a server that lasts the sounds are found, and wait.
    done = place.run("label", place.root / "0.wav", *home)
    assert done.returncode == 0, done.stderr
    assert b"alert any" in done.stdout
    trial = place.run("alerts", "test", "any", "--send", *home)
    assert trial.returncode == 2
    assert trial.stderr.startswith(b"audioset: there is no Prefect server that could send")
    with _webhook() as (address, sent), place.served() as (process, url):
        assert "alert any: sent to nobody, since Prefect has no block custom-webhook/r" in (
            process.said
        )
        message = {"title": "{{subject}}", "text": "{{body}}"}
        own = {"name": "x", "url": address, "json_data": message}
        _save_block(url, "custom-webhook/ranger", own)
        _save_block(url, "webhook/siren", {"url": address})
        _save_block(url, "secret/key", {"value": "x"})
        trial = place.run("alerts", "test", "mute", "--send", *home)
        assert trial.stderr == (
            b"audioset: mute: sent to nobody, since no block of the type secret can notify\n"
        )
        trial = place.run("alerts", "test", "ANY", "--send", *home)
        assert trial.returncode == 0, trial.stderr
        wait_until(lambda: sent, 30, what=lambda: process.said)
        assert sent.pop() == {
            "title": "audioset: any", "text": "a trial of the alert 'any': nothing was heard",
        }  # fmt: skip
        for _ in range(2):  # and nothing by a second run
            run = trigger(url, "ingest-new/scheduled", alerts={"most_sounds": 2})
            over = partial(_is_over, url, run)
            assert wait_until(over, 90)["type"] == "COMPLETED", process.said
        wait_until(lambda: len(sent) >= 4, 30, what=lambda: (sent, process.said))
        time.sleep(3)  # what comes too often comes late
        every = raised_alerts(engine)
        engine.dispose()
        found = Counter((each.rule, each.state) for each in every)
        n_of_one = sum(each.rule == "any" for each in every)
        assert found["any", "told"] == 2
        assert found["any", "summed"] == n_of_one - 2 > 0
        assert found["raw", "told"] == 1
        assert found["raw", "quiet"] == n_of_one - 1
        texts = [each["text"] for each in sent if each.get("title") == "audioset: any"]
        (more,) = (text for text in texts if ".wav, " not in text)
        assert (len(texts), more.split(":")[0]) == (3, f"and {n_of_one - 2} more")
        (raw,) = (each for each in sent if "title" not in each)
        assert raw["rule"] == "raw"
        assert raw["score"] >= 0.1
        assert raw["path"].startswith(str(place.root))


@pytest.mark.slow
@pytest.mark.server
def test_with_prefects_pages(place: _Place) -> None:
    port = free_port()
    with place.served("--with-server", "--port", str(port)) as (process, _):
        assert f"Prefect: http://127.0.0.1:{port}\n" in process.said
        assert prefect_address(place.home) == f"http://127.0.0.1:{port}"
        page = httpx.get(f"http://127.0.0.1:{port}/", follow_redirects=True)
        assert "text/html" in page.headers["content-type"]
        settings = httpx.get(f"http://127.0.0.1:{port}/ui-settings").json()
        assert settings["api_url"].split("/")[2].endswith(f":{port}")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]
            line = ("serve", "--root", place.root, "--home", place.folder / "other")
            done = place.run(*line, "--port", str(number))
        assert done.returncode == 2
        assert done.stderr.decode().startswith(f"audioset: port {number} cannot be used")
        assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.server
def test_where_a_server_is_configured_it_reports_there(place: _Place) -> None:
    with running_server(place.folder / "server") as server:
        with place.served(PREFECT_API_URL=server.url) as (process, url):
            assert url == server.url
            assert _names(url) == NAMES
            assert not (place.home / "prefect.db").exists()
            run = server.trigger("label-audio/ad-hoc", paths=[str(place.root)])
            wait_until(lambda: _is_over(url, run), 90, what=lambda: process.said)
            assert place.n_labelled() == 3
            place.environment["PREFECT_API_URL"] = server.url
            done = place.run("serve", "--root", place.root, "--with-server")
            assert done.returncode == 2
            assert b"leave out one or the other" in done.stderr
        assert len(server.post("/automations/filter")) == 2


@pytest.mark.slow
@pytest.mark.server
def test_a_configured_server_that_does_not_answer(place: _Place) -> None:
    place.environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    done = place.run("serve", "--root", place.root, "--home", place.home)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "audioset: Prefect's server at http://127.0.0.1:9/api (PREFECT_API_URL) does not answer: "
        "Connection refused; start it, or unset PREFECT_API_URL to have one started here"
    ]


def test_help_needs_no_prefect(environment: Mapping[str, str], tmp_path: Path) -> None:
    done = run_command(
        "serve", "--help", env=environment, cwd=tmp_path,
        setup="import atexit, sys\n"
        "atexit.register(lambda: print('prefect' in sys.modules, file=sys.stderr))",
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == b"False\n"
