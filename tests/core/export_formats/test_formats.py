"""Every export is read back by a reader that knows nothing of its writer.

sed_scores_eval has no wheels and Label Studio's SDK needs thirty packages, so in their place stand
the rules that they check: its `validate_score_dataframe`, and the documented shape of tasks.
"""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioset_core.errors import UserError
from audioset_core.export_formats.audacity import audacity_texts
from audioset_core.export_formats.delimited import (
    COLUMNS,
    audioset_strong_texts,
    csv_texts,
    dcase_texts,
    values,
)
from audioset_core.export_formats.file_names import (
    common_folder,
    flat_name,
    line_name,
    tree_name,
    uri,
)
from audioset_core.export_formats.label_studio import label_studio_config, label_studio_texts
from audioset_core.export_formats.parquet import write_parquet
from audioset_core.export_formats.raven import raven_texts
from audioset_core.export_formats.sed_scores import column_names, frame_borders, sed_scores_texts
from audioset_core.export_formats.text import number
from audioset_core.export_formats.touching_events import merged
from audioset_core.export_formats.webvtt import webvtt_texts
from audioset_core.scores.pooling import sigmoid
from audioset_core.storage.atomic_files import write_text


@dataclass(frozen=True)
class Rec:
    path: bytes
    user_id: str | None = None
    clip: str = "ab" * 32
    duration_s: float = 8.0
    sample_rate_hz: int = 44_100
    model: str = "yamnet"
    model_version: str = "1"
    patch_hop_s: float = 0.48
    window_s: float = 0.96
    detection_threshold: float = 0.1
    parameters: str = '{"extra":{"framing":"reference"}}'
    is_partial: bool = False
    remarks: str = ""
    site: str | None = None

    @property
    def path_text(self) -> str:
        text = self.path.decode("utf-8", "backslashreplace")
        return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda m: f"\\x{ord(m.group()):02x}", text)


@dataclass(frozen=True)
class Ev:
    mid: str
    name: str
    start_s: float
    end_s: float
    peak: float = 0.75
    mean: float = 0.5
    peak_s: float = 0.0
    model: str = "yamnet"
    model_version: str = "1"


PLAIN = Rec(b"/data/day/a.wav", "id 1")
HOSTILE = [
    Rec(b'/data/day/"quoted", and\ttabbed.wav', 'id "2", \n'),
    Rec(b"/data/new\nline/it's --> <b>.flac"),
    Rec(b"/data/day/\xff\xfe not utf-8.wav"),
    Rec("/data/\u2028\u202e\x85/ü.wav".encode()),
    Rec(b"/data/100%/%41%~.wav"),
]
RECORDINGS = [PLAIN, *HOSTILE]
EVENTS = [
    Ev("/m/0bt9lr", "Dog", 0.0, 0.96, 0.9731, 0.5001, 0.0),
    Ev("/m/01z5f", "Canidae, dogs, wolves", 23 * 0.48, 23 * 0.48 + 1.92, 0.1, 0.1, 24 * 0.48),
    Ev("/t/dd00001", "Baby laughter", 13.44, 3 * 4.7004081632653065, 1.0, 1.0, 13.44),
]
HOSTILE_EVENTS = [Ev("/x", 'a\tb\nc "d" --> & <e>', 1.0, 2.0), Ev("/y", '"', 2.0, 2.0000001)]
ROOT = b"/data"


def labelled(events: Sequence[Ev] = EVENTS) -> list[tuple[Rec, list[Ev]]]:
    return [(recording, list(events)) for recording in RECORDINGS]


def written(path: Path, texts: Any) -> Path:
    write_text(path, texts)
    return path


