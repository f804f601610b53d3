"""Objects are labelled as files are: once, whatever happens, and no secret is kept.

Public reports behind the cases: obstore 429 and multistore 40, 116 (one odd key spoils a listing),
arrow-rs 5882 (an answer that breaks off), s3p 53 (special characters in keys).
"""

from __future__ import annotations

import io
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import soundfile
from pydantic import SecretStr

from audioset_core.audio.decoders import DecodeOptions
from audioset_core.errors import UserError
from audioset_core.object_storage.spool import spool
from audioset_core.previews.snippets import read_snippet
from db.reports.collection import places
from flows.ingest_new import ingest_new
from flows.label_audio import label_audio
from flows.prefect_server.serve import _checked_roots
from flows.run_options import WatchOptions
from flows.run_report.summary import Summary
from tasks.labelling.options import LabelOptions
from tests.flows.build import Lab, command, processes, run_command, sound, write_clip
from tests.objects import KEY_ID, SECRET, Fault, Objects, cut, status

pytestmark = pytest.mark.slow

Audioset = Callable[..., Any]


def _wav(seed: int, duration_s: float = 2.0) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, sound(seed, duration_s), 16_000, format="WAV")
    return written.getvalue()


def _ingest(lab: Lab, root: str, settle_s: float = 0.0) -> Summary:
    return ingest_new(
        roots=[root], home=lab.home, options=LabelOptions(weights=lab.weights),
        watch=WatchOptions(settle_s=settle_s), database=SecretStr(lab.url),
    )  # fmt: skip


def _reasons(lab: Lab) -> dict[str, str | None]:
    return {name: reason for name, (_, reason) in lab.sources().items()}


def _holds_secret(folder: Path) -> list[str]:
    secrets = [word.encode() for word in (KEY_ID, SECRET)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if any(word in path.read_bytes() for word in secrets)]


def test_objects_are_labelled_as_files_and_each_is_read_once(
    lab: Lab, objects: Objects, tmp_path: Path
) -> None:
    audio = tmp_path / "audio"
    for seed in range(12):
        write_clip(audio / f"{seed % 3}" / f"{seed}.wav", seed, 1.0 + seed)
    write_clip(audio / "0" / "long.flac", 50, 420.0, format="FLAC")  # more than is kept in memory
    (audio / "bad.wav").write_text("not audio")
    (audio / "empty.wav").write_bytes(b"")
    lab.label(audio)
    of_files, failed = lab.results(), _reasons(lab)
    for path in audio.rglob("*.*"):
        objects.put(f"as files/{path.relative_to(audio)}", path.read_bytes())
    other = Lab(tmp_path / "other", f"sqlite:///{tmp_path / 'other.db'}", lab.weights)
    objects.forget()
    done = other.label("s3://recordings/as files")
    assert (done.n_labelled, done.n_failed) == (13, 2)
    assert (other.results(), _reasons(other)) == (of_files, failed)
    gets = {path: n for (method, path), n in objects.by_path.items() if "list-type" not in path}
    assert set(gets.values()) <= {1, 2}
    assert {path.rpartition("/")[2] for path, n in gets.items() if n == 2} <= {"empty.wav"}
    objects.forget()
    again = other.label("s3://recordings/as files/")
    assert (again.n_known, again.n_failed_before, again.n_labelled) == (13, 2, 0)
    assert set(objects.counts) == {"LIST"}
    other.check()
    assert spool().used_bytes == 0
    other.engine.dispose()


def test_a_watched_bucket(lab: Lab, objects: Objects) -> None:
    root = "s3://recordings/watched"
    assert _checked_roots([f"{root}/", root]) == [root]
    for wrong, message in (
        ("s3://recordings/watched/*", "a pattern cannot be watched"),
        ("https://host/folder", "https has no folders"),
        ("s3://no-such-bucket/a", "there is no such bucket"),
    ):
        with pytest.raises(UserError, match=message):
            _checked_roots([wrong])
    for seed in range(3):
        objects.put(f"watched/{seed}.wav", _wav(seed))
    assert _ingest(lab, root, settle_s=3600).n_waiting == 3
    assert _ingest(lab, root).n_labelled == 3
    objects.delete("watched/0.wav")
    objects.put("watched/1.wav", _wav(11))  # as large as before, and perhaps of the same second
    objects.put("watched/new/0.wav", _wav(0))
    second = _ingest(lab, root)
    counts = (second.n_found, second.n_labelled, second.n_missing, second.n_moved)
    assert counts == (3, 1, 1, 1)
    objects.put("watched/0.wav", _wav(0))
    third = _ingest(lab, root)
    assert (third.n_back, third.n_labelled) in ((1, 0), (0, 0))
    assert lab.count("sources", "status = 'missing'") == 0
    lab.check()

    objects.faults = lambda *_: status(403, "AccessDenied")
    with pytest.raises(UserError, match="s3://recordings/watched: access is denied"):
        _ingest(lab, root)
    assert lab.count("sources", "status = 'missing'") == 0


