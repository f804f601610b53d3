"""Files in which people's programs keep marks, each as such a program writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audioset_core.errors import UserError
from audioset_core.marks.names import keys_of_own_name, moment, seconds
from audioset_core.marks.read import format_of, mark_files, read_marks
from audioset_core.ontology.graph import load_default
from tests.core.marks.marked import BIRD, CAT, DOG, SIREN, read_text, said

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


class TestRaven:
    def test_a_selection_in_two_views_and_channels_is_one(self, tmp_path: Path) -> None:
        """Raven has a row for each view; selection numbers start anew in joined tables."""
        row = "1\t{}\t{}\t0.5\t1.5\t0\t8000\tDog\n"
        rows = [
            row.format("Waveform 1", 1),
            row.format("Spectrogram 1", 1),
            row.format("Spectrogram 1", 2),
        ]
        other = "1\tSpectrogram 1\t1\t3\t4\t0\t8000\tCat\n"
        found = read_text(
            tmp_path / "a.Table.1.selections.txt", f"{RAVEN}\tAnnotation\n{''.join(rows)}{other}"
        )
        assert found.format == "raven"
        assert said(found) == [((0.5, 1.5), DOG, "present"), ((3.0, 4.0), CAT, "present")]
        assert found.counts == {"lines that say the same again (views, channels)": 2}
        assert found.marks[0].keys[-1] == "a"

    def test_a_table_of_several_files_counts_from_each_ones_start(self, tmp_path: Path) -> None:
        text = (
            f"{RAVEN}\tBegin File\tFile Offset (s)\tSpecies\n"
            "1\tSpectrogram 1\t1\t2.5\t3.5\t0\t9\ta.wav\t2.5\tDog\n"
            "2\tSpectrogram 1\t1\t63.25\t64.75\t0\t9\tb.wav\t3.25\tDog\n"
        )
        first, second = read_text(tmp_path / "all.txt", text).marks
        assert (first.keys, first.span_s) == (("a.wav",), (2.5, 3.5))
        assert (second.keys, second.span_s) == (("b.wav",), (3.25, 4.75))

    def test_decimal_commas_crlf_bom_and_umlauts(self, tmp_path: Path) -> None:
        row = "7\tSpectrogram 1\t1\t0,25\t1,75\t0\t9\tC:\\T\u00f6ne\\a.wav\tDog"
        text = f"{RAVEN}\tBegin Path\tAnnotation\r\n{row}\r\n"
        for encoding in ("utf-8-sig", "utf-16", "cp1252"):
            (mark,) = read_text(tmp_path / "t.txt", text.encode(encoding)).marks
            assert mark.span_s == (0.25, 1.75)
            assert mark.keys[:2] == ("C:\\T\u00f6ne\\a.wav", "C:/T\u00f6ne/a.wav")
            assert "a.wav" in mark.keys

    def test_quotes_are_text_and_short_rows_are_filled_up(self, tmp_path: Path) -> None:
        rows = ('1\tS\t1\t0\t1\t0\t9\t"Dog" far', '2\tS\t1\t2\t3\t0\t9\t"Dog"', "3\tS\t1\t4\t5")
        text = "\n".join((f"{RAVEN}\tAnnotation", *rows))
        found = read_text(tmp_path / "a.txt", text)
        assert said(found) == [((2.0, 3.0), DOG, "present")]
        assert [p.place for p in found.problems] == ["line 2", "line 4"]
        assert found.problems[1].text == "no class is named"

    def test_birdnets_columns_and_what_was_not_confirmed(self, tmp_path: Path) -> None:
        """BirdNET Live: crowsetta issue 301. What is not confirmed was not looked at."""
        text = (
            "Selection\tView\tChannel\tBegin File\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\t"
            "High Freq (Hz)\tCommon Name\tScientific Name\tConfidence\tConfirmed\t"
            "Confirmed At (UTC)\n"
            "1\tSpectrogram 1\t1\ta.wav\t0\t3\t0\t9\tBlackbird\tTurdus merula\t0.9\tTrue\t"
            "2026-05-01T10:00:00\n"
            "2\tSpectrogram 1\t1\ta.wav\t3\t6\t0\t9\tBlackbird\tTurdus merula\t0.8\tFalse\t\n"
        )
        found = read_text(tmp_path / "x.selections.txt", text, classes={"blackbird": BIRD})
        assert said(found) == [((0.0, 3.0), BIRD, "present")]
        assert found.marks[0].at == datetime(2026, 5, 1, 10, tzinfo=UTC)
        assert found.counts == {"lines without a verdict": 1}

    def test_the_column_can_be_named(self, tmp_path: Path) -> None:
        text = f"{RAVEN}\tNotes\n1\tS\t1\t0\t1\t0\t9\tDog\n"
        with pytest.raises(UserError, match="no column has the classes: name one with --column"):
            read_text(tmp_path / "a.txt", text)
        assert said(read_text(tmp_path / "a.txt", text, column="notes")) == [
            ((0.0, 1.0), DOG, "present")
        ]
        with pytest.raises(UserError, match="no column 'Note'; there is 'notes'"):
            read_text(tmp_path / "a.txt", text, column="Note")

    def test_rows_as_they_were_reported(self, tmp_path: Path) -> None:
        """Selections from 0 (acodet issue 36), a cell too many (DeepSqueak issue 48)."""
        text = f"{RAVEN}\tAnnotation\n0\tS 1\t1\t3.95243452314316\t3.99231611625404\t5\t7\tDog\t1\n"
        assert said(read_text(tmp_path / "a.txt", text)) == [
            ((3.95243452314316, 3.99231611625404), DOG, "present")
        ]


class TestAudacity:
    def test_times_with_zeros_and_frequencies_that_are_not_set(self, tmp_path: Path) -> None:
        """mp3splt issue 344 took .009 for .9; audacity issue 3631: -1 is no frequency."""
        text = "888.009796\t888.941678\tDog\n\\\t-1.000000\t2000.000000\n"
        assert said(read_text(tmp_path / "a.txt", text)) == [
            ((888.009796, 888.941678), DOG, "present")
        ]

    def test_frequencies_empty_labels_and_old_blanks(self, tmp_path: Path) -> None:
        """Spectral labels have a second line: crowsetta issue 96; blanks: scaper issue 23."""
        text = (
            "0.000000\t1.500000\tDog\r\n\\\t100.0\t900.0\r\n2,5\t2,5\tCat\r\n3.0\t4.0\r\n\r\n"
            "5.0 6.0 Siren\r\n"
        )
        found = read_text(tmp_path / "a.wav.txt", text)
        assert found.format == "audacity"
        assert said(found) == [
            ((0.0, 1.5), DOG, "present"), ((2.5, 2.5), CAT, "present"),
            ((5.0, 6.0), SIREN, "present"),
        ]  # fmt: skip
        assert [(p.place, p.text) for p in found.problems] == [("line 4", "no class is named")]
        assert found.marks[0].keys[-1] == "a.wav"

    def test_an_empty_track_is_a_recording_without_marks(self, tmp_path: Path) -> None:
        found = read_text(tmp_path / "a.wav.txt", "")
        assert (found.marks, found.problems, found.silent[-1]) == ([], [], "a.wav")


LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "what ""3"""
        xmin = 0
        xmax = 2.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = "Dog"
        intervals [2]:
            xmin = 1.25
            xmax = 2.5
            text = ""
    item [2]:
        class = "TextTier"
        name = "points"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "Cat"
