"""Proxies of the environment: this machine is never asked through one, and httpx reads them all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.request import getproxies, proxy_bypass

import httpx
import pytest

from audioset_core.errors import WeightsError
from audioset_core.models.registry import OfficialWeights
from audioset_core.weights.locate import download
from audioset_core.weights.proxies import LOOPBACK, proxy_asked, proxy_problem, settle_proxies

DEAD = "http://127.0.0.1:9"
OFFICIAL = OfficialWeights(
    url="https://weights.invalid/yamnet.h5", file_name="w.h5", size_bytes=3, sha256="0" * 64
)
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *(name.lower() for name in NAMES)):
        monkeypatch.delenv(name, raising=False)


def _settled(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # For `monkeypatch` to take back what is added.
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, os.environ.get(name, os.environ.get("NO_PROXY", "")))
    settle_proxies(os.environ)


def _proxy_of(client: httpx.Client, url: str) -> bool:
    return client._transport_for_url(httpx.URL(url)) is not client._transport


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("own", ["", "example.org", "127.0.0.1", ".lan, localhost"])
def test_this_machine_is_asked_directly_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, name: str, own: str
) -> None:
    _settled(monkeypatch, **{name: DEAD}, NO_PROXY=own)
    with httpx.Client(verify=False) as client:
        for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0"):
            assert not _proxy_of(client, f"http://{host}:4200/api")
        assert _proxy_of(client, "http://elsewhere.net/")
        assert _proxy_of(client, "http://example.org/") == (own != "example.org")
    # As websockets asks, which Prefect sends events by.
    assert all(proxy_bypass(f"{host}:4200") for host in ("localhost", "127.0.0.1"))
    assert not proxy_bypass("elsewhere.net")
    assert getproxies()[name.lower().removesuffix("_proxy")] == DEAD


def test_without_a_proxy_nothing_is_set() -> None:
    for environment in ({}, {"NO_PROXY": "[::1]"}, {"HTTP_PROXY": "", "http_proxy": ""}):
        before = dict(environment)
        settle_proxies(environment)
        assert environment == before


def test_the_lower_case_wins_also_to_say_that_there_is_none() -> None:
    environment = {"HTTP_PROXY": DEAD, "http_proxy": ""}
    settle_proxies(environment)
    assert "no_proxy" not in environment
    assert proxy_problem({"ALL_PROXY": "gopher://x", "all_proxy": DEAD}) is None


def test_all_is_exempt_by_a_star(monkeypatch: pytest.MonkeyPatch) -> None:
    _settled(monkeypatch, HTTP_PROXY=DEAD, NO_PROXY="a.org, *")
    with httpx.Client(verify=False) as client:
        assert not _proxy_of(client, "http://elsewhere.net/")
    assert proxy_bypass("elsewhere.net")


@pytest.mark.parametrize(
    "entry",
    [
        "::1", "[::1]", "::1/128", "[::1]:80", "fe80::/10", "fd07:b51a:cc66:f0::/64", "[fe80::1]",
        "fe80::1%eth0", "127.0.0.0/8", "10.0.0.0/8", "*.local", ".corp", "<local>", "host:8080",
        "x:y", "host:*", "*:80", "löcal", "a b", "http://x", "user@host", "%zz", ";", " ", "::",
    ],
)  # fmt: skip
def test_httpx_reads_what_is_left_of_any_exemption(
    monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    _settled(monkeypatch, HTTPS_PROXY=DEAD, NO_PROXY=f"{entry},.kept.net")
    with httpx.Client(verify=False) as client:
        assert not _proxy_of(client, "https://www.kept.net/")
        assert _proxy_of(client, "https://elsewhere.net/")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
    assert os.environ["NO_PROXY"].endswith(LOOPBACK[-1])


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("http://proxy:3128", True), ("proxy:3128", True), ("127.0.0.1:80", True),
        ("HTTP://proxy:1", True), ("http://u:p@proxy:1/", True), ("http://[::1]:3128", True),
        (" http://proxy:1 ", True), ("socks5://proxy:1", True), ("socks5h://proxy:1", True),
        ("socks://proxy:1/", True), ("SOCKS://proxy:1/", True), ("https://proxy", True),
        ("socks4://u:secret@proxy:1", False), ("://proxy", False), ("http://proxy:port", False),
        ("http://", False), ("ftp://proxy", False), ("http://proxy:99999", False),
    ],
)  # fmt: skip
def test_a_proxy_is_usable_or_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, usable: bool
) -> None:
    _settled(monkeypatch, ALL_PROXY=address)
    problem = proxy_problem(os.environ)
    assert (problem is None) == usable
    if usable:
        with httpx.Client(verify=False) as client:
            assert _proxy_of(client, "https://elsewhere.net/")
    else:
        assert problem is not None
        assert problem.startswith("ALL_PROXY=")
        assert "secret" not in problem
        with pytest.raises(WeightsError, match="ALL_PROXY="):
            download(OFFICIAL, tmp_path)


def test_the_message_names_the_proxy_that_was_asked() -> None:
    both = {"HTTPS_PROXY": "http://me:secret@proxy:1", "ALL_PROXY": DEAD}
    assert proxy_asked("https", both) == "HTTPS_PROXY=http://***@proxy:1"
    assert proxy_asked("http", both) == f"ALL_PROXY={DEAD}"
    assert proxy_asked("http", {}) is None
    assert proxy_asked("https", {"https_proxy": "me:secret@proxy:1"}) == "https_proxy=***@proxy:1"


# --- downloads ----------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a proxy that refuses, and the first bytes that it was asked with."""
    heard: list[bytes] = []

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            first = self.request.recv(4096)
            heard.append(first)
            if first[:1] == b"\x05":  # SOCKS 5: no password, connected, and then it hangs up
                self.request.sendall(b"\x05\x00")
                heard.append(self.request.recv(4096))
                self.request.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            else:
                self.request.sendall(b"HTTP/1.1 403 Not from here\r\nContent-Length: 0\r\n\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
def test_a_download_goes_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
    proxy: tuple[str, list[bytes]],
    tmp_path: Path,
    name: str,
) -> None:
    at, heard = proxy
    _settled(monkeypatch, **{name: f"http://{at}"})
    with pytest.raises(WeightsError, match=rf"403 Not from here; asked through {name}=http://{at}"):
        download(OFFICIAL, tmp_path)
    assert heard[0].startswith(b"CONNECT weights.invalid:443 HTTP/1.1\r\n")


@pytest.mark.parametrize("scheme", ["socks5", "socks"])
def test_a_download_goes_through_a_socks_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: tuple[str, list[bytes]], tmp_path: Path, scheme: str
) -> None:
    at, heard = proxy
    _settled(monkeypatch, ALL_PROXY=f"{scheme}://{at}")
    with pytest.raises(WeightsError, match="asked through ALL_PROXY=socks5"):
        download(OFFICIAL, tmp_path)
    assert b"weights.invalid" in heard[1]
