"""What files say beside the sound, as independent programs write it, and as nobody should."""

from __future__ import annotations

import os
import random
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import category

import guano
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from metamoth import parsing as metamoth
from mutagen import aiff, apev2, flac, id3, mp4, oggopus, oggvorbis, wave
from wavinfo.wave_bext_reader import WavBextReader

from audioset_core.audio.decoders import open_decoder
from audioset_core.file_headers.field_notes import FieldNotes, field_notes
from audioset_core.file_headers.file_view import without_tags
from audioset_core.file_headers.signatures import kind_of
from audioset_core.file_headers.statements import MOST_STATEMENTS, statements
from audioset_core.records import Statement
from tests.torture.makers import chunk, pcm, wav, with_ffmpeg
from tests.torture.makers import id3 as id3_head

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TONE = np.sin(np.arange(16_000) / 20).astype(np.float32)[:, np.newaxis] / 4


def notes_of(path: Path) -> FieldNotes:
    """As the decoder finds them, FFmpeg's among them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        decoder = open_decoder(fd, path.stat().st_size)
        decoder.close()
        return decoder.info.notes or FieldNotes()
    finally:
        os.close(fd)


def said_in(path: Path, data: bytes) -> FieldNotes:
    """As the readers of headers find them."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        view = without_tags(fd, len(data))
        found = statements(view, kind_of(view.read(0, 256)), len(data))
        return field_notes(found, NOW) or FieldNotes()
    finally:
        os.close(fd)


def values(notes: FieldNotes) -> dict[str, str]:
    return {each.name: each.value for each in reversed(notes.statements)}


def doubts(notes: FieldNotes) -> dict[str, str]:
    return {each.name: each.doubt for each in notes.statements if each.doubt}


def is_clean(notes: FieldNotes) -> bool:
    """Whether PostgreSQL and a terminal take every text."""
    said = "".join(each.key + each.value for each in notes.statements)
    return not {category(each) for each in said} & {"Cc", "Cs", "Zl", "Zp"}


def bext(date: str, time: str, reference: int = 0, about: bytes = b"", by: bytes = b"F8") -> bytes:
    head = about.ljust(256, b"\0") + by.ljust(32, b"\0") + b"S1".ljust(32, b"\0")
    head += date.encode().ljust(10, b"\0") + time.encode().ljust(8, b"\0")
    return chunk(b"bext", head + struct.pack("<QH", reference, 1) + bytes(254) + b"A=PCM\r\n")