class TestNames:
    @pytest.mark.parametrize("root", [b"/data", b"/", b"/elsewhere"])
    def test_hostile_names_lie_below_the_folder_and_keep_apart(
        self, tmp_path: Path, root: bytes
    ) -> None:
        paths = [r.path for r in RECORDINGS] + [
            b"/data/../../etc/passwd", b"/data/./x.wav", b"/data//x.wav", b"/data/x.wav",
            b"/data/x.flac", b"/data/x.wav.txt/y.wav", b"/data/x.wav%2Etxt/y.wav", b"/data/...",
            b"/data/%2E%2E/etc/passwd", b"/data/%252E%252E/etc/passwd", b"/data/" + b"n" * 255,
            b"/data/" + b"n" * 254 + b"m", b"/data/" + b"\xff" * 255, b"/data" + b"/deep" * 800,
            b"/data" + b"/deep" * 799 + b"/deeq", b"/data/\xc3\xbc" + "ü".encode() * 120,
        ]  # fmt: skip
        for path in paths:
            out = tmp_path / tree_name(path, root, ".txt")
            assert not out.exists(), path
            written(out, [path.hex()])
            assert (tmp_path / tree_name(path, root, ".txt")).read_text() == path.hex()
        found = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert {bytes.fromhex(p.read_text()) for p in found} == set(paths)
        assert all(p.suffix == ".txt" and str(p.relative_to(tmp_path)).isprintable() for p in found)

    @given(
        st.lists(st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b), max_size=4)
    )
    def test_a_name_gives_back_the_path(self, parts: list[bytes]) -> None:
        path = b"/" + b"/".join(parts)
        for name in (line_name(path, b"/"), flat_name(path, b"/").removesuffix(".tsv")):
            if path == b"/":
                continue
            assert unquote_to_bytes(name).replace(b"\0", b"") == path[1:]
            assert name.isprintable()
            assert not {"", ".", ".."} & set(name.split("/"))
        assert unquote_to_bytes(uri(path).removeprefix("file://")) == path
        assert uri(path).isascii()

    def test_an_object_outside_the_folder(self) -> None:
        assert line_name(b"s3://bucket/a.wav", b"/audio") == "%2F/s3:/%00/bucket/a.wav"
        assert uri(b"s3://bucket/a b.wav") == "s3://bucket/a%20b.wav"

    @pytest.mark.parametrize(
        ("paths", "folder"),
        [
            ([], b"/"),
            ([b"/a.wav"], b"/"),
            ([b"/a/b/c.wav"], b"/a/b"),
            ([b"/a/b/c.wav", b"/a/bc/c.wav"], b"/a"),
            ([b"/a/b/c.wav", b"/a/c.wav", b"/a/b/d/e.wav"], b"/a"),
            ([b"/a/b/d/e.wav", b"/a/b/c.wav"], b"/a/b"),
            ([b"/a/c.wav", b"/b/c.wav"], b"/"),
        ],
    )
    def test_the_common_folder(self, paths: list[bytes], folder: bytes) -> None:
        assert common_folder(paths) == folder


@given(st.floats(min_value=0, max_value=1e7))
def test_numbers_are_exact_and_plain(value: float) -> None:
    assert float(number(value)) == value
    assert re.fullmatch(r"\d+\.?\d*", number(value))