'''
SHORT = (
    '"ooTextFile short"\n"TextGrid"\n0\n2.5\n<exists>\n2\n"IntervalTier"\n"a"\n0\n2.5\n2\n'
    '0\n1.25\n"Dog"\n1.25\n2.5\n""\n"TextTier"\n"b"\n0\n2.5\n1\n0.5\n"Cat"\n'
)


@pytest.mark.parametrize("text", [LONG, SHORT])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_textgrids(tmp_path: Path, text: str, encoding: str) -> None:
    """Praat writes UTF-16 where it needs to: textgrid issue 2, Praat-textgrids issue 11."""
    found = read_text(tmp_path / "a.TextGrid", text.encode(encoding))
    assert found.format == "textgrid"
    assert said(found) == [((0.0, 1.25), DOG, "present"), ((0.5, 0.5), CAT, "present")]


def test_a_textgrid_that_ends_early(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it ends early"):
        read_text(tmp_path / "a.TextGrid", LONG[:300])


def test_webvtt(tmp_path: Path) -> None:
    text = (
        "WEBVTT\n\nNOTE\nfile:///x/a%20b.wav\nyamnet 1\n\n00:00:01.000 --> 00:00:02.500\n"
        "Dog 0.97\n\n1:00:00.000 --> 1:00:01.000 line:0\nDomestic animals, pets\nCat\n"
    )
    found = read_text(tmp_path / "z.vtt", text)
    assert [(m.span_s, m.mid) for m in found.marks] == [
        ((1.0, 2.5), DOG), ((3600.0, 3601.0), "/m/068hy"), ((3600.0, 3601.0), CAT),
    ]  # fmt: skip
    assert found.marks[0].keys[0] == "/x/a b.wav"


@pytest.mark.parametrize(
    "text",
    [
        "label,onset_s,offset_s,onset_sample,offset_sample,notated_path,annot_path,sequence,"
        "annotation\n"
        "Dog,0.5,1.5,8000,24000,a.wav,a.csv,0,0\n",
        "onset_s,offset_s,label\n0.5,1.5,Dog\n",
        "filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.5\tDog\n",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\na.wav\t0.5\t1.5\t/m/0bt9lr\n",
        "sep=;\nFile;Start;End;Label\na.wav;0,5;0:01,5;dog\n",
        "Start (s),End (s),Scientific name,Common name,Confidence,File\n"
        "0.5,1.5,Canis,Dog,0.9,a.wav\n",
    ],
)  # fmt: skip
def test_tables_of_other_programs(tmp_path: Path, text: str) -> None:
    found = read_text(tmp_path / "a.csv", text)
    assert said(found) == [((0.5, 1.5), DOG, "present")]
    assert found.marks[0].keys[-1] in ("a.wav", "a")


def test_a_name_that_was_changed_counts_and_not_the_mid_beside_it(tmp_path: Path) -> None:
    found = read_text(tmp_path / "t.csv", "clip,mid,name\nabc,/m/0bt9lr,Dog\nabc,/m/0bt9lr,Cat\n")
    assert [m.mid for m in found.marks] == [DOG, CAT]
    assert found.counts == {"lines whose name and MID differ: the name counts": 1}


def test_verdicts_of_a_review(tmp_path: Path) -> None:
    text = (
        "clip,start_s,end_s,mid,verdict,reviewed_at,judged_by\nabc,0,6,/m/0bt9lr,Yes,2026-05-01T10:00:00Z,bo\n"
        "abc,0,6,/m/01yrx,no,,\nabc,0,6,/m/015p6,unsure,yesterday,\nabc,0,6,/m/03kmc9,,,\n"
        "abc,0,6,/m/03kmc9,perhaps,,\n"
    )
    found = read_text(tmp_path / "v.csv", text)
    assert [(m.mid, m.verdict) for m in found.marks] == [
        (DOG, "present"), (CAT, "absent"), (BIRD, "unsure"),
    ]  # fmt: skip
    assert (found.marks[0].by, found.marks[0].at) == ("bo", datetime(2026, 5, 1, 10, tzinfo=UTC))
    assert found.counts["lines without a verdict"] == 1
    assert found.counts["moments such as 'yesterday' that are not ISO 8601"] == 1
    (problem,) = found.problems
    assert (problem.place, "'perhaps' is not one of yes, no, unsure" in problem.text) == (
        "line 6",
        True,
    )


def test_what_is_wrong_is_told_with_its_line_and_the_rest_isread_text(tmp_path: Path) -> None:
    text = (
        "file,start_s,end_s,label\na.wav,0,1,Dogg\na.wav,2,1,Dog\na.wav,-1,1,Dog\na.wav,x,1,Dog\n"
        "a.wav,0,,Dog\na.wav,0,1,\na.wav,0,1,Dog;Catt\na.wav,0,1\n"
    )
    found = read_text(tmp_path / "t.csv", text)
    assert said(found) == [((0.0, 1.0), DOG, "present")]
    assert [p.place for p in found.problems] == [f"line {n}" for n in range(2, 10)]
    told = [p.text for p in found.problems]
    assert "did you mean 'Dog'" in told[0]
    assert told[1:3] == [
        "2 s to 1 s: it ends before it starts", "-1 s to 1 s begins before the recording",
    ]  # fmt: skip
    assert "did you mean 'Cat'" in told[6]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"path": ["/x/a.wav"], "mid": [DOG], "name": ["Dog"],
                           "start_s": [0.5], "end_s": [1.5], "id": [None]})  # fmt: skip
    parquet.write_table(table, tmp_path / "t.parquet")
    found = read_marks(tmp_path / "t.parquet", load_default())
    assert said(found) == [((0.5, 1.5), DOG, "present")]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1garbage")
    with pytest.raises(UserError, match="cannot read"):
        read_marks(tmp_path / "bad.parquet", load_default())


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("a.wav.txt", ["a.wav"]), ("a.Table.1.selections.txt", ["a"]), ("a.wav.vtt", ["a.wav"]),
        ("a.BirdNET.selection.table.txt", ["a"]), ("a_labels.txt", ["a"]),
        ("a%20b.wav.selections.txt", ["a%20b.wav", "a b.wav"]), ("rec.2024.txt", ["rec.2024"]),
    ],
)  # fmt: skip
def test_the_recordings_name_from_the_files(name: str, last: list[str]) -> None:
    keys = keys_of_own_name(Path("/x/sub") / name)
    assert set(last) <= set(keys)
    assert f"sub/{last[0]}" in keys
    assert keys.index(f"sub/{last[0]}") < keys.index(last[0])
    assert "rec" not in keys


def test_numbers_and_moments() -> None:
    assert [seconds(t) for t in ("1,5", " .5 ", "1e1", "0:01.5", "1:00:00", "")] == [
        1.5, 0.5, 10.0, 1.5, 3600.0, None,
    ]  # fmt: skip
    assert [seconds(t) for t in ("nan", "inf", "1.2.3", "1:75", "1 s")] == [None] * 5
    assert moment("2026-05-01 10:00+02:00") == datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert moment("5/1/26") is None


def test_files_and_folders(tmp_path: Path) -> None:
    for name in ("b/x.txt", "b/y.selections.txt", "b/c/z.TextGrid", "b/photo.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("0\t1\tDog\n")
    found = mark_files([tmp_path / "b", tmp_path / "b/x.txt"])
    assert [p.name for p in found] == ["z.TextGrid", "x.txt", "y.selections.txt"]
    with pytest.raises(UserError, match="there is no file"):
        mark_files([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.phn").write_text("0 7812 h#")
    with pytest.raises(UserError, match="counts in samples"):
        format_of(tmp_path / "a.phn")
    with pytest.raises(UserError, match="is 'start_frame' the start of a sound"):
        read_text(tmp_path / "f.csv", "file,start_frame,label\na.wav,1,Dog\n")
    with pytest.raises(UserError, match="holds no"):
        mark_files([tmp_path / "empty"])
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\0\0\0")
    with pytest.raises(UserError, match="is neither text"):
        format_of(tmp_path / "p.png")


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # crowsetta's call of pandas
@pytest.mark.parametrize(
    ("file", "reader", "column"),
    [
        ("Recording_1_Segment_02.Table.1.selections.txt", "Raven", "Species"),
        ("405_marron1_June_14_2016_69640887.audacity.txt", "AudSeq", None),
        ("spinetail.txt", "AudBBox", None),
        ("bl26lb16_190412_0721.20144_annotations.csv", "SimpleSeq", None),
        ("bird1.csv", "GenericSeq", None),
        ("AVO-maea-basic.TextGrid", "TextGrid", None),
    ],
)
def test_what_crowsetta_reads_reads_alike(file: str, reader: str, column: str | None) -> None:
    """Its own example files, which people's programs wrote."""
    crowsetta = pytest.importorskip("crowsetta")
    path = Path(crowsetta.examples.__file__).parent / file
    theirs = _by_crowsetta(crowsetta, path, reader)
    labels = {label: DOG for *_, label in theirs}
    found = read_marks(path, load_default(), column=column, classes=labels)
    # Points of a TextGrid are nothing to crowsetta.
    assert {p.place.partition(",")[0] for p in found.problems} <= {"tier 1 (Tones)"}
    mine = sorted(mark.span_s for mark in found.marks if mark.span_s)
    # It rounds to milliseconds; the same span twice is one mark.
    assert len(mine) + sum(found.counts.values()) == len(theirs)
    for one, other in zip(mine, sorted({(a, b) for a, b, _ in theirs}), strict=True):
        assert one == pytest.approx(other, abs=0.00051)


def _by_crowsetta(crowsetta: Any, path: Path, reader: str) -> list[tuple[float, float, str]]:
    if reader in ("Raven", "AudBBox"):
        options = {"annot_col": "Species"} if reader == "Raven" else {}
        read = getattr(crowsetta, reader).from_file(path, **options)
        return [(b.onset, b.offset, b.label) for b in read.to_bbox()]
    if reader == "SimpleSeq":
        columns = {"start_seconds": "onset_s", "stop_seconds": "offset_s", "name": "label"}
        read = crowsetta.SimpleSeq.from_file(
            path, columns_map=columns, read_csv_kwargs={"index_col": 0}
        )
        sequences = [read.to_seq()]
    elif reader == "GenericSeq":
        sequences = [annot.seq for annot in crowsetta.GenericSeq.from_file(path).to_annot()]
    else:
        kind = crowsetta.formats.seq.TextGrid if reader == "TextGrid" else crowsetta.AudSeq
        read = kind.from_file(path).to_seq()
        sequences = read if isinstance(read, list) else [read]
    segments = [segment for sequence in sequences for segment in sequence.segments]
    return [(s.onset_s, s.offset_s, s.label) for s in segments if s.label]
