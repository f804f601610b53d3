"""Listings, looks and bytes from a real server, and what becomes of its faults."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from audioset_core.audio.recording import Recording
from audioset_core.errors import AudioError, Reason, UserError
from audioset_core.inputs.walk import PassedOver, find_recordings, read_inputs
from audioset_core.object_storage import stores
from audioset_core.object_storage.spool import Spool
from audioset_core.object_storage.stores import fetch, listed, look_at, look_at_each
from tests.objects import KEY_ID, SECRET, Fault, Objects, cut, slow, status

pytestmark = pytest.mark.slow

DATA = os.urandom(3_000_000)


def _got(address: str, etag: str | None = None) -> bytes:
    with tempfile.TemporaryFile() as file:
        fetch(address.encode(), etag, file.fileno())
        file.seek(0)
        return file.read()


def _found(*paths: str) -> tuple[list[bytes], PassedOver]:
    passed_over = PassedOver()
    found = find_recordings(read_inputs(paths), passed_over)
    return [each.path for each in found], passed_over


@pytest.mark.parametrize(
    ("fault", "n_faults", "n_gets"),
    [
        (status(500), 2, 3),
        (status(503, "SlowDown"), 3, 4),
        (status(429), 1, 2),
        (cut(0), 1, 2),
        (cut(1_000_000), 2, 3),
        (slow(0.05), 1, 1),
    ],
)
def test_a_fault_that_passes_costs_requests_and_no_byte(
    objects: Objects, fault: Fault, n_faults: int, n_gets: int
) -> None:
    address = objects.put("faults/a.wav", DATA)
    objects.faults = lambda method, _, n: fault if method == "GET" and n < n_faults else None
    assert _got(address) == DATA
    assert objects.counts["GET"] == n_gets


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        (status(403, "AccessDenied"), Reason.UNREADABLE, "access is denied"),
        (status(403), Reason.UNREADABLE, "access is denied"),
        (status(403, "InvalidAccessKeyId"), Reason.UNREADABLE, "the access key is not known"),
        (status(403, "SignatureDoesNotMatch"), Reason.UNREADABLE, "the secret key is wrong"),
        (status(400, "ExpiredToken"), Reason.UNREADABLE, "the credentials have expired"),
        (status(403, "RequestTimeTooSkewed"), Reason.UNREADABLE, "the clock of this machine"),
        (status(403, "InvalidObjectState"), Reason.UNREADABLE, "archived: restore it first"),
        (status(404, "NoSuchKey"), Reason.VANISHED, "it was listed, but no longer exists"),
        (status(404, "NoSuchBucket"), Reason.UNREADABLE, "there is no such bucket"),
        (status(301, "PermanentRedirect"), Reason.UNREADABLE, "set AWS_REGION"),
        (status(418), Reason.UNREADABLE, "the server answers 418"),
        (cut(0), Reason.UNREADABLE, "broke off"),
        (cut(len(DATA), promised=len(DATA) + 10), Reason.UNREADABLE, ""),
    ],
)
def test_a_lasting_fault_is_a_reason_without_a_secret(
    objects: Objects, fault: Fault, reason: Reason, detail: str
) -> None:
    address = objects.put("faults/a.wav", DATA)
    objects.faults = lambda method, *_: fault if method == "GET" else None
    with pytest.raises(AudioError) as failed:
        _got(address)
    assert failed.value.reason is reason
    assert detail in failed.value.detail
    assert not any(word in str(failed.value) for word in (KEY_ID, SECRET, "http", "\n"))


def test_another_version_is_refused_also_in_the_middle(objects: Objects) -> None:
    address = objects.put("changed/a.wav", DATA)
    look = look_at(address.encode())
    assert look is not None
    assert (look.size_bytes, look.mtime_ns % 1_000_000_000) == (len(DATA), 0)
    assert _got(address, look.etag) == DATA

    def overwrite(method: str, _: str, n_before: int) -> Fault | None:
        if method != "GET" or n_before:
            return None
        fault = cut(1_000_000)
        return lambda *request: bool(objects.put("changed/a.wav", DATA[::-1])) and fault(*request)

    for etag in (None, look.etag):
        objects.put("changed/a.wav", DATA)
        objects.forget()
        objects.faults = overwrite
        with pytest.raises(AudioError, match="changed while being read: another version"):
            _got(address, etag)


def test_odd_keys_are_read_as_they_are(objects: Objects) -> None:
    names = ("a b", "ünï", "100%", "c%2Fd", "q?m", "h#sh", "plus+", "t~[x]*", "back\\slash", "e ")
    data = {objects.put(f"odd/{name}.wav", name.encode()): name.encode() for name in names}
    objects.put("odd/", b"")
    objects.put("odd/.hidden/a.wav", b"x")
    objects.put("odd/notes.txt", b"x")
    found, passed_over = _found("s3://recordings/odd")
    assert {os.fsdecode(path): _got(os.fsdecode(path)) for path in found} == data
    assert (passed_over.n_hidden, dict(passed_over.by_suffix)) == (1, {".txt": 1})
    literal = "s3://recordings/odd/t~[x]*.wav"
    assert _found(literal, "s3://recordings/odd/*[%]*")[0] == [
        literal.encode(), b"s3://recordings/odd/100%.wav", b"s3://recordings/odd/c%2Fd.wav",
    ]  # fmt: skip


def test_keys_that_cannot_be_asked_for_hide_their_folder_alone_and_are_told(
    objects: Objects,
) -> None:
    for key in ("a/1.wav", "b//2.wav", "b/3.wav", "b/c/4.wav", "d/../5.wav", "e/6.wav"):
        objects.put(f"strange/{key}", b"x")
    found, passed_over = _found("s3://recordings/strange")
    assert found == [b"s3://recordings/strange/a/1.wav", b"s3://recordings/strange/e/6.wav"]
    told = "a key in it has an empty name, '.', '..' or a control character"
    assert [text.partition(": ")[0] for text in passed_over.unlistable if told in text] == [
        "s3://recordings/strange/b", "s3://recordings/strange/d",
    ]  # fmt: skip
    objects.faults = lambda _, path, __: status(403) if "delimiter" in path else None
    with pytest.raises(UserError, match="s3://recordings/strange/: access is denied"):
        _found("s3://recordings/strange/")
    objects.forget()
    # What lies beside such a key is found once its own folder is named.
    assert _found("s3://recordings/strange/b/c")[0] == [b"s3://recordings/strange/b/c/4.wav"]
    with pytest.raises(UserError, match="s3://recordings/strange/b: a key in it has an empty name"):
        _found("s3://recordings/strange/b")
    with pytest.raises(UserError, match="copy the object to another key"):
        _found("s3://recordings/strange/b//2.wav")


def test_a_listing_costs_its_pages(objects: Objects) -> None:
    for number in range(1_050):
        objects.put(f"pages/{number:04}.wav", b"x")
    objects.forget()
    assert len(list(listed(b"s3://recordings/pages"))) == 1_050
    assert dict(objects.counts) == {"LIST": 2}
    objects.faults = lambda _, path, n: status(500) if "continuation" in path and n < 2 else None
    assert len(list(listed(b"s3://recordings/pages/"))) == 1_050


def test_looks_of_many_are_asked_at_once_and_errors_stay_apart(objects: Objects) -> None:
    there = [objects.put(f"looks/{n}.wav", b"x").encode() for n in range(20)]
    objects.faults = lambda _, path, __: status(403) if "/7.wav" in path else None
    looks = look_at_each([*there, b"s3://recordings/looks/none.wav"])
    assert isinstance(looks[7], AudioError)
    assert looks[-1] is None
    assert sum(isinstance(look, stores.Look) for look in looks) == 19


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://recordings/sight", "no object at or below .*; did you mean '.*/site'?"),
        ("s3://no-such-bucket/a", "s3://no-such-bucket/a: there is no such bucket"),
        ("s3://recordings/site/*.flac", "no object matches"),
        ("gs://bucket/a", "gs://bucket/a: there are no credentials in the environment"),
        ("az://container/a", "az://container/a: there are no credentials in the environment"),
        ("http://127.0.0.1:9/a.wav", "http://127.0.0.1:9/a.wav: no server answers"),
        ("https://nowhere.invalid/a.wav", "there is no such server, or no network"),
    ],
)
def test_a_person_s_mistake_is_one_line(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, message: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(stores._RETRY, "max_retries", 1)
    objects.put("site/a.wav", b"x")
    with pytest.raises(UserError, match=message) as mistake:
        _found(path)
    assert "\n" not in str(mistake.value)


def test_keys_of_a_profile_are_read_from_the_files_of_amazon(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    objects.put("site/a.wav", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AudioError, match="there are no credentials in the environment"):
        look_at(b"s3://recordings/site/a.wav")
    monkeypatch.setenv("AWS_PROFILE", "field")
    stores._store.cache_clear()
    with pytest.raises(AudioError, match="profile 'field' has no access key"):
        look_at(b"s3://recordings/site/a.wav")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = OTHER\naws_secret_access_key = other\n"
        f"[field]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile field]\nregion = eu-north-1\n")
    assert look_at(b"s3://recordings/site/a.wav") is not None


def test_https_reads_single_files(objects: Objects) -> None:
    objects.put("site/a b.wav", DATA)
    address = f"http://127.0.0.1:{objects.port}/recordings/site/a%20b.wav"
    assert _found(address)[0] == [address.encode()]
    assert _got(address) == DATA
    with pytest.raises(UserError, match="https has no folders"):
        _found(f"http://127.0.0.1:{objects.port}/recordings/nothing/")


def test_google_is_asked_alike(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{objects.port}")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    objects.put("google/a b.wav", DATA)
    address = "gs://recordings/google/a b.wav"
    assert _found("gs://recordings/google/")[0] == [address.encode()]
    look = look_at(address.encode())
    assert look is not None
    assert _got(address, look.etag) == DATA


def test_the_spool_is_bounded_and_leaves_nothing(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, most_bytes=2_500)
    wanted = []
    for number in range(4):
        address = objects.put(f"spool/{number}.wav", bytes([number]) * 1_000).encode()
        look = look_at(address)
        assert look is not None
        wanted.append((address, look.etag, look.size_bytes))
    objects.forget()
    spool.fetch_ahead(wanted)
    fds = [spool.open(*each) for each in wanted[:2]]
    assert [os.read(fd, 2_000) for fd in fds] == [b"\0" * 1_000, b"\1" * 1_000]
    assert (spool.used_bytes, dict(objects.counts)) == (2_000, {"GET": 2})
    spool.fetch_ahead(wanted[2:])
    assert objects.counts["GET"] == 2  # there is no room
    os.close(fds[0])
    spool.fetch_ahead(wanted[2:])
    spool.forget(wanted[2:])
    os.close(fds[1])
    huge = objects.put("spool/huge.wav", b"x" * 10_000).encode()
    os.close(spool.open(huge, None, 10_000))  # alone, it may be larger
    held = [spool.open(*wanted[0])]
    objects.forget()
    monkeypatch.setattr("audioset_core.object_storage.spool._PATIENCE_S", 0.3)
    held.append(spool.open(huge, None, 10_000))  # after a time, it comes beside others
    assert spool.used_bytes == 11_000
    for fd in held:
        os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_what_is_looked_at_again_is_fetched_once(objects: Objects, tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=10_000)
    address = objects.put("kept/0.wav", b"a" * 4_000).encode()
    objects.forget()
    first, second = spool.open(address), spool.open(address)
    assert os.read(first, 5_000) == os.read(second, 5_000) == b"a" * 4_000
    assert dict(objects.counts) == {"HEAD": 2, "GET": 1}
    os.close(first)
    os.close(second)
    assert spool.used_bytes == 4_000
    objects.put("kept/0.wav", b"b" * 4_000)
    os.close(newer := spool.open(address))
    assert objects.counts["GET"] == 2
    other = objects.put("kept/1.wav", b"c" * 9_000).encode()
    os.close(spool.open(other))  # which has the room of those
    assert (spool.used_bytes, newer > 0) == (0, True)


def test_a_recording_is_the_object_with_its_time(objects: Objects) -> None:
    address = objects.put("spool/text.wav", b"not sound").encode()
    look = look_at(address)
    assert look is not None
    with pytest.raises(AudioError, match="not audio"):
        Recording(address, version=(look.etag, look.size_bytes))
    objects.put("spool/text.wav", b"other")
    with pytest.raises(AudioError, match="another version since it was listed"):
        Recording(address, version=(look.etag, look.size_bytes))
    with pytest.raises(AudioError, match="5 bytes came, 9 were listed"):
        Recording(address, version=(None, 9))