class TestCsv:
    @pytest.mark.parametrize("events", [EVENTS, HOSTILE_EVENTS])
    def test_every_value_comes_back(self, events: list[Ev]) -> None:
        text = "".join(csv_texts(labelled(events), ROOT))
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        expected = [
            dict(zip(COLUMNS, values(recording, event), strict=True))
            for recording, found in labelled(events)
            for event in found
        ]
        assert len(rows) == len(expected) == len(RECORDINGS) * len(events)
        for row, want in zip(rows, expected, strict=True):
            for name, value in want.items():
                said = row[name]
                typed: Any = {float: float, bool: "True".__eq__}.get(type(value), str)(said)
                assert typed == ("" if value is None else value), name
            assert "\n" not in row["path"]

    def test_a_sound_names_the_model_that_heard_it(self) -> None:
        """A model that was taught counts beside the one that labelled the recording."""
        own, taught = EVENTS[0], replace(EVENTS[0], model="birds", model_version="3")
        rows = csv.DictReader(io.StringIO("".join(csv_texts(labelled([own, taught]), ROOT))))
        heard_by = [(row["model"], row["model_version"]) for row in rows][:2]
        assert heard_by == [("yamnet", "1"), ("birds", "3")]

    def test_the_address_gives_back_any_path(self) -> None:
        rows = csv.DictReader(io.StringIO("".join(csv_texts(labelled(EVENTS[:1]), ROOT))))
        found = [unquote_to_bytes(row["uri"].removeprefix("file://")) for row in rows]
        assert found == [recording.path for recording in RECORDINGS]

    def test_pandas_reads_it(self) -> None:
        import pandas

        text = "".join(csv_texts(labelled(HOSTILE_EVENTS), ROOT))
        frame = pandas.read_csv(io.StringIO(text))
        assert list(frame.columns) == list(COLUMNS)
        assert frame["name"].tolist() == [e.name for e in HOSTILE_EVENTS] * len(RECORDINGS)
        assert frame["end_s"].tolist() == [2.0, 2.0000001] * len(RECORDINGS)
        assert json.loads(frame["parameters"][0])["extra"] == {"framing": "reference"}


class TestParquet:
    @pytest.mark.parametrize("group_rows", [2, 65_536])
    def test_every_value_comes_back_typed(
        self, monkeypatch: pytest.MonkeyPatch, group_rows: int
    ) -> None:
        from pyarrow import parquet

        monkeypatch.setattr("audioset_core.export_formats.parquet._ROWS", group_rows)
        file = io.BytesIO()
        write_parquet(file, labelled(HOSTILE_EVENTS), ROOT)
        rows = parquet.read_table(io.BytesIO(file.getvalue())).to_pylist()
        expected = [values(r, e) for r, events in labelled(HOSTILE_EVENTS) for e in events]
        assert [tuple(row.values()) for row in rows] == expected
        assert list(rows[0]) == list(COLUMNS)

    def test_nothing_heard_is_a_table_without_rows(self) -> None:
        from pyarrow import parquet

        file = io.BytesIO()
        write_parquet(file, [], ROOT)
        table = parquet.read_table(io.BytesIO(file.getvalue()))
        assert table.num_rows == 0
        assert table.column_names == list(COLUMNS)

    def test_without_pyarrow_the_message_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(UserError, match=r"pip install 'audioset-flows\[parquet\]'"):
            write_parquet(io.BytesIO(), [], ROOT)


class TestAudacity:
    def test_crowsetta_reads_the_labels(self, tmp_path: Path) -> None:
        from crowsetta.formats.seq import AudSeq

        track = AudSeq.from_file(written(tmp_path / "a.txt", audacity_texts(PLAIN, EVENTS)))
        read = track.to_seq(round_times=False)
        # The reader's floats are good to the last digit but one.
        assert read.onsets_s.tolist() == pytest.approx([e.start_s for e in EVENTS], abs=1e-12)
        assert read.offsets_s.tolist() == pytest.approx([e.end_s for e in EVENTS], abs=1e-12)
        assert read.labels.tolist() == [e.name for e in EVENTS]

    def test_a_label_is_one_line_of_three_fields(self) -> None:
        text = "".join(audacity_texts(PLAIN, HOSTILE_EVENTS))
        fields = [line.split("\t") for line in text.splitlines()]
        assert fields == [
            ["1.0", "2.0", 'a b c "d" --> & <e>'],
            ["2.0", "2.0000001", '"'],
        ]


