"""Other people's machines: proxies, Prefect's settings, names of folders, homes and caches."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)

from audioset_core.errors import UserError
from flows.prefect_server.configured_server import check_server, import_settings
from tests.flows.build import command, run_command, write_clip
from tests.flows.servers import clean_environment, running_server

DEAD = "http://127.0.0.1:9"
ODD = "why? 50%#3F %20 'q\" \u2019 \U0001f426 $HOME ${PREFECT_HOME} a&b=c;d \\ two\nlines"
ALLOWED = {"labels.db", "locks", "scores", "prefect", "prefect.db", "prefect.lock",
           "prefect-memo.toml", "prefect.log"}  # fmt: skip


class _Person:
    """A folder to work in with recordings, and an environment without a Prefect server."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder, self.sounds = folder, folder / "sounds"
        for seed in range(2):
            write_clip(self.sounds / f"{seed}.wav", seed)
        self.environment = clean_environment(folder, AUDIOSET_WEIGHTS=str(weights))
        self.environment["AUDIOSET_CACHE"] = str(folder / "cache")
        del self.environment["PREFECT_HOME"]
        self.environment["HOME"] = str(folder / "own")
        (folder / "own").mkdir()

    def label(self, **settings: str) -> subprocess.CompletedProcess[bytes]:
        env = {**self.environment, **settings}
        return run_command("label", self.sounds, "--home", "home", env=env, cwd=self.folder)

    def run(self, *line: str | Path) -> subprocess.CompletedProcess[bytes]:
        return run_command(*line, env=self.environment, cwd=self.folder)


@pytest.fixture
def person(tmp_path: Path, placeholder: Path) -> _Person:
    return _Person(tmp_path, placeholder)


def _one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode().splitlines()
    assert done.returncode == 2, said
    assert [line for line in said if line != "starting Prefect"] == said[-1:]
    assert said[-1].startswith("audioset: ")
    return said[-1]


# --- Prefect's server ---------------------------------------------------------------------------


@contextmanager
def _answering(
    status: int, body: bytes, auth: int = 200, version: str = prefect.__version__
) -> Iterator[str]:
    """A server that answers everything alike, but for what asks who one is, and who it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_version = self.path.endswith("/version")
            said = f'"{version}"'.encode() if is_version else body
            self.send_response(auth if is_version else status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "auth", "message"),
    [
        (404, b"{}", 200, "answers 404 Not Found; the address of Prefect's API ends with /api"),
        (502, b"{}", 200, "answers 502 Bad Gateway"),
        (200, b"<html>Welcome", 200, "is not Prefect's API: its address ends with /api"),
        (200, b"[]", 200, "is not Prefect's API"),
        (401, b"{}", 200, "needs a password: set PREFECT_API_AUTH_STRING to user:password"),
        (200, b"true", 401, "needs a password: set PREFECT_API_AUTH_STRING to user:password"),
        (200, b"true", 403, "needs a password"),
        (200, b"true", 500, "answers 500"),
    ],
)
def test_a_server_that_is_of_no_use_is_one_line(
    status: int, body: bytes, auth: int, message: str
) -> None:
    with _answering(status, body, auth) as url, pytest.raises(UserError) as caught:
        check_server(url, "PREFECT_API_URL")
    said = str(caught.value)
    assert said.startswith(f"Prefect's server at {url} (PREFECT_API_URL) {message}")


@pytest.mark.slow
def test_a_server_of_another_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Prefect would raise in the middle of a run, or be refused one request or another."""
    ours = prefect.__version__
    with _answering(200, b"true", version="2.20.18") as url, pytest.raises(UserError) as caught:
        check_server(url, "PREFECT_API_URL")
    assert f"is Prefect 2.20.18, here is {ours}: they cannot work together" in str(caught.value)
    for version, told in (("3.4.14", True), (ours, False), ("3.99.0", False)):
        with _answering(200, b"true", version=version) as url:
            check_server(url, "PREFECT_API_URL")
        said = capsys.readouterr().err
        assert (f"is Prefect {version}, here is {ours}: runs may fail" in said) == told