def test_an_object_that_changes_or_cannot_be_read_fails_and_is_tried_again(
    lab: Lab, objects: Objects
) -> None:
    names = ("changes", "archived", "vanishes", "breaks off", "fine")
    for seed, name in enumerate(names):
        objects.put(f"trouble/{name}.wav", _wav(seed))
    lasting = {"archived": status(403, "InvalidObjectState"), "breaks%20off": cut(100)}

    def faults(method: str, path: str, n_before: int) -> Fault | None:
        if method == "GET" and "changes" in path and not n_before:
            objects.put("trouble/changes.wav", _wav(9, 3.0))
        if method == "GET" and "vanishes" in path:
            objects.delete("trouble/vanishes.wav")
        return next((fault for name, fault in lasting.items() if name in path), None)

    objects.faults = faults
    done = lab.label("s3://recordings/trouble")
    assert done.n_labelled == 1
    assert _reasons(lab) == {
        "changes.wav": "changed while being read", "archived.wav": "unreadable",
        "vanishes.wav": "vanished", "breaks off.wav": "unreadable", "fine.wav": None,
    }  # fmt: skip
    details = dict(lab.rows("SELECT path_text, reason_detail FROM sources"))
    told = details["s3://recordings/trouble/archived.wav"]
    assert told == "the object is archived: restore it first"
    objects.forget()
    assert lab.label("s3://recordings/trouble").n_labelled == 3
    assert lab.count("sources", "status = 'missing'") == 1
    lab.check()


def test_a_token_that_expires_leaves_the_rest_to_the_next_run(lab: Lab, objects: Objects) -> None:
    for seed in range(20):
        objects.put(f"token/{seed:02}.wav", _wav(seed))
    n_gets = iter(range(1_000))
    expired = status(400, "ExpiredToken")
    objects.faults = lambda method, path, _: (
        expired if method == "GET" and "list-type" not in path and next(n_gets) >= 8 else None
    )
    done = lab.label("s3://recordings/token")
    assert (done.n_labelled, done.n_failed) == (8, 12)
    told = {detail for _, _, detail in done.shown_failures}
    assert told == {"the credentials have expired: renew them, and run again"}
    objects.forget()
    assert lab.label("s3://recordings/token").n_labelled == 12
    lab.check()


def test_manifests_and_patterns_name_objects(lab: Lab, objects: Objects, tmp_path: Path) -> None:
    for seed in range(4):
        objects.put(f"listed/{seed}.raw.bin", _wav(seed))
    write_clip(tmp_path / "local.wav", 5)
    manifest = tmp_path / "list.csv"
    rows = ("s3://recordings/listed/0.raw.bin,first", "local.wav,second",
            "s3://recordings/listed/none.wav,third")  # fmt: skip
    manifest.write_text("\n".join(("path,id", *rows)))
    done = lab.label("s3://recordings/listed/[12].raw*", manifest=manifest)
    assert (done.n_labelled, done.n_failed) == (4, 1)
    found = lab.rows("SELECT user_id, reason FROM sources WHERE user_id IS NOT NULL")
    expected = {"first": None, "second": None, "third": "no such file"}
    assert {row[0]: row[1] for row in found} == expected