class TestRaven:
    # crowsetta 5.1 on pandas 3.1.
    @pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.rename")
    def test_crowsetta_reads_the_selections(self, tmp_path: Path) -> None:
        from crowsetta.formats.bbox import Raven

        table = Raven.from_file(written(tmp_path / "a.txt", raven_texts(PLAIN, EVENTS)))
        boxes = table.to_bbox()
        assert [b.label for b in boxes] == [e.name for e in EVENTS]
        times = [(b.onset, b.offset) for b in boxes]
        np.testing.assert_allclose(times, [(e.start_s, e.end_s) for e in EVENTS], atol=1e-12)
        assert {(b.low_freq, b.high_freq) for b in boxes} == {(0.0, 22_050.0)}

    @pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.path_text)
    def test_each_row_names_its_sound_and_where_in_it(self, recording: Rec) -> None:
        text = "".join(raven_texts(recording, HOSTILE_EVENTS))
        header, *rows = [line.split("\t") for line in text.split("\n")[:-1]]
        assert header[:2] == ["Selection", "View"]
        assert len(rows) == len(HOSTILE_EVENTS)
        for n, (row, event) in enumerate(zip(rows, HOSTILE_EVENTS, strict=True), start=1):
            cells = dict(zip(header, row, strict=True))
            assert cells["Selection"] == str(n)
            assert cells["Begin Time (s)"] == cells["File Offset (s)"] == number(event.start_s)
            assert cells["Begin Path"] == recording.path_text.replace("\u2028", " ")
            assert cells["MID"] == event.mid
            assert (cells["Score"], cells["Mean Score"]) == ("0.75", "0.5")


class TestDataSets:
    def test_dcase_names_files_by_their_common_folder(self) -> None:
        import pandas

        text = "".join(dcase_texts(labelled(), ROOT))
        frame = pandas.read_csv(io.StringIO(text), sep="\t")
        assert list(frame.columns) == ["filename", "onset", "offset", "event_label"]
        first = frame[frame["filename"] == "day/a.wav"]
        assert first[["onset", "offset", "event_label"]].values.tolist() == [
            [e.start_s, e.end_s, e.name] for e in EVENTS
        ]
        assert [unquote_to_bytes(f) for f in frame["filename"].unique()] == [
            r.path.removeprefix(b"/data/") for r in RECORDINGS
        ]

    def test_audioset_strong_labels_by_mid_and_takes_a_manifests_id(self) -> None:
        text = "".join(audioset_strong_texts(labelled(EVENTS[:1]), ROOT))
        header, *rows = list(csv.reader(io.StringIO(text), delimiter="\t", strict=True))
        assert header == ["segment_id", "start_time_seconds", "end_time_seconds", "label"]
        assert rows[:2] == [
            ["id 1", "0.0", "0.96", "/m/0bt9lr"],
            ['id "2",  ', "0.0", "0.96", "/m/0bt9lr"],
        ]
        assert rows[3] == ["day/%FF%FE not utf-8.wav", "0.0", "0.96", "/m/0bt9lr"]

    @given(
        st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), st.sampled_from("abc"))),
        st.sampled_from([0.48, 0.24, 0.96]),
    )
    def test_a_class_never_overlaps_itself(
        self, patches: list[tuple[int, int, str]], hop_s: float
    ) -> None:
        events = [
            Ev(mid, mid, start * hop_s, (start + length) * hop_s + 0.96)
            for start, length, mid in sorted(patches)
        ]
        spans = list(merged(events))
        assert [s.end_s for s in spans] == sorted(s.end_s for s in spans)
        for mid in "abc":
            own = sorted((s for s in spans if s.mid == mid), key=lambda s: s.start_s)
            for before, after in itertools.pairwise(own):
                assert after.start_s > before.end_s
            for event in (e for e in events if e.mid == mid):
                (around,) = [s for s in own if s.start_s <= event.start_s <= s.end_s]
                assert event.end_s <= around.end_s
            ends = {e.start_s for e in events if e.mid == mid}, {e.end_s for e in events}
            assert all(s.start_s in ends[0] and s.end_s in ends[1] for s in own)


