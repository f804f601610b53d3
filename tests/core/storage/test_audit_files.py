"""A result file against its promise, and what lies in the folders."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audioset_core.audio.resample import resampled
from audioset_core.features.config import VGGISH, YAMNET, FrontendConfig
from audioset_core.models.registry import BUNDLES, find_bundle
from audioset_core.storage import score_file_check as audit_files
from audioset_core.storage.atomic_files import write_atomically
from audioset_core.storage.score_file_check import (
    Fault,
    Promise,
    StoredFile,
    check_file,
    fitting_patches,
    is_place_of,
    stored_files,
)
from audioset_core.storage.score_files import npy_bytes, scores_path

CLIP = "ab" + "0" * 62
N_HEADER_BYTES = 128


@pytest.fixture
def stored(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Promise]:
    """A file as a labelling run writes it, and what its row says."""
    return _store(tmp_path, rng.standard_normal((20, 5)).astype(np.float16))


def _store(home: Path, array: np.ndarray) -> tuple[Path, Promise]:  # type: ignore[type-arg]
    data = npy_bytes(array)
    digest = hashlib.sha256(data).hexdigest()
    path = home / scores_path("tiny", CLIP, digest)
    write_atomically(path, data)
    return path, Promise(digest, len(array), str(array.dtype), array.shape[1])


def _flip(path: Path, at_byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[at_byte] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("is_deep", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("n_patches", [0, 1, 700])
def test_a_good_file(tmp_path: Path, is_deep: bool, dtype: type, n_patches: int) -> None:
    path, promise = _store(tmp_path, np.ones((n_patches, 521), dtype))
    found = check_file(path, promise, is_deep=is_deep)
    assert (found.fault, found.reason) == (None, "")
    assert (found.n_patches, found.dtype) == (n_patches, np.dtype(dtype).name)
    assert found.sha256 == (promise.sha256 if is_deep else None)


def test_a_flipped_bit_of_the_header_is_seen_at_once(stored: tuple[Path, Promise]) -> None:
    path, promise = stored
    good = path.read_bytes()
    # Magic, version, length, description: every bit of them (the rest is padding).
    for at in range(70):
        for bit in range(8):
            data = bytearray(good)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            assert check_file(path, promise, is_deep=False).fault is Fault.DAMAGED, (at, bit)


def test_a_flipped_bit_of_the_data_is_seen_by_the_deep_look_only(
    stored: tuple[Path, Promise],
) -> None:
    path, promise = stored
    _flip(path, N_HEADER_BYTES + 7)
    assert check_file(path, promise, is_deep=False).fault is None
    found = check_file(path, promise, is_deep=True)
    assert found.fault is Fault.DAMAGED
    assert "SHA-256" in found.reason


@pytest.mark.parametrize("n_bytes", [0, 5, N_HEADER_BYTES, N_HEADER_BYTES + 199])
def test_a_short_file(stored: tuple[Path, Promise], n_bytes: int) -> None:
    path, promise = stored
    os.truncate(path, n_bytes)
    assert check_file(path, promise, is_deep=False).fault is Fault.DAMAGED


def test_a_long_file_names_both_sizes(stored: tuple[Path, Promise]) -> None:
    path, promise = stored
    with path.open("ab") as file:
        file.write(b"more")
    found = check_file(path, promise, is_deep=False)
    assert found.fault is Fault.DAMAGED
    assert found.reason == "332 bytes long, its header says 328"


def test_a_missing_file(stored: tuple[Path, Promise]) -> None:
    path, promise = stored
    path.unlink()
    assert check_file(path, promise, is_deep=True).fault is Fault.MISSING


def test_what_is_no_file(stored: tuple[Path, Promise]) -> None:
    path, promise = stored
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever
    assert check_file(path, promise, is_deep=True).fault is Fault.DAMAGED


def test_a_file_that_cannot_be_read_is_not_called_damaged(
    stored: tuple[Path, Promise], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path, promise = stored
    monkeypatch.setattr(audit_files, "read_scores", refuse)
    found = check_file(path, promise, is_deep=False)
    assert (found.fault, found.reason) == (Fault.UNREADABLE, "Input/output error")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("n_patches", 21, "patches 21, not 20"),
        ("n_patches", None, "patches None, not 20"),
        ("dtype", "float32", "type float32, not float16"),
        ("sha256", "0" * 64, f"SHA-256 {'0' * 64}, not "),
        ("sha256", None, "SHA-256 None, not "),
    ],
)
@pytest.mark.parametrize("is_deep", [False, True])
def test_a_wrong_promise_is_told_from_a_damaged_file(
    stored: tuple[Path, Promise], field: str, value: object, said: str, is_deep: bool
) -> None:
    path, promise = stored
    found = check_file(path, replace(promise, **{field: value}), is_deep=is_deep)
    assert found.fault is Fault.PROMISE
    assert said in found.reason
    assert (found.n_patches, found.dtype, found.sha256) == (20, "float16", promise.sha256)


def test_a_promise_whose_checksum_agrees_with_the_name_only(stored: tuple[Path, Promise]) -> None:
    path, promise = stored
    assert promise.sha256 is not None
    wrong = replace(promise, sha256=promise.sha256[:16] + "0" * 48)
    assert check_file(path, wrong, is_deep=False).fault is None
    assert check_file(path, wrong, is_deep=True).fault is Fault.PROMISE


def test_another_models_file(stored: tuple[Path, Promise]) -> None:
    path, promise = stored
    found = check_file(path, replace(promise, n_columns=6), is_deep=False)
    assert (found.fault, found.reason) == (Fault.DAMAGED, "5 columns, the model has 6")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    array = np.zeros((600, 521), np.float16)
    array[599, 520] = value
    path, promise = _store(tmp_path, array)
    assert check_file(path, promise, is_deep=False).fault is None
    assert check_file(path, promise, is_deep=True).reason == "not all values are finite"


@pytest.mark.parametrize(
    "path",
    [
        f"scores/tiny/ab/{CLIP}-{'1' * 16}.npy",
        f"scores/other/ab/{CLIP}-{'1' * 16}.npy",
        f"embeddings/tiny/ab/{CLIP}-{'1' * 16}.npy",
        f"scores/tiny/ac/{CLIP}-{'1' * 16}.npy",
        f"scores/tiny/ab/{'ab' + '1' * 62}-{'1' * 16}.npy",
        f"/scores/tiny/ab/{CLIP}-{'1' * 16}.npy",
        f"scores/tiny/ab/../ab/{CLIP}-{'1' * 16}.npy",
        "../../etc/passwd",
        "",
    ],
)
def test_only_one_place_is_a_clips(path: str) -> None:
    is_first = path == f"scores/tiny/ab/{CLIP}-{'1' * 16}.npy"
    assert is_place_of(path, "scores", "tiny", CLIP) is is_first


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("config", [bundle.frontend for bundle in BUNDLES.values()])
def test_what_the_resampler_gives_always_fits(
    config: FrontendConfig, rate_hz: int, rng: np.random.Generator
) -> None:
    lengths = [1, 100, rate_hz, *rng.integers(1, 4 * rate_hz, 12).tolist()]
    # Around the length where one more patch begins.
    border = config.patch_samples * rate_hz // config.sample_rate_hz
    lengths += range(border - 2, border + 3)
    for n_samples in lengths:
        blocks = iter([np.zeros(n_samples, np.float32)])
        n_resampled = sum(map(len, resampled(blocks, rate_hz, config.sample_rate_hz)))
        fitting = fitting_patches(config, n_samples, rate_hz)
        assert config.n_rows(n_resampled) in fitting
        assert len(fitting) <= 2


def test_framing_decides_what_fits() -> None:
    ten_s = 160_000
    assert list(fitting_patches(YAMNET, ten_s, 16_000)) == [20]
    assert list(fitting_patches(VGGISH, ten_s, 16_000)) == [10]
    assert list(fitting_patches(VGGISH, 15_599, 16_000)) == [0]
    seed = find_bundle("yamnet").framed(patch_hop_s=None, framing="seed")
    assert list(fitting_patches(seed, 15_599, 16_000)) == [0]
    assert list(fitting_patches(seed, ten_s, 16_000)) == [10]
    padded = find_bundle("vggish").framed(patch_hop_s=None, framing="pad")
    assert list(fitting_patches(padded, 1, 16_000)) == [1]


def test_files_of_every_sort(tmp_path: Path, stored: tuple[Path, Promise]) -> None:
    path, _ = stored
    os.utime(path, (1, 5))
    temporary = path.with_name(f".{'a' * 16}.tmp")
    temporary.touch()
    strangers = [path.with_name(name) for name in ("notes.txt", f"{CLIP}.npy", ".tmp")]
    for stranger in strangers:
        stranger.touch()
    link = path.with_name(f"{CLIP}-{'2' * 16}.npy")
    link.symlink_to(path)
    (tmp_path / "scores" / "readme").touch()  # not in a folder of ours
    found = list(stored_files(tmp_path))
    ours = {file.path: file for file in found if isinstance(file, StoredFile)}
    relative = path.relative_to(tmp_path).as_posix()
    assert ours.keys() == {relative, temporary.relative_to(tmp_path).as_posix()}
    assert ours[relative] == StoredFile(relative, 5.0, CLIP, False)
    (other,) = (file for file in ours.values() if file.path != relative)
    assert (other.clip_sha256, other.is_temporary) == (None, True)
    assert {file for file in found if isinstance(file, str)} == {
        stranger.relative_to(tmp_path).as_posix() for stranger in (*strangers, link)
    }


def test_no_folders_no_files(tmp_path: Path) -> None:
    assert list(stored_files(tmp_path)) == []
