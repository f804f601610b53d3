from __future__ import annotations

import errno
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from audioset_core.errors import WeightsError
from audioset_core.models.registry import (
    BUNDLES,
    PANNS,
    VGGISH,
    YAMNET,
    ModelBundle,
    OfficialWeights,
)
from audioset_core.weights.convert import convert
from audioset_core.weights.locate import (
    ReadyWeights,
    cache_dir,
    download,
    find_source,
    peek,
    prepare,
)

CONTENT = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AUDIOSET_")]:
        monkeypatch.delenv(name, raising=False)
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))


# --- which file ---------------------------------------------------------------------------------


def test_order_of_sources(tmp_path: Path) -> None:
    given, named = tmp_path / "given.h5", tmp_path / "named.h5"
    asset = tmp_path / "assets" / "weights" / "yamnet.h5"
    cached = tmp_path / "cache" / "downloads" / "yamnet.h5"
    for path in (given, named, asset, cached):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    env = {"AUDIOSET_WEIGHTS": str(named), "AUDIOSET_ASSETS": str(tmp_path / "assets")}
    assert find_source(YAMNET, given, env=env) == given
    assert find_source(YAMNET, env=env) == named
    del env["AUDIOSET_WEIGHTS"]
    assert find_source(YAMNET, env=env) == asset
    asset.unlink()
    assert find_source(YAMNET, env=env) == cached
    assert find_source(YAMNET, env={"AUDIOSET_WEIGHTS": ""}) == cached
    cached.unlink()
    assert find_source(YAMNET, env=env) is None


def test_a_path_that_is_given_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"--weights: no weights file at .*absent\.h5"):
        find_source(YAMNET, tmp_path / "absent.h5")
    with pytest.raises(WeightsError, match="AUDIOSET_WEIGHTS: no weights file"):
        find_source(YAMNET, env={"AUDIOSET_WEIGHTS": str(tmp_path)})