def test_a_password_that_no_server_can_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's `hmac.compare_digest` raises for it, and so the server answers 500 to all."""
    password, name = "me:pässword", PREFECT_SERVER_API_AUTH_STRING.name
    monkeypatch.setenv(name, password)
    with (
        temporary_settings({PREFECT_SERVER_API_AUTH_STRING: password}),
        pytest.raises(UserError, match=f"^{name}: .* beyond ASCII"),
    ):
        import_settings()
    with (
        _answering(200, b"true", 500) as url,
        temporary_settings({PREFECT_API_AUTH_STRING: password}),
        pytest.raises(UserError, match="refuses the password of PREFECT_API_AUTH_STRING"),
    ):
        check_server(url, "PREFECT_API_URL")


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.prefect_server.configured_server._ANSWERS_WITHIN_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with pytest.raises(UserError, match=r"does not answer: .*; start it, or unset"):
            check_server(url, "PREFECT_API_URL")


@pytest.mark.slow
@pytest.mark.server
class TestSettings:
    def test_a_dead_server_of_the_environment(self, person: _Person) -> None:
        said = _one_line(person.label(PREFECT_API_URL=f"{DEAD}/api"))
        assert f"{DEAD}/api (PREFECT_API_URL) does not answer" in said

    def test_a_dead_server_of_a_profile(self, person: _Person) -> None:
        profiles = person.folder / "own" / ".prefect" / "profiles.toml"
        profiles.parent.mkdir()
        profiles.write_text(f'active = "b"\n[profiles.b]\nPREFECT_API_URL = "{DEAD}/api"\n')
        said = _one_line(person.label())
        assert f"(PREFECT_API_URL of the profile 'b' in {profiles}) does not answer" in said

    def test_settings_that_prefect_does_not_accept(self, person: _Person) -> None:
        said = _one_line(person.label(PREFECT_LOGGING_LEVEL="LOUD"))
        assert "PREFECT_LOGGING_LEVEL=LOUD: Input should be 'DEBUG'" in said
        profiles = person.folder / "profiles.toml"
        profiles.write_text('active = "b\n')
        said = _one_line(person.label(PREFECT_PROFILES_PATH=str(profiles)))
        assert str(profiles) in said

    def test_a_proxy_that_prefect_cannot_use(self, person: _Person) -> None:
        assert "ALL_PROXY=gopher://x" in _one_line(person.label(ALL_PROXY="gopher://x"))

    def test_what_is_meant_for_another_server_does_not_reach_ours(self, person: _Person) -> None:
        done = person.label(
            PREFECT_SERVER_API_AUTH_STRING="admin:secret",
            PREFECT_API_DATABASE_CONNECTION_URL="postgresql+asyncpg://u:p@127.0.0.1:9/x",
            PREFECT_SERVER_API_BASE_PATH="/elsewhere/api",
            PREFECT_SERVER_DATABASE_MIGRATE_ON_START="false",
            PREFECT_MESSAGING_BROKER="prefect_redis.messaging",
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"secret" not in done.stdout + done.stderr

    def test_a_server_that_wants_a_password(self, person: _Person) -> None:
        secret = "admin:secret"
        with running_server(
            person.folder / "server", PREFECT_SERVER_API_AUTH_STRING=secret
        ) as server:
            said = _one_line(person.label(PREFECT_API_URL=server.url))
            assert "(PREFECT_API_URL) needs a password: set PREFECT_API_AUTH_STRING" in said
            wrong = {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": "admin:wrong"}
            said = _one_line(person.label(**wrong))
            assert "refuses the password of PREFECT_API_AUTH_STRING" in said
            assert "admin:wrong" not in said
            done = person.label(**{**wrong, "PREFECT_API_AUTH_STRING": secret})
            assert done.returncode == 0, done.stderr.decode()


# --- proxies ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("no_proxy", [None, "example.org,[::1],fe80::/10"])
def test_a_run_asks_no_proxy(person: _Person, no_proxy: str | None) -> None:
    with _answering(403, b"") as url:
        at = url.removesuffix("/api")
        socks = at.replace("http://", "socks5://")
        settings = {"HTTP_PROXY": at, "https_proxy": at, "ALL_PROXY": socks}
        own = {} if no_proxy is None else {"NO_PROXY": no_proxy}
        done = person.label(**settings, **own)
    assert done.returncode == 0, done.stderr.decode()
    assert b"labelled now" in done.stdout


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.server
def test_a_home_of_any_name_stays_one_folder(person: _Person) -> None:
    home, page = ODD, person.folder / "page.html"
    before = set(person.folder.iterdir())
    assert person.run("label", person.sounds, "--home", home).returncode == 0
    assert {path.name for path in set(person.folder.iterdir()) - before} <= {ODD, "cache"}
    made = {path.name.split("-shm")[0].split("-wal")[0] for path in (person.folder / ODD).iterdir()}
    assert made <= ALLOWED
    done = person.run("query", "--under", "Sounds of things", "--home", home)
    assert done.returncode == 0, done.stderr.decode()
    assert person.run("report", "--home", home, "--out", page).returncode == 0
    assert person.run("verify", "--home", home).returncode == 0
    if shutil.which("sqlite3"):
        done = person.run("sql", "SELECT count(*) AS n FROM sources", "--csv", "--home", home)
        assert done.stdout == b"n\n2\n", done.stderr.decode()
    assert not any((person.folder / "own").iterdir())


@pytest.mark.parametrize("option", ["--home", "recordings"])
def test_a_name_that_is_not_utf_8_is_told(
    audioset: Callable[..., Any], placeholder: Path, tmp_path: Path, option: str
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    write_clip(os.fsencode(odd), 1)
    arguments = [odd, "--home", tmp_path / "h"] if option == "recordings" else [
        tmp_path, "--home", odd + "-home",
    ]  # fmt: skip
    said = audioset("label", *arguments, "--weights", placeholder)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"audioset: {option} ")
    assert "is not UTF-8" in said.err


# --- the user's home and cache ------------------------------------------------------------------


def _without_privileges(line: list[Any]) -> list[Any]:
    """The command as somebody whom permissions bind."""
    if os.geteuid() != 0:
        return line
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root is bound by no permission, and there is no setpriv")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all", *line]


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("kind", ["read-only", "another's", "a file"])
def test_a_cache_that_cannot_be_written_is_named(person: _Person, assets: Path, kind: str) -> None:
    cache = person.folder / "own" / ".cache" / "audioset-flows"
    if kind == "a file":
        cache.parent.write_text("")
    else:
        cache.mkdir(parents=True)
    if kind == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder to somebody else")
        os.chown(cache, 65_534, 65_534)
        cache.chmod(0o700)
    if kind == "read-only":
        cache.chmod(0o500)
    environment = {**person.environment, "AUDIOSET_WEIGHTS": str(assets / "weights" / "yamnet.h5")}
    del environment["AUDIOSET_CACHE"]
    line = command("label", person.sounds, "--home", person.folder / "home")
    done = subprocess.run(
        _without_privileges(line), env=environment, cwd=person.folder, capture_output=True,
        check=False,
    )  # fmt: skip
    said = _one_line(done)
    assert f"the cache {cache / 'weights'} cannot be written" in said
    assert "set XDG_CACHE_HOME or AUDIOSET_CACHE" in said


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("home", [None, "/nowhere/at/all"])
def test_a_run_needs_no_home_folder(person: _Person, home: str | None) -> None:
    environment: Mapping[str, str] = {
        key: value for key, value in person.environment.items() if key != "HOME"
    }
    if home is not None:
        environment = {**environment, "HOME": home}
    line = command("label", person.sounds, "--home", person.folder / "home")
    done = subprocess.run(
        _without_privileges(line), env=environment, cwd=person.folder, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