class TestWebVtt:
    @pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.path_text)
    def test_webvtt_py_reads_the_captions(self, tmp_path: Path, recording: Rec) -> None:
        import webvtt

        path = written(tmp_path / "a.vtt", webvtt_texts(recording, [*EVENTS, *HOSTILE_EVENTS]))
        captions = list(webvtt.read(str(path)))
        assert [html.unescape(c.text) for c in captions] == [
            "Dog 0.97", "Canidae, dogs, wolves 0.10", "Baby laughter 1.00",
            'a b c "d" --> & <e> 0.75', '" 0.75',
        ]  # fmt: skip
        assert (captions[1].start, captions[1].end) == ("00:00:11.040", "00:00:12.960")
        # A cue must end after it begins, also one of a tenth of a microsecond.
        assert (captions[4].start, captions[4].end) == ("00:00:02.000", "00:00:02.001")

    def test_hours(self) -> None:
        text = "".join(webvtt_texts(PLAIN, [Ev("/m", "x", 36_000.0, 360_000.5)]))
        assert "10:00:00.000 --> 100:00:00.500" in text


TASKS_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data", "predictions"],
        "additionalProperties": False,
        "properties": {
            "data": {"type": "object", "required": ["audio"]},
            "predictions": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["model_version", "result", "score"],
                    "additionalProperties": False,
                    "properties": {
                        "model_version": {"type": "string"},
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "result": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["id", "from_name", "to_name", "type", "value"],
                                "additionalProperties": False,
                                "properties": {
                                    "id": {"type": "string", "minLength": 1},
                                    "from_name": {"const": "label"},
                                    "to_name": {"const": "audio"},
                                    "type": {"const": "labels"},
                                    "original_length": {"type": "number"},
                                    "score": {"type": "number"},
                                    "meta": {"type": "object"},
                                    "value": {
                                        "type": "object",
                                        "required": ["start", "end", "labels"],
                                        "additionalProperties": False,
                                        "properties": {
                                            "start": {"type": "number", "minimum": 0},
                                            "end": {"type": "number", "minimum": 0},
                                            "channel": {"type": "integer"},
                                            "labels": {
                                                "type": "array",
                                                "minItems": 1,
                                                "items": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
"""As labelstud.io/guide/predictions and labelstud.io/tags/labels describe tasks."""


class TestLabelStudio:
    @pytest.mark.parametrize("events", [EVENTS, HOSTILE_EVENTS, EVENTS[:1]])
    def test_tasks_have_the_documented_shape(self, events: list[Ev]) -> None:
        tasks = json.loads("".join(label_studio_texts(labelled(events), ROOT)))
        jsonschema.validate(tasks, TASKS_SCHEMA)
        assert len(tasks) == len(RECORDINGS)
        for task, recording in zip(tasks, RECORDINGS, strict=True):
            prefix, below = task["data"]["audio"].split("?d=")
            assert prefix == "/data/local-files/"
            assert ROOT + b"/" + unquote_to_bytes(below) == recording.path
            (prediction,) = task["predictions"]
            assert prediction["score"] == max(e.peak for e in events)
            assert prediction["model_version"] == "yamnet 1"
            spans = [(r["value"]["start"], r["value"]["end"]) for r in prediction["result"]]
            assert spans == [(e.start_s, e.end_s) for e in events]
            assert len({r["id"] for r in prediction["result"]}) == len(events)

    def test_nothing_to_review_is_an_empty_array(self) -> None:
        assert json.loads("".join(label_studio_texts([], ROOT))) == []

    def test_the_interface_has_the_labels_that_tasks_use(self) -> None:
        names = [e.name for e in (*EVENTS, *HOSTILE_EVENTS)]
        view = ElementTree.fromstring("".join(label_studio_config(names)))
        offered = [label.get("value") for label in view.iter("Label")]
        tasks = json.loads("".join(label_studio_texts(labelled(HOSTILE_EVENTS), ROOT)))
        used = [r["value"]["labels"][0] for r in tasks[0]["predictions"][0]["result"]]
        assert used == offered[-2:]
        (control,), (audio,) = view.iter("Labels"), view.iter("Audio")
        result = tasks[0]["predictions"][0]["result"][0]
        assert (control.get("name"), control.get("toName")) == (
            result["from_name"],
            audio.get("name"),
        )
        assert audio.get("value") == "$audio"


class TestSedScores:
    CLASSES = (("/m/a", "Dog"), ("/m/b", "Bark"), ("/m/c", 'a "b"\tc'), ("/m/d", "Dog"))

    @pytest.mark.parametrize(
        ("n_patches", "hop_s", "duration_s"),
        [(1, 0.48, 0.2), (1, 0.48, 0.975), (2, 0.48, 0.9751), (20, 0.48, 9.7), (700, 0.24, 168.2)],
    )
    @pytest.mark.parametrize("dtype", ["<f2", "<f4"])
    def test_pandas_reads_contiguous_frames_and_the_same_scores(
        self, rng: np.random.Generator, n_patches: int, hop_s: float, duration_s: float, dtype: str
    ) -> None:
        import pandas

        logits = (rng.standard_normal((n_patches, 4)) * 6).astype(dtype)
        borders = frame_borders(n_patches, hop_s, 0.96, duration_s)
        names = column_names(self.CLASSES)
        text = "".join(sed_scores_texts(logits, [0, 1, 2, 3], names, borders))
        frame = pandas.read_csv(io.StringIO(text), sep="\t")
        # What sed_scores_eval's validate_score_dataframe asks for.
        assert list(frame.columns) == [
            "onset", "offset", "Dog (/m/a)", "Bark", 'a "b" c', "Dog (/m/d)",
        ]  # fmt: skip
        onset, offset = frame["onset"].to_numpy(), frame["offset"].to_numpy()
        assert (offset > onset).all()
        assert (offset[:-1] == onset[1:]).all()
        assert onset[0] == 0
        assert offset[-1] == duration_s
        scores = frame.to_numpy()[:, 2:].astype(np.float32)
        np.testing.assert_array_equal(scores, sigmoid(logits))

    def test_a_moment_has_the_score_of_the_nearest_window(self) -> None:
        borders = np.array(frame_borders(30, 0.48, 0.96, 14.9))
        centres = np.arange(30) * 0.48 + 0.48
        for time_s in np.linspace(0.01, 14.89, 500):
            frame = int(np.searchsorted(borders, time_s, side="right")) - 1
            assert abs(centres[frame] - time_s) <= np.abs(centres - time_s).min() + 1e-9

    def test_only_the_classes_asked_for(self, rng: np.random.Generator) -> None:
        logits = rng.standard_normal((3, 9)).astype(np.float32)
        borders = frame_borders(3, 0.96, 0.96, 2.88)
        text = "".join(sed_scores_texts(logits, [7, 2], ["seven", "two"], borders))
        rows = [line.split("\t") for line in text.splitlines()]
        assert rows[0] == ["onset", "offset", "seven", "two"]
        found = np.array(rows[1:], dtype=np.float64)[:, 2:].astype(np.float32)
        np.testing.assert_array_equal(found, sigmoid(logits)[:, [7, 2]])


def test_every_recording_is_written_with_what_it_says_of_itself() -> None:
    """The dataclasses of these tests stand for the database's records."""
    from db.reports.export_rows import ModelInterval, RecordingRow

    assert set(Rec.__dataclass_fields__) <= set(RecordingRow.__dataclass_fields__)
    assert [*Ev.__dataclass_fields__, "labelled_at"] == list(ModelInterval.__dataclass_fields__)
    assert replace(PLAIN, path=b"/x\n").path_text == "/x\\x0a"
