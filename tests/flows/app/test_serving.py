"""`audioset app` as a person starts and stops it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar

import pytest

from tests.flows.build import REPOSITORY
from tests.flows.conftest import Said
from tests.flows.scored import Collection


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "number"), [("127.0.0.1", signal.SIGINT), ("0.0.0.0", signal.SIGTERM)]
)
def test_the_page_is_served_until_a_signal_comes(
    collection: Collection, host: str, number: signal.Signals
) -> None:
    collection.add("a.wav", {"Siren": [0.9, 0.8]})
    program = "from flows.cli.program import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "app", "--home", str(collection.home), "--host", host,
         "--port", "0"],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = process.stderr.readline().strip().replace(socket.gethostname(), "127.0.0.1", 1)
        assert ("?token=" in address) == (host != "127.0.0.1")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with opener.open(address) as answer:
            assert answer.status == 200
        plain, _, _ = address.partition("?")
        published = collection.home / "app.address"
        assert published.read_text().replace(socket.gethostname(), "127.0.0.1") == plain
        with opener.open(f"{plain}?under=Siren") as answer:
            assert "a.wav" in answer.read().decode()
        os.killpg(process.pid, number)
        assert process.wait(20) == 128 + number
        assert process.stderr.read() == "audioset: stopped\n"
        assert not published.exists()
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_a_port_that_is_taken_is_told_in_one_line(
    collection: Collection, audioset: Callable[..., Said]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = audioset("app", "--home", collection.home, "--port", port)
    assert said.code == 2
    assert said.err == (
        f"audioset: --host 127.0.0.1 --port {port}: Address already in use; choose another, "
        "or --port 0 for any free port\n"
    )