def test_what_was_labelled_is_heard_cut_shown_and_labelled_again(
    lab: Lab, objects: Objects, audioset: Audioset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = objects.put("later/one minute.wav", _wav(3, 60.0))
    assert lab.label("s3://recordings/later").n_labelled == 1
    home = ("--home", lab.home)
    shown = audioset("show", address, *home)
    assert shown.code == 0
    assert f"{address} (identified)" in shown.out
    clip = shown.out.split()[1]
    (place,) = places(lab.engine, clip)
    as_seen = (place.size_bytes, place.mtime_ns)
    piece = read_snippet(place.path, as_seen, 10.0, 12.0, 80, DecodeOptions(place.track))
    assert len(piece.log_mel) > 0
    top = lab.rows("SELECT n.mid FROM detections d JOIN nodes n ON n.id = d.node_id LIMIT 1")[0][0]
    cut_to = tmp_path / "cuts"
    done = audioset("clips", "export", "--under", top, cut_to, "--format", "wav", *home)
    assert done.code == 0, done.err
    assert list(cut_to.rglob("*.wav"))
    for source, is_meant in (("s3://recordings/later/", True), ("s3://recordings/late", False)):
        asked = audioset("query", "--under", top, "--source", source, *home)
        assert (address in asked.out) is is_meant
    # A damaged result is made again from the object.
    monkeypatch.setenv("AUDIOSET_WEIGHTS", str(lab.weights))
    before = lab.results()
    scores = next((lab.home / "scores").rglob("*.npy"))
    scores.write_bytes(b"spoilt")
    repaired = audioset("verify", "--deep", "--repair", *home)
    assert repaired.code in (0, 1), repaired.err
    assert lab.results() == before
    # The object changed: what is heard would not be what was labelled.
    objects.put("later/one minute.wav", _wav(4, 61.0))
    gone = audioset("clips", "export", "--under", top, tmp_path / "again", *home)
    assert "has changed since it was labelled" in gone.err + gone.out


def test_no_flow_stores_a_secret_of_an_address(lab: Lab) -> None:
    for address in ("s3://ann:geheim@recordings/a", "https://host/a.wav?sig=geheim"):
        with pytest.raises(UserError) as refused:
            label_audio(
                paths=[address], home=lab.home, options=LabelOptions(weights=lab.weights),
                database=SecretStr(lab.url),
            )  # fmt: skip
        assert "geheim" not in str(refused.value)
    assert lab.count("runs") == 0


N_OBJECTS = 1_000


def _n_done(home: Path) -> int:
    try:
        with sqlite3.connect(f"file:{home}/labels.db?mode=ro", uri=True, timeout=5) as conn:
            row = conn.execute("SELECT count(*) FROM labellings WHERE status = 'done'").fetchone()
        conn.close()
    except sqlite3.OperationalError:
        return 0
    return int(row[0])


@pytest.mark.server
def test_a_run_over_many_objects_is_killed_and_goes_on(
    objects: Objects, environment: Mapping[str, str], tmp_path: Path
) -> None:
    for seed in range(N_OBJECTS):
        objects.put(f"many/{seed % 7}/{seed:04}.wav", _wav(seed, 0.3))
    objects.forget()
    home, place = tmp_path / "home", tmp_path / "spool"
    place.mkdir()
    own = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
    env = {**own, **objects.environment, "AUDIOSET_SPOOL": str(place)}
    arguments = ("label", "s3://recordings/many", "--model", "pocket", "--home", home)
    slowly = "import tasks.persist as p; p._BATCH = 50"
    with processes(env, tmp_path) as run:
        process = run(command(*arguments, setup=slowly))
        while not 100 < _n_done(home) < N_OBJECTS:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.kill()
        said = b"".join(process.communicate())
    n_before = _n_done(home)
    assert 0 < n_before < N_OBJECTS
    assert list(place.iterdir()) == []
    done = run_command(*arguments, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert f"labelled now\t{N_OBJECTS - n_before:,}" in done.stdout.decode()
    with sqlite3.connect(home / "labels.db") as conn:
        rows = conn.execute(
            "SELECT s.path_text, count(l.id) FROM sources s JOIN labellings l "
            "ON l.clip_id = s.clip_id AND l.status = 'done' GROUP BY s.id"
        ).fetchall()
        n_all = conn.execute("SELECT count(*) FROM labellings").fetchone()[0]
    conn.close()
    assert (len(rows), n_all, Counter(n for _, n in rows)) == (N_OBJECTS, N_OBJECTS, {1: N_OBJECTS})
    n_files = sum(1 for _ in (home / "scores").rglob("*.npy"))
    assert n_files == N_OBJECTS
    # What was done before the kill was not read again.
    read = Counter(n for (method, path), n in objects.by_path.items() if path.endswith(".wav"))
    assert read[2] <= N_OBJECTS - n_before
    assert set(read) <= {1, 2}
    assert list(place.iterdir()) == []
    said += done.stdout + done.stderr
    assert not any(word.encode() in said for word in (KEY_ID, SECRET))
    assert _holds_secret(tmp_path) == []
    assert (home / "prefect.db").stat().st_size > 0
    shutil.rmtree(home)


def test_a_run_that_waits_for_a_dead_server_ends_within_seconds(
    objects: Objects, environment: Mapping[str, str], tmp_path: Path
) -> None:
    objects.put("stalled/a.wav", _wav(1))
    waits = cut(100, pause_s=60)
    objects.faults = lambda method, path, _: waits if path.endswith("a.wav") else None
    arguments = ("label", "s3://recordings/stalled/", "--model", "pocket", "--home", tmp_path / "h")
    with processes({**environment, **objects.environment}, tmp_path) as run:
        process = run(command(*arguments, setup=_INTERRUPTIBLE))
        while not objects.counts["GET"]:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        began = time.monotonic()
        process.terminate()
        _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 143, stderr.decode()
    assert b"Traceback" not in stderr


_INTERRUPTIBLE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL)"
