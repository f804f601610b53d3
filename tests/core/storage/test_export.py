from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import AudioError, UserError
from audioset_core.export_formats.seed_json import Prediction, write_seed_json
from audioset_core.models.classes import Category
from audioset_core.storage import atomic_files as durable
from audioset_core.storage.atomic_files import write_atomically, write_many
from audioset_core.storage.score_files import check_scores, npy_bytes, read_scores, scores_path

CATEGORIES = (Category(0, "/m/09x0r", "Speech"), Category(1, "/m/0bt9lr", "Dog"))
SHA = "ab" + "0" * 62
OTHER_SHA = "0123456789abcdef" * 4


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Records syncs and renames by file name, in order."""
    recorded: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def recording_fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        recorded.append(("fsync", "temp" if name.endswith(durable.TEMP_SUFFIX) else name))
        fsync(descriptor)

    def recording_replace(self: Path, target: Path) -> Path:
        recorded.append(("replace", target.name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "replace", recording_replace)
    return recorded


def fail_after(n_calls: int, error: OSError) -> Any:
    write = os.write
    count = 0

    def failing_write(descriptor: int, data: Any) -> int:
        nonlocal count
        count += 1
        if count > n_calls:
            raise error
        return write(descriptor, data[: max(1, len(data) // 2)])

    return failing_write


# --- .npy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4"])
@pytest.mark.parametrize("shape", [(0, 521), (3, 521)])
@pytest.mark.parametrize("mmap", [False, True])
def test_scores_come_back_as_written(
    tmp_path: Path, rng: np.random.Generator, dtype: Any, shape: tuple[int, int], mmap: bool
) -> None:
    array = rng.standard_normal(shape).astype(dtype)
    path = tmp_path / "a.npy"
    write_atomically(path, npy_bytes(np.asfortranarray(array)))
    for back in (read_scores(path, mmap=mmap), np.load(path, allow_pickle=False)):
        assert back.dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(back, array)


def test_npy_bytes_are_what_numpy_writes(rng: np.random.Generator) -> None:
    array = rng.standard_normal((7, 521)).astype(np.float16)
    buffer = io.BytesIO()
    np.save(buffer, array)
    assert npy_bytes(array) == buffer.getvalue()


def test_objects_are_never_pickled() -> None:
    with pytest.raises(ValueError, match="Python objects"):
        npy_bytes(np.array([{}], dtype=object))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 521), np.float64), "float64"),
        (np.zeros((2, 520), np.float32), r"\(2, 520\); expected \[n_patches, 521\]"),
        (np.zeros(521, np.float32), r"\(521,\)"),
        (np.full((2, 521), np.nan, np.float32), "finite"),
        (np.full((2, 521), np.inf, np.float16), "finite"),
    ],
)
def test_bad_scores_are_refused(array: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        check_scores(array, 521)


@pytest.mark.parametrize("n_patches", [0, 1])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_good_scores_pass(n_patches: int, dtype: Any) -> None:
    check_scores(np.zeros((n_patches, 521), dtype), 521)


GOOD = npy_bytes(np.arange(20, dtype=np.float32).reshape(4, 5))
OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([[{}]], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        GOOD[:-1],
        GOOD + b"\0",
        GOOD.replace(b"(4, 5)", b"(9, 5)"),
        GOOD.replace(b"False", b"True "),
        npy_bytes(np.zeros(3, np.float32)),
        npy_bytes(np.zeros((3, 3), np.int64)),
        OBJECTS.getvalue(),
        GOOD.replace(b"(4, 5), }            ", b"(999999999999999, 5)"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    for mmap in (False, True):
        with pytest.raises(AudioError, match=r"a\.npy"):
            read_scores(path, mmap=mmap)


@given(st.data())
def test_a_changed_byte_gives_scores_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    damaged = GOOD[:at] + data.draw(st.binary(min_size=1, max_size=3)) + GOOD[at + 1 :]
    path = tmp_path_factory.mktemp("scores") / "a.npy"
    path.write_bytes(damaged)
    with contextlib.suppress(AudioError):
        assert read_scores(path).ndim == 2


def test_scores_path() -> None:
    assert scores_path("yamnet-1.0_f16", SHA, OTHER_SHA) == PurePosixPath(
        f"scores/yamnet-1.0_f16/ab/{SHA}-0123456789abcdef.npy"
    )


@pytest.mark.parametrize(
    ("model", "clip", "npy"),
    [
        ("../etc", SHA, SHA),
        ("..", SHA, SHA),
        ("", SHA, SHA),
        ("a/b", SHA, SHA),
        ("Yamnet", SHA, SHA),
        ("yamnet\n", SHA, SHA),
        ("y" * 65, SHA, SHA),
        ("yamnet", SHA[:-1], SHA),
        ("yamnet", SHA.upper(), SHA),
        ("yamnet", "g" * 64, SHA),
        ("yamnet", SHA, SHA[:16]),
        ("yamnet", SHA, "../" + SHA[3:]),
        ("yamnet", SHA + "\n", SHA),
        ("yamnet", "٣" * 64, SHA),
    ],
)
def test_user_text_gets_into_no_path(model: str, clip: str, npy: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        scores_path(model, clip, npy)


# --- atomic writing -----------------------------------------------------------------------------


def test_order_is_write_sync_rename_sync_folder(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    write_many([(tmp_path / name, b"x") for name in "abc"])
    assert calls == [
        *[("fsync", "temp")] * 3,
        *[("replace", name) for name in "abc"],
        ("fsync", tmp_path.name),
    ]


def test_new_folders_are_synced_into_their_parents(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    write_atomically(tmp_path / "one" / "two" / "file", b"x")
    assert calls == [
        ("fsync", tmp_path.name),
        ("fsync", "one"),
        ("fsync", "temp"),
        ("replace", "file"),
        ("fsync", "two"),
    ]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_disk_may_have_no_sync_of_folders_but_none_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if code == errno.EINVAL else pytest.raises(OSError):
        write_atomically(tmp_path / "new" / "file", b"x")
    assert (tmp_path / "new" / "file").exists() == (code == errno.EINVAL)


def test_the_last_of_two_writes_to_one_file_wins(tmp_path: Path) -> None:
    write_many([(tmp_path / "a", b"1"), (tmp_path / "a", b"2")])
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"2")]


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", fail_after(100, OSError()))
    write_atomically(tmp_path / "a", bytes(range(256)))
    assert (tmp_path / "a").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("n_calls", [0, 1, 12])
def test_a_full_disk_leaves_the_old_files_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"old")
    monkeypatch.setattr(os, "write", fail_after(n_calls, OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full") as caught:
        write_many([(tmp_path / "a", b"n" * 1000), (tmp_path / "b", b"n" * 1000)])
    assert caught.value.errno == errno.ENOSPC
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old", "b": b"old"}


def test_a_write_of_nothing_does_not_loop_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(OSError, match="nothing"):
        write_atomically(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_sync_is_raised_and_never_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    n_syncs = 0

    def failing_fsync(descriptor: int) -> None:
        nonlocal n_syncs
        n_syncs += 1
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(OSError, match="lost"):
        write_atomically(tmp_path / "a", b"new")
    assert n_syncs == 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}


def test_a_failed_rename_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_many([(tmp_path / "b", b"new"), (tmp_path / "a", b"new")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_an_error_of_the_caller_leaves_no_temporary(tmp_path: Path) -> None:
    def items() -> Iterator[tuple[Path, bytes]]:
        yield tmp_path / "a", b"x"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_many(items())
    assert list(tmp_path.iterdir()) == []


# --- seed JSON ----------------------------------------------------------------------------------


def test_seed_json_has_the_exact_schema(tmp_path: Path) -> None:
    path = tmp_path / "audio_pred.json"
    write_seed_json(
        path,
        "yamnet",
        CATEGORIES,
        [
            Prediction("a/b", "scores/a.npy", 0.48, {"year": 1999, "note": None}),
            Prediction("é\udcff", "scores/b.npy", 0.96),
            Prediction("c", "scores/c.npy", 0.48, MappingProxyType({}), {"path": "x.wav"}),
        ],
    )
    assert json.loads(path.read_text()) == {
        "model": "yamnet",
        "model_categories": [
            {"name": "Speech", "id": "/m/09x0r"},
            {"name": "Dog", "id": "/m/0bt9lr"},
        ],
        "predictions": [
            {
                "id": "a/b",
                "category_tsr_fname": "scores/a.npy",
                "per_chunk_length": 0.48,
                "meta": {"year": 1999, "note": None},
            },
            {
                "id": "é\udcff",
                "category_tsr_fname": "scores/b.npy",
                "per_chunk_length": 0.96,
                "meta": {},
            },
            {
                "id": "c",
                "category_tsr_fname": "scores/c.npy",
                "per_chunk_length": 0.48,
                "meta": {},
                "path": "x.wav",
            },
        ],
    }


def test_seed_json_without_predictions_is_json(tmp_path: Path) -> None:
    write_seed_json(tmp_path / "a", "yamnet", (), ())
    assert json.loads((tmp_path / "a").read_text()) == {
        "model": "yamnet",
        "model_categories": [],
        "predictions": [],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", object()])
def test_what_is_no_json_is_named_and_leaves_the_old_file(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    good = [Prediction(str(i), "f", 0.48, {"x": "y" * 100}) for i in range(20_000)]
    with pytest.raises(UserError, match="clip 'bad': meta"):
        write_seed_json(path, "m", (), [*good, Prediction("bad", "f", 0.48, {"v": [value]})])
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "old"}


def test_a_circular_meta_is_refused(tmp_path: Path) -> None:
    meta: dict[str, Any] = {}
    meta["me"] = meta
    with pytest.raises(UserError, match="clip 'a'"):
        write_seed_json(tmp_path / "a", "m", (), [Prediction("a", "f", 0.48, meta)])


def test_extra_keys_overwrite_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'meta' is already taken"):
        write_seed_json(tmp_path / "a", "m", (), [Prediction("a", "f", 0.48, {}, {"meta": 1})])


@pytest.mark.slow
def test_seed_json_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    tracemalloc.start()
    write_seed_json(
        path,
        "m",
        CATEGORIES,
        (Prediction(str(i), f"scores/{i}.npy", 0.48, {"text": "x" * 200}) for i in range(60_000)),
    )
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 15_000_000
    assert peak_bytes < 8_000_000


def test_a_full_disk_leaves_the_old_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full") as caught:
        write_seed_json(path, "m", CATEGORIES, [])
    assert caught.value.filename == str(tmp_path)  # which disk is full
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "old"}