def wamd(*items: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HI", tag, len(value)) + value for tag, value in items)
    return chunk(b"wamd", struct.pack("<HIH", 0, 2, 1) + body)


def ixml(body: str, head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> bytes:
    return chunk(b"iXML", f"{head}<BWFXML>{body}</BWFXML>".encode())


def info(**items: bytes) -> bytes:
    body = b"".join(chunk(name.encode(), value) for name, value in items.items())
    return chunk(b"LIST", b"INFO" + body)


def comment(text: str) -> bytes:
    return info(ICMT=text.encode())


class TestWrittenByOthers:
    """Files of independent programs say what these programs were told."""

    def test_bext_by_ffmpeg(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        told = {
            "description": "Ufer, Süd", "originator": "ZOOM F3", "originator_reference": "S123",
            "origination_date": "2024-05-18", "origination_time": "19:30:00",
            "time_reference": str(19 * 3600 * 48_000), "coding_history": "A=PCM",
        }  # fmt: skip
        with_ffmpeg(path, TONE, 48_000, "pcm_s16le", "wav", tags=told, write_bext="1")
        notes = notes_of(path)
        assert (notes.start, notes.found_by) == ("2024-05-18T19:30:00", "bext OriginationDate")
        assert (notes.device, notes.serial) == ("ZOOM F3", "S123")
        assert values(notes)["bext Description"] == "Ufer, Süd"
        assert doubts(notes) == {
            "bext TimeReference": "bext OriginationDate says 2024-05-18T19:30:00"
        }
        data = path.read_bytes()
        at = data.index(b"bext")
        other = WavBextReader(data[at + 8 : at + 8 + 610], "utf-8")
        assert values(notes)["bext Originator"] == other.originator
        assert values(notes)["bext TimeReference"].split()[0] == str(other.time_reference)

    def test_guano_by_its_reference(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        path.write_bytes(wav(pcm(2_000)))
        file = guano.GuanoFile(str(path))
        file["GUANO|Version"] = 1.0
        zone = guano.tzoffset("-03:30")
        file["Timestamp"] = datetime(2024, 5, 18, 21, 30, 0, 250_000, tzinfo=zone)
        file["Loc Position"] = (48.1, -11.5)
        file["Make"], file["Model"], file["Serial"] = "Wildlife Acoustics", "SM4", "S4A1"
        file["Note"], file["WA|Song Meter|Prefix"] = "am Ufer\nzweite Zeile", "SM"
        file.write(make_backup=False)
        notes = notes_of(path)
        assert (notes.start, notes.found_by) == (
            "2024-05-18T21:30:00.250000-03:30", "GUANO Timestamp",
        )  # fmt: skip
        assert (notes.latitude_deg, notes.longitude_deg) == (48.1, -11.5)
        assert (notes.device, notes.serial) == ("Wildlife Acoustics SM4", "S4A1")
        assert values(notes)["GUANO Note"] == "am Ufer zweite Zeile"
        assert values(notes)["GUANO WA|Song Meter|Prefix"] == "SM"

    @pytest.mark.parametrize("version", [3, 4])
    def test_id3_by_mutagen(self, tmp_path: Path, version: int) -> None:
        tag = id3.ID3()
        tag.add(id3.TDRC(encoding=0, text="2024-05-18 19:30:00"))
        tag.add(id3.COMM(encoding=1, lang="eng", desc="", text="Rotkehlchen, Ufer Süd"))
        tag.add(id3.TXXX(encoding=3, desc="Site", text="Ö1"))
        tag.add(id3.APIC(encoding=0, mime="image/png", type=3, desc="", data=bytes(300_000)))
        if version == 3:
            tag.update_to_v23()
        for name, kind in (("a.mp3", "MP3"), ("b.wav", "WAV"), ("c.aiff", "AIFF")):
            path = tmp_path / name
            soundfile.write(path, np.tile(TONE, (3, 1)), 16_000, format=kind)
            if kind == "MP3":
                tag.save(path, v2_version=version)
            else:
                file: Any = wave.WAVE(path) if kind == "WAV" else aiff.AIFF(path)
                file.add_tags()
                for frame in tag.values():
                    file.tags.add(frame)
                file.save(v2_version=version)
            notes = notes_of(path)
            minute = "2024-05-18T19:30:00"
            assert (notes.start, notes.found_by) == (minute, "ID3 TDRC")
            assert values(notes)["ID3 COMM::eng"] == "Rotkehlchen, Ufer Süd"
            assert values(notes)["ID3 TXXX:Site"] == "Ö1"

    def test_vorbis_comments_by_mutagen(self, tmp_path: Path) -> None:
        told = {"recordingstart": "2024-05-18T19:30:00+1000", "SensorUid": "00015578",
                "comment": "Süd"}  # fmt: skip
        soundfile.write(tmp_path / "a.flac", TONE, 16_000)
        soundfile.write(tmp_path / "b.ogg", TONE, 16_000)
        soundfile.write(tmp_path / "c.opus", TONE, 16_000, format="OGG", subtype="OPUS")
        kinds: dict[str, Any] = {
            "a.flac": flac.FLAC, "b.ogg": oggvorbis.OggVorbis, "c.opus": oggopus.OggOpus
        }  # fmt: skip
        for name, kind in kinds.items():
            file = kind(tmp_path / name)
            file.update(told)
            file["metadata_block_picture"] = "A" * 200_000  # several pages
            file.save()
            notes = notes_of(tmp_path / name)
            assert notes.start == "2024-05-18T19:30:00+10:00"
            assert (notes.found_by, notes.serial) == ("Vorbis RecordingStart", "00015578")
            assert values(notes)["Vorbis comment"] == "Süd"
            assert not doubts(notes)

    def test_ape_tags_by_mutagen(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp3"
        soundfile.write(path, np.tile(TONE, (3, 1)), 16_000, format="MP3")
        tag = apev2.APEv2()
        tag["Record Date"], tag["Comment"] = "2024-05-18 19:30:00", "Süd"
        tag.save(path)
        notes = notes_of(path)
        assert (notes.found_by, values(notes)["APE Comment"]) == ("APE Record Date", "Süd")

    def test_containers(self, tmp_path: Path) -> None:
        """What FFmpeg and mutagen write into an MP4 is read by FFmpeg, which opens it once."""
        with_ffmpeg(tmp_path / "a.mp4", TONE, 16_000, "aac", "mp4")
        file = mp4.MP4(tmp_path / "a.mp4")
        file["\xa9cmt"], file["\xa9day"] = "Süd", "2024-05-18T19:30:00Z"
        file["covr"] = [mp4.MP4Cover(bytes(300_000))]
        file.save()
        notes = notes_of(tmp_path / "a.mp4")
        assert (notes.start, notes.found_by) == ("2024-05-18T19:30:00+00:00", "container date")
        assert values(notes)["container comment"] == "Süd"
        moment = {"creation_time": "2024-05-18T19:30:00.000000Z"}
        for name, form, codec in (("b.mp4", "mp4", "aac"), ("b.mkv", "matroska", "pcm_s16le")):
            with_ffmpeg(tmp_path / name, TONE, 16_000, codec, form, tags=moment)
            notes = notes_of(tmp_path / name)
            assert (notes.start, notes.found_by) == (
                "2024-05-18T19:30:00+00:00", "container creation_time",
            )  # fmt: skip

    @pytest.mark.parametrize(
        "said",
        [
            "19:22:55 14/12/2020 (UTC-5) by AudioMoth 24E144055DDD3203 at medium gain setting "
            "while battery state was 4.0V and temperature was 24.5C.",
            "10:00:00 15/05/2021 (UTC) by AudioMoth 249BC3055C02FE06 at low-medium gain while "
            "battery was less than 2.5V and temperature was -3.1C. Recording stopped due to switch "
            "position change.",
            "19:30:00 18/05/2018 (UTC+2) by AudioMoth 24E144055DDD3203 at gain setting 2 while "
            "battery state was 3.7V.",
        ],
    )
    def test_audiomoth_as_metamoth_reads_it(self, tmp_path: Path, said: str) -> None:
        text = f"Recorded at {said}"
        notes = said_in(tmp_path / "a.wav", wav(pcm(2_000), extra=comment(text)))
        readers = [getattr(metamoth, n) for n in dir(metamoth) if n.startswith("parse_comment_v")]
        other = next(filter(None, (_tried(reader, text) for reader in readers)))
        assert notes.start == other.datetime.replace(tzinfo=other.timezone).isoformat()
        assert notes.serial == other.audiomoth_id
        battery = values(notes)["AudioMoth battery"].removeprefix("less than ")
        assert battery == f"{other.battery_state_v}V"
        if hasattr(other, "temperature_c"):
            assert values(notes)["AudioMoth temperature"] == f"{other.temperature_c}C"


def _tried(reader: Any, text: str) -> Any:
    try:
        return reader(text)
    except metamoth.MessageFormatError:
        return None


# Inputs of public reports, with what is right.
REPORTS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "guano-py 17: an offset without colon, after a space": (
        chunk(b"guan", b"Timestamp: 2019-04-30 21:02:44+0100\nSpecies Manual ID:\n"),
        {"start": "2019-04-30T21:02:44+01:00", "found_by": "GUANO Timestamp"},
    ),
    "guano-py 21: seven digits of a second": (
        chunk(b"guan", b"GUANO|Version: 1.0\nTimestamp: 2021-06-13T22:14:59.1234567+02:00"),
        {"start": "2021-06-13T22:14:59.123456+02:00"},
    ),
    "emu 441: a space for the T": (
        chunk(b"guan", b"GUANO|Version: 1.0\nTimestamp: 2023-11-17 09:52:00+11:00"),
        {"start": "2023-11-17T09:52:00+11:00"},
    ),
    "opensoundscape 457: UTC-5, and a battery that is no number": (
        comment("Recorded at 19:22:55 14/12/2020 (UTC-5) by AudioMoth 249BC3055C02FE06 at medium "
                "gain setting while battery state was less than 2.5V and temperature was 24.5C."),
        {"start": "2020-12-14T19:22:55-05:00", "serial": "249BC3055C02FE06"},
    ),
    "opensoundscape 745: a deployment in place of the device": (
        info(IART=b"AudioMoth 24F319025D320451", ICMT=b"Recorded at 01:30:00 15/05/2021 (UTC) "
             b"during deployment 0123456789ABCDEF at medium gain while battery was 4.6V and "
             b"temperature was 17.7C."),
        {"start": "2021-05-15T01:30:00+00:00", "device": "AudioMoth", "serial": "24F319025D320451"},
    ),
    "metamoth: half an hour west of Greenwich, milliseconds": (
        comment("Recorded at 19:30:00.125 18/05/2024 (UTC-3:30) by AudioMoth 24E144085F256397 at "
                "medium gain while battery was 4.2V and temperature was 20.1C."),
        {"start": "2024-05-18T19:30:00.125000-03:30"},
    ),
    "wavinfo 10: UTF-8 in the description": (
        bext("2022-04-01", "10-00-00", about="/path/to/路径/我的.rpp".encode()),
        {"start": "2022-04-01T10:00:00"},
    ),
    "taglib 1350: iXML is UTF-8, whatever it says": (
        ixml("<NOTE>Süd</NOTE>", '<?xml version="1.0" encoding="X-NOBODY"?>'),
        {"iXML NOTE": "Süd"},
    ),
    "wavinfo 1 and 2: bytes behind the end of the XML": (
        chunk(b"iXML", b"<BWFXML><PROJECT>P</PROJECT></BWFXML>\0\0\0junk"),
        {"iXML PROJECT": "P"},
    ),
    "bmx 57: a date of zeros states nothing": (bext("", ""), {"start": None}),
    "MediaInfo 639: the rate stands behind the time reference": (
        bext("2023-10-04", "00:58:20", 16_000 * 3_500),
        {"start": "2023-10-04T00:58:20", "bext TimeReference": "56000000 samples: 00:58:20.000"},
    ),
    "getID3 134: a position on a time line is no clock": (
        bext("2017-11-28", "19:13:31", 16_000 * 3_600),
        {"start": "2017-11-28T19:13:31", "doubts": {"bext TimeReference"}},
    ),
    "a recording just before midnight": (
        bext("2017-11-28", "23:59:59", 16_000 * 1),
        {"start": "2017-11-28T23:59:59", "doubts": set()},
    ),
    "music-metadata 587, 664: zeros and junk for a name": (
        chunk(b"\0\0\0\0", b"ab") + chunk(b"guan", b"Timestamp: 2023-11-17T09:52:00Z"),
        {"start": "2023-11-17T09:52:00+00:00"},
    ),
    "mutagen 496, wavesurfer: a chunk of odd size without its padding": (
        b"note" + struct.pack("<I", 3) + b"abc"
        + chunk(b"guan", b"Timestamp: 2023-11-17T09:52:00Z"),
        {"start": "2023-11-17T09:52:00+00:00"},
    ),
    "wamd of Wildlife Acoustics": (
        wamd((1, b"SM4"), (2, b"S4A1"), (5, b"2024-05-18 19:30:00-05:00"), (21, b"12.3C"),
             (6, b"WGS84,27.38886,N,82.44868,W"), (13, bytes(900))),
        {"start": "2024-05-18T19:30:00-05:00", "device": "SM4", "serial": "S4A1",
         "latitude_deg": 27.38886, "longitude_deg": -82.44868, "wamd temperature": "12.3C"},
    ),
    "wamd as Echo Meter writes places": (
        wamd((6, b"WGS84,51.41691,-0.0671,55.62311")),
        {"latitude_deg": 51.41691, "longitude_deg": -0.0671},
    ),
    "receivers without a position": (
        chunk(b"guan", b"Loc Position: 0.0 0.0"), {"latitude_deg": None, "longitude_deg": None},
    ),
    "iXML of a field recorder": (
        ixml("<BEXT><BWF_ORIGINATION_DATE>2024-05-18</BWF_ORIGINATION_DATE><BWF_ORIGINATION_TIME>"
             "19:30:00</BWF_ORIGINATION_TIME></BEXT><LOCATION><LOCATION_GPS>47.756787, -123.729977"
             "</LOCATION_GPS></LOCATION>"),
        {"start": "2024-05-18T19:30:00", "found_by": "iXML BEXT/BWF_ORIGINATION_DATE",
         "latitude_deg": 47.756787, "longitude_deg": -123.729977},
    ),
    "UTF-16 and one byte a character": (
        info(ICMT="\ufeffSüd".encode("utf-16-le"), IART="Süd".encode("latin-1")),
        {"INFO ICMT": "Süd", "INFO IART": "Süd"},
    ),
    "GUANO and AudioMoth differ": (
        chunk(b"guan", b"Timestamp: 2024-05-18T21:30:00+02:00")
        + comment("Recorded at 20:30:00 18/05/2024 (UTC) by AudioMoth 24E144085F256397"),
        {"start": "2024-05-18T21:30:00+02:00", "doubts": {"AudioMoth comment"}},
    ),
    "a zone that is missing in one of two is no difference": (
        chunk(b"guan", b"Timestamp: 2024-05-18T21:30:00+02:00") + bext("2024-05-18", "21:30:20"),
        {"start": "2024-05-18T21:30:00+02:00", "doubts": set()},
    ),
    "a recorder's clock that was never set": (
        chunk(b"guan", b"Timestamp: 1970-01-01T00:10:00Z") + bext("2024-05-18", "21:30:20"),
        {"start": "2024-05-18T21:30:20", "doubts": {"GUANO Timestamp"}},
    ),
    "a clock that was reset": (
        bext("2000-01-01", "00:03:00"), {"start": None, "doubts": {"bext OriginationDate"}},
    ),
    "an archive's tape": (bext("1987-05-01", "10:00:00"), {"start": "1987-05-01T10:00:00"}),
    "the future": (
        bext("2031-05-01", "10:00:00"), {"start": None, "doubts": {"bext OriginationDate"}},
    ),
    "no date": (
        bext("2024-13-41", "10:00:00"), {"start": None, "doubts": {"bext OriginationDate"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("report", REPORTS)
def test_public_reports(tmp_path: Path, report: str) -> None:
    extra, right = REPORTS[report]
    for data in (wav(pcm(2_000), extra=extra), wav(pcm(2_000)) + extra):
        notes = said_in(tmp_path / "a.wav", data)
        for name, value in right.items():
            if name == "doubts":
                assert set(doubts(notes)) == value
            else:
                found = getattr(notes, name) if hasattr(notes, name) else values(notes)[name]
                assert found == value, name


def test_chunks_that_a_flac_keeps_of_its_wav(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", TONE, 16_000)
    data = (tmp_path / "a.flac").read_bytes()
    kept = b"riff" + chunk(b"guan", b"Timestamp: 2023-11-17T09:52:00Z")
    block = bytes([2]) + len(kept).to_bytes(3, "big") + kept
    notes = said_in(tmp_path / "b.flac", data[:42] + block + data[42:])
    assert notes.start == "2023-11-17T09:52:00+00:00"


BOMB = "<!DOCTYPE b [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10 if n else '&a;'}'>" for n in range(12)
)
HOSTILE = {
    "a bomb": chunk(b"iXML", f"{BOMB}]><BWFXML><NOTE>&a11;</NOTE></BWFXML>".encode()),
    "deep": chunk(b"iXML", b"<a>" * 100_000),
    "4 GB": chunk(b"LIST", b"INFOICMT" + b"\xff" * 4 + b"abc", stated=2**32 - 1),
    "a size that lies": chunk(b"wamd", struct.pack("<HI", 1, 2**32 - 1) + b"SM4"),
    "no bytes": b"".join(chunk(n, b"") for n in (b"bext", b"iXML", b"guan", b"LIST", b"id3 ")),
    "ID3 of nothing": chunk(b"id3 ", id3_head(2**28 - 1, b"\xff" * 100)),
    "10,000 tags": info(**{f"I{n:03d}": b"x" for n in range(1000)}) * 10,
    "10,000 chunks": chunk(b"guan", b"a: b") * 10_000,
    "controls": info(ICMT=b"a\x01\x1b[31mb\r\nc", IART=b"\xff\xfe\x00\xd8\x00"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_chunks(tmp_path: Path, name: str) -> None:
    notes = said_in(tmp_path / "a.wav", wav(pcm(2_000)) + HOSTILE[name])
    assert len(notes.statements) <= MOST_STATEMENTS + 1
    for each in notes.statements:
        assert len(each.value) <= 1_000
    assert is_clean(notes)
    said = {each.key for each in notes.statements}
    if name in ("a bomb", "deep"):
        assert "not readable" in said
    if name.startswith("10,000"):
        assert "left out" in said


def test_pictures_of_100_mb_are_not_read(tmp_path: Path) -> None:
    """The tag that follows a picture in FLAC is found; in ID3 what is before it."""
    size = 100 << 20
    frame = b"APIC" + bytes(b for b in _synchsafe(size)) + bytes(2)
    title = b"TIT2" + _synchsafe(4) + bytes(2) + b"\x03Ufr"
    path = tmp_path / "a.mp3"
    path.write_bytes(id3_head(size + 24, title + frame))
    os.truncate(path, size + 34)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = statements(without_tags(fd, size + 34), None, size + 34)
    finally:
        os.close(fd)
    assert Statement("ID3", "TIT2", "Ufr") in found


def _synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([b"bext", b"iXML", b"guan", b"LIST", b"wamd", b"id3 "]),
    body=st.one_of(
        st.binary(max_size=2_000),
        st.text(max_size=500).map(str.encode),
        st.binary(max_size=200).map(lambda some: b"INFOICMT\x10\0\0\0" + some),
        st.binary(max_size=200).map(lambda some: id3_head(len(some), some)),
    ),
    stated=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
def test_any_bytes_are_survived(
    tmp_path_factory: pytest.TempPathFactory, name: bytes, body: bytes, stated: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.wav"
    notes = said_in(path, wav(pcm(20)) + chunk(name, body, stated=stated))
    assert is_clean(notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff", "a.wav"])
def test_files_with_changed_bytes_are_survived(tmp_path: Path, name: str) -> None:
    path, rng = tmp_path / name, random.Random(7)
    soundfile.write(path, np.tile(TONE, (3, 1)), 16_000)
    if name.endswith(("flac", "ogg")):
        file: Any = flac.FLAC(path) if name == "a.flac" else oggvorbis.OggVorbis(path)
        file["comment"] = "x" * 500
        file.save()
    else:
        tag = id3.ID3()
        tag.add(id3.COMM(encoding=3, lang="eng", desc="d", text="x" * 500))
        tag.save(tmp_path / "tag")
    data = path.read_bytes()
    if not name.endswith(("flac", "ogg")):
        tagged = (tmp_path / "tag").read_bytes()
        data = tagged + data if name == "a.mp3" else data + chunk(b"id3 ", tagged)
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 30)):
            place = rng.choice((rng.randrange(600), len(data) - 1 - rng.randrange(600)))
            changed[place % len(data)] = rng.randrange(256)
        notes = said_in(tmp_path / f"b_{name}", bytes(changed))
        assert is_clean(notes)