def test_each_model_has_its_variable(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.pth" for name in ("yamnet", "vggish", "panns")}
    for path in paths.values():
        path.write_bytes(b"x")
    env = {
        "AUDIOSET_WEIGHTS": str(paths["yamnet"]),
        "AUDIOSET_WEIGHTS_VGGISH": str(paths["vggish"]),
        "AUDIOSET_WEIGHTS_PANNS": str(paths["panns"]),
    }
    for bundle in (YAMNET, VGGISH, PANNS):
        assert find_source(bundle, env=env) == paths[bundle.name]
    with pytest.raises(WeightsError, match="AUDIOSET_WEIGHTS_VGGISH: no weights file"):
        find_source(VGGISH, env={"AUDIOSET_WEIGHTS_VGGISH": "/absent.pth"})


@pytest.mark.parametrize(
    ("bundle", "url"),
    [
        (VGGISH, "https://storage.googleapis.com/audioset/vggish_model.ckpt"),
        (VGGISH, "v0.1/vggish_with_classifier.pth"),
        (PANNS, "https://zenodo.org/record/3987831/files/Cnn14_16k_mAP%3D0.438.pth"),
    ],
)
def test_what_cannot_be_verified_is_asked_for(bundle: ModelBundle, url: str) -> None:
    for call in (find_source, peek, prepare):
        with pytest.raises(WeightsError) as caught:
            call(bundle)
        text = str(caught.value)
        for part in (url, "--weights", f"AUDIOSET_WEIGHTS_{bundle.name.upper()}"):
            assert part in text
        assert "\n" not in text


def test_checkpoints_and_folders_are_sources(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / name).write_bytes(b"x")
    for path in (folder, folder / "variables", folder / "variables" / "variables"):
        assert find_source(YAMNET, path) == path


def test_weights_without_a_head_say_so_without_torch(
    yamnet_weights: ReadyWeights, tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(yamnet_weights.path, "np") as file:
        metadata = file.metadata()
    save_file(load_file(yamnet_weights.path), tmp_path / "a.safetensors",
              metadata=metadata | {"has_scores": "false"})  # fmt: skip
    for path, expected in ((yamnet_weights.path, True), (tmp_path / "a.safetensors", False)):
        ready = peek(YAMNET, path)
        assert ready is not None
        assert ready.has_scores is expected


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("AUDIOSET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir().name == "audioset-flows"


def test_converted_once(assets: Path) -> None:
    source = assets / "weights" / "yamnet.h5"
    assert peek(YAMNET, source) is None
    ready = prepare(YAMNET, source)
    written = ready.path.stat()
    assert ready.path.parent == cache_dir() / "weights"
    assert ready.model == "yamnet"
    assert ready.version.startswith("1-")
    assert prepare(YAMNET, source) == ready == peek(YAMNET, source)
    assert ready.path.stat().st_mtime_ns == written.st_mtime_ns
    # A converted file may be given as well, and says the same.
    assert prepare(YAMNET, ready.path) == ready
    assert [path.name for path in ready.path.parent.iterdir()] == [ready.path.name]


def test_peek_needs_no_torch(yamnet_weights: ReadyWeights) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from audioset_core.models.registry import YAMNET\n"
        "from audioset_core.weights.locate import peek\n"
        f"ready = peek(YAMNET, Path({str(yamnet_weights.path)!r}))\n"
        f"assert ready.version == {yamnet_weights.version!r}\n"
        "loaded = {'torch', 'h5py', 'tensorflow', 'httpx'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_models_weights(yamnet_weights: ReadyWeights) -> None:
    with pytest.raises(WeightsError, match="holds yamnet weights, not other"):
        peek(replace(YAMNET, name="other"), yamnet_weights.path)


def test_a_spoilt_cache_is_named(assets: Path) -> None:
    ready = prepare(YAMNET, assets / "weights" / "yamnet.h5")
    ready.path.write_bytes(b"spoilt")
    with pytest.raises(WeightsError, match=str(ready.path)):
        peek(YAMNET, assets / "weights" / "yamnet.h5")


# --- download -----------------------------------------------------------------------------------


@dataclass
class Site:
    """A publisher's site on this machine, with the faults that real ones have."""

    url: str = ""
    content: bytes = CONTENT
    knows_range: bool = True
    status: int | None = None
    moved_to: str = "https://elsewhere.invalid/"
    breaks_after: int | None = None
    says_length: bool = True
    takes_s: float = 0.0
    asked: list[dict[str, str]] = field(default_factory=list)

    def official(self, **other: Any) -> OfficialWeights:
        pinned = OfficialWeights(
            url=self.url,
            file_name="yamnet.h5",
            size_bytes=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
        )
        return replace(pinned, **other)


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append({key.lower(): value for key, value in self.headers.items()})
            start = 0
            if state.status is not None and self.path != "/moved":
                self.send_response(state.status)
                self.send_header("Location", state.moved_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if state.knows_range and "Range" in self.headers:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                size = len(state.content)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            else:
                self.send_response(200)
            body = state.content[start:]
            if state.says_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(state.takes_s)
            self.wfile.write(body if state.breaks_after is None else body[: state.breaks_after])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/yamnet.h5"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download_is_whole_and_shows_progress(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(site.official(), tmp_path / "new", progress=lambda *at: seen.append(at))
    assert path == tmp_path / "new" / "yamnet.h5"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["yamnet.h5"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert site.asked[0]["accept-encoding"] == "identity"


def test_a_broken_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.breaks_after = 100_000
    with pytest.raises(WeightsError, match="cannot download"):
        download(site.official(), tmp_path)
    assert names(tmp_path) == ["yamnet.h5.part"]
    site.breaks_after = None
    done = (tmp_path / "yamnet.h5.part").stat().st_size
    assert done > 0
    assert download(site.official(), tmp_path).read_bytes() == CONTENT
    assert "range" not in site.asked[0]
    assert site.asked[1]["range"] == f"bytes={done}-"
    assert names(tmp_path) == ["yamnet.h5"]


def test_a_server_that_ignores_ranges_starts_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "yamnet.h5.part").write_bytes(CONTENT[:5000])
    site.knows_range = False
    assert download(site.official(), tmp_path).read_bytes() == CONTENT
    assert "range" in site.asked[0]


def test_a_whole_part_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "yamnet.h5.part").write_bytes(CONTENT)
    assert download(site.official(), tmp_path).read_bytes() == CONTENT
    assert site.asked == []


@pytest.mark.parametrize("part", [b"", b"other bytes", b"x" * len(CONTENT), b"x" * 400_000])
def test_wrong_bytes_are_thrown_away(site: Site, tmp_path: Path, part: bytes) -> None:
    if part:
        (tmp_path / "yamnet.h5.part").write_bytes(part)
    official = site.official() if part else site.official(sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"SHA-256 differs.*run again"):
        download(official, tmp_path)
    assert names(tmp_path) == []
    assert download(site.official(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<html>Sign in to the guests' network</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"", "it is empty"),
    ],
)
def test_what_came_instead_is_named(site: Site, tmp_path: Path, content: bytes, what: str) -> None:
    site.content = content
    with pytest.raises(WeightsError, match=rf"\(SHA-256 differs: {what}.*\); the download was"):
        download(site.official(), tmp_path)
    assert names(tmp_path) == []


def test_processes_that_want_one_file_fetch_it_once(site: Site, tmp_path: Path) -> None:
    site.takes_s = 0.2
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: download(site.official(), tmp_path), range(3)))
    assert found == [tmp_path / "yamnet.h5"] * 3
    assert found[0].read_bytes() == CONTENT
    assert len(site.asked) == 1
    assert names(tmp_path) == ["yamnet.h5"]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_pointer_that_is_given_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0e08\nsize 1\n")
    for call in (peek, prepare):
        with pytest.raises(WeightsError, match=rf"{name} is a Git LFS pointer.*: fetch the file"):
            call(BUNDLES["ced_tiny"], path)


def test_more_bytes_than_published(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT * 5
    with pytest.raises(WeightsError, match="more bytes than were published"):
        download(site.official(), tmp_path)
    assert "yamnet.h5" not in names(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT)
    site.content = CONTENT
    assert download(site.official(), tmp_path).read_bytes() == CONTENT


def test_fewer_bytes_without_a_word(site: Site, tmp_path: Path) -> None:
    site.breaks_after, site.says_length = 1000, False
    with pytest.raises(WeightsError):
        download(site.official(), tmp_path)
    assert "yamnet.h5" not in names(tmp_path)


@pytest.mark.parametrize("status", [403, 404, 416, 500])
def test_http_errors_are_one_line_with_two_ways_out(
    site: Site, tmp_path: Path, status: int
) -> None:
    site.status = status
    with pytest.raises(WeightsError) as caught:
        download(site.official(), tmp_path)
    text = str(caught.value)
    assert str(status) in text
    assert "\n" not in text
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_publisher_may_name_another_host_for_each_download(
    site: Site, tmp_path: Path, status: int
) -> None:
    site.status, site.moved_to = status, site.url.replace("yamnet.h5", "moved")
    half = tmp_path / "yamnet.h5.part"
    half.write_bytes(CONTENT[: len(CONTENT) // 2])
    assert download(site.official(), tmp_path).read_bytes() == CONTENT
    assert site.asked[1]["range"] == f"bytes={len(CONTENT) // 2}-"


def test_redirects_leave_https_nowhere_and_have_an_end(site: Site, tmp_path: Path) -> None:
    site.status, site.moved_to = 302, "http://elsewhere.invalid/yamnet.h5"
    with pytest.raises(WeightsError, match="only https"):
        download(site.official(), tmp_path)
    site.moved_to = site.url
    with pytest.raises(WeightsError, match="redirect"):
        download(site.official(), tmp_path)
    assert names(tmp_path) == []


def test_a_size_that_no_publisher_states(site: Site, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    official = site.official(size_bytes=0)
    (tmp_path / "yamnet.h5.part").write_bytes(CONTENT[:100])
    path = download(official, tmp_path, progress=lambda *now: said.append(now))
    assert path.read_bytes() == CONTENT
    assert said[-1] == (len(CONTENT), len(CONTENT))
    # Nor does the server: a size that is not known is not that of what is here.
    site.says_length = False
    again = download(official, tmp_path / "again", progress=lambda *now: said.append(now))
    assert again.read_bytes() == CONTENT
    assert said[-1] == (len(CONTENT), 0)
    site.says_length = True
    site.asked.clear()
    path.rename(tmp_path / "yamnet.h5.part")  # whole, but the process ended before it was named
    assert download(official, tmp_path).read_bytes() == CONTENT
    assert not site.asked
    site.content = b"x" * 10
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        download(site.official(size_bytes=0, file_name="other.h5"), tmp_path)


@pytest.mark.parametrize("url", ["http://elsewhere.invalid/yamnet.h5", "ftp://a.invalid/x"])
def test_nothing_is_fetched_but_over_https(site: Site, tmp_path: Path, url: str) -> None:
    with pytest.raises(WeightsError, match="only https"):
        download(site.official(url=url), tmp_path)
    assert names(tmp_path) == []


def test_official_weights_have_a_safe_address_and_a_digest() -> None:
    official = [bundle.official for bundle in BUNDLES.values() if bundle.official]
    assert official
    for weights in official:
        assert weights.url.startswith("https://")
        assert re.fullmatch("[0-9a-f]{64}", weights.sha256)
        assert weights.size_bytes > 0 or weights.url.startswith("https://huggingface.co/")


def test_a_part_that_cannot_be_resumed_does_not_stay(site: Site, tmp_path: Path) -> None:
    (tmp_path / "yamnet.h5.part").write_bytes(b"x")
    site.status = 416
    with pytest.raises(WeightsError, match="416"):
        download(site.official(), tmp_path)
    assert names(tmp_path) == []


def test_no_network_names_both_ways_out(site: Site, tmp_path: Path) -> None:
    refused = site.official(url="http://127.0.0.1:9/yamnet.h5")
    with pytest.raises(WeightsError) as caught:
        download(refused, tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    for part in (refused.url, "--weights", "AUDIOSET_WEIGHTS", "connect this machine"):
        assert part in text


def test_a_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "folder"
    message = rf"the cache {folder} cannot be written \(Not a directory\); set XDG_CACHE_HOME"
    with pytest.raises(WeightsError, match=message):
        download(site.official(), folder)
    assert site.asked == []


def test_a_full_disk_is_no_mistake_of_the_persons(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("audioset_core.weights.locate._fetch", full)
    with pytest.raises(WeightsError, match="No space left on device") as caught:
        download(site.official(), tmp_path)
    assert "XDG_CACHE_HOME" not in str(caught.value)


def test_where_nobody_knows_the_home_folder_the_way_out_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AUDIOSET_CACHE", raising=False)
    monkeypatch.setattr(
        "platformdirs.user_cache_path", lambda name: Path("~/.cache").expanduser().relative_to("/")
    )
    with pytest.raises(WeightsError, match=r"is not a full path; set XDG_CACHE_HOME to one"):
        cache_dir()


def test_prepare_downloads_then_converts(
    site: Site, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.content = (assets / "weights" / "yamnet.h5").read_bytes()
    monkeypatch.delenv("AUDIOSET_ASSETS", raising=False)
    official = site.official(
        size_bytes=len(site.content), sha256=hashlib.sha256(site.content).hexdigest()
    )
    bundle = replace(YAMNET, official=official)
    assert peek(bundle) is None
    ready = prepare(bundle)
    assert ready.source_sha256 == official.sha256
    assert peek(bundle) == ready
    assert prepare(bundle) == ready
    assert len(site.asked) == 1
    assert convert(assets / "weights" / "yamnet.h5", tmp_path / "x")["version"] == ready.version


def test_unreadable_weights(assets: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = tmp_path / "yamnet.h5"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(WeightsError):
        prepare(YAMNET, path)


def test_without_a_network_the_model_s_own_variable_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AUDIOSET_ASSETS", raising=False)
    official = replace(BUNDLES["mn10"].official, url="http://127.0.0.1:9/mn10.pt")  # type: ignore[type-var]
    with pytest.raises(WeightsError, match="--weights or AUDIOSET_WEIGHTS_MN10;"):
        prepare(replace(BUNDLES["mn10"], official=official))
