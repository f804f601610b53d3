from __future__ import annotations

from pathlib import Path

import pytest

from audioset_core.errors import UserError
from audioset_core.evaluation.truth_files import (
    Event,
    Item,
    Truth,
    TruthFormat,
    _esc_classes,
    in_segments,
    read_truth,
)
from audioset_core.ontology.graph import load_default

DOG, SPEECH, MUSIC, CAT = "/m/0bt9lr", "/m/09x0r", "/m/04rlf", "/m/01yrx"


def read(tmp_path: Path, kind: TruthFormat, text: str) -> Truth:
    path = tmp_path / "truth"
    path.write_text(text, encoding="utf-8")
    return read_truth(path, kind, load_default())


def test_esc(tmp_path: Path) -> None:
    text = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "1-100038-A-14.wav,1,14,can_opening,False,100038,A\n"
    )
    truth = read(tmp_path, "esc", text)
    assert truth.items == (Item(("1-100032-A-0.wav",), frozenset({DOG})),)
    assert truth.is_exclusive
    assert truth.left_out == {"recordings of ESC-50 classes that AudioSet lacks": 1}


def test_esc10s_folders_are_categories_too(tmp_path: Path) -> None:
    truth = read(tmp_path, "esc", "path,category\na/x.ogg,Dog bark\n")
    assert truth.items == (Item(("a/x.ogg",), frozenset({DOG})),)


def test_the_classes_of_esc50_are_in_the_ontology() -> None:
    named = [name for name in _esc_classes().values() if name]
    assert len({each for each in _esc_classes() if each}) == 54  # with four of ESC-10's own
    for name in named:
        assert load_default().find(name).name == name


def test_audioset_segments(tmp_path: Path) -> None:
    text = (
        "# Segments csv created Sun Mar  5 10:54:31 2017\n"
        "# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=4\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        f'--4gqARaEJE, 0.000, 10.000, "{DOG},/m/068hy,/t/nowhere"\n'
        f'-0xzrMun0Rs, 30.000, 40.000, "{SPEECH}"\n'
    )
    truth = read(tmp_path, "audioset-segments", text)
    first, second = truth.items
    assert first.positives == {DOG, "/m/068hy"}
    assert second.segment_s == (30.0, 40.0)
    assert second.keys[0] == "-0xzrMun0Rs_30000"
    assert {"-0xzrMun0Rs_30.000", "-0xzrMun0Rs_30_40", "Y-0xzrMun0Rs"} <= set(second.keys)
    assert second.keys[-1] == "-0xzrMun0Rs"
    assert truth.left_out == {"labels that the ontology lacks": 1}
    assert not truth.is_exclusive


def test_audioset_strong(tmp_path: Path) -> None:
    text = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        f"s9d-2nhuJCQ_30000\t2.627\t7.237\t{SPEECH}\n"
        f"s9d-2nhuJCQ_30000\t0.000\t1.5\t{DOG}\n"
        "b_0_1000\t0.000\t1.5\t/m/nowhere\n"
    )
    truth = read(tmp_path, "audioset-strong", text)
    first, second = truth.items
    assert first.events == (Event(SPEECH, 2.627, 7.237), Event(DOG, 0.0, 1.5))
    assert (first.positives, first.segment_s) == ({SPEECH, DOG}, (30.0, 40.0))
    assert first.keys[0] == "s9d-2nhuJCQ_30000"
    assert (second.positives, second.keys[-1]) == (frozenset(), "b_0")
    assert truth.has_times


def test_fsd50k(tmp_path: Path) -> None:
    text = (
        "fname,labels,mids,split\n"
        f'64760,"Bark,Dog","/m/05tny_,{DOG}",train\n'
        f"16399,Speech,{SPEECH},val\n"
    )
    truth = read(tmp_path, "fsd50k", text)
    assert truth.items[0] == Item(("64760",), frozenset({"/m/05tny_", DOG}))


@pytest.mark.parametrize(
    ("cell", "mids"),
    [
        ("Dog", {DOG}),
        ("dog; Speech", {DOG, SPEECH}),
        ('"Domestic animals, pets|Dog"', {"/m/068hy", DOG}),
        (f'"{DOG},{SPEECH} {MUSIC}"', {DOG, SPEECH, MUSIC}),
        ("", set()),
    ],
)
def test_a_table_names_classes_as_people_do(tmp_path: Path, cell: str, mids: set[str]) -> None:
    (item,) = read(tmp_path, "csv", f"file,label\na.wav,{cell}\n").items
    assert (item.keys, item.positives, item.negatives) == (("a.wav",), mids, None)


def test_lines_of_one_recording_or_span_belong_together(tmp_path: Path) -> None:
    text = "path,mid,start_s,end_s\na,/m/0bt9lr,,\na,/m/09x0r,,\na,/m/09x0r,1,2.5\n"
    whole, span = read(tmp_path, "csv", text).items
    assert (whole.positives, whole.span_s) == ({DOG, SPEECH}, None)
    assert (span.positives, span.span_s) == ({SPEECH}, (1.0, 2.5))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "File;Label;start_s;end_s\nä.wav;Dog;0,5;1,25\n",
        "sep=\t\nPATH\tClass\tStart_s\tEnd_s\nä.wav\tDog\t0.5\t1.25\n",
        'File Name,Label,start_s,end_s\n" ä.wav",Dog,"0,5",1.25\n',
    ],
)
def test_tables_as_programs_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "truth").write_bytes(text.encode(encoding))
    (item,) = read_truth(tmp_path / "truth", "csv", load_default()).items
    assert item == Item(("ä.wav",), frozenset({DOG}), None, (0.5, 1.25))


def test_the_message_says_what_was_seen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="separated by semicolons, reads 'recorder', 'loud'"):
        read(tmp_path, "csv", "recorder;loud\na;1\n")


@pytest.mark.parametrize(
    ("written", "keys"),
    [
        ("C:\\rec\\2024\\a.wav", ("C:\\rec\\2024\\a.wav", "a.wav")),
        ("\\\\nas\\rec\\a.wav", ("\\\\nas\\rec\\a.wav", "a.wav")),
        ("file:///C:/rec/a%20b.wav", ("C:/rec/a b.wav", "a b.wav")),
        ("file:///rec/a%20b.wav", ("/rec/a b.wav",)),
        ("~/a.wav", ("/home/me/a.wav",)),
    ],
)
def test_paths_as_people_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, keys: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (item,) = read(tmp_path, "csv", f"path;label\n{written};Dog\n").items
    assert item.keys == keys


def test_a_review(tmp_path: Path) -> None:
    clip = "a" * 64
    text = (
        "clip,path,start_s,end_s,mid,name,score,verdict,reviewed_at\n"
        f"{clip},/a.wav,0.0,1.44,{DOG},Dog,0.7,yes,2026-01-01\n"
        f"{clip},/a.wav,0.0,1.44,{CAT},Cat,0.3,no,2026-01-01\n"
        f"{clip},/a.wav,0.0,1.44,{SPEECH},Speech,0.3,unsure,2026-01-01\n"
        f"{clip},/a.wav,5.0,6.0,{SPEECH},Speech,0.3,unsure,2026-01-01\n"
        f"{clip},/a.wav,5.0,7.0,{DOG},Dog,0.3,No,2026-01-01\n"
        f"{clip},/a.wav,5.0,7.0,{DOG},Dog,0.3,yes,2026-01-02\n"
        f"{clip},/a.wav,5.0,7.0,{MUSIC},Music,0.3,no,2026-01-02\n"
    )
    truth = read(tmp_path, "csv", text)
    assert truth.items == (
        Item((clip, "/a.wav"), frozenset({DOG}), frozenset({CAT}), (0.0, 1.44)),
        Item((clip, "/a.wav"), frozenset(), frozenset({MUSIC}), (5.0, 7.0)),
    )
    assert truth.left_out == {
        "verdicts that are unsure": 2,
        "verdicts that contradict each other": 1,
    }
    assert truth.mids == tuple(sorted({DOG, CAT, MUSIC}))


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("csv", "file,label\na.wav,Dogg\n", r"line 2: .*'Dogg'; did you mean 'Dog'"),
        ("csv", "file,label\n,Dog\n", "line 2: no recording is named"),
        ("csv", "file,loud\na.wav,Dog\n", "no column mid or mids or label"),
        ("csv", "clip,mid,verdict\na.wav,Dog,maybe\n", "verdict 'maybe' is not one of yes, no"),
        ("csv", "file,label,start_s,end_s\na,Dog,3,1\n", "'3' to '1' is not a span"),
        ("csv", "file,label,start_s,end_s\na,Dog,nan,1\n", "'nan' to '1' is not a span"),
        ("csv", "clip,mid,verdict\na.wav,Dog,unsure\n", "names no recording that could be used"),
        ("csv", "", "no column clip or sha256"),
        ("esc", "filename,category\na.wav,dogg\n", r"line 2: .*'dogg'; did you mean 'dog'"),
        ("esc", "file,label\na,b\n", "no column filename or path: is its --format right"),
        ("audioset-segments", "a, b, c\n", "segment 1: expected YTID, start, end"),
        ("audioset-segments", 'a, 1, x, "/m/0bt9lr"\n', "not a span"),
        ("audioset-strong", "segment_id,label\n", "no column start_time_seconds"),
        ("fsd50k", "fname,labels\n", "no column mids"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_with_what_is_valid(
    tmp_path: Path, kind: TruthFormat, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, kind, text)


def test_a_strong_segment_without_its_start(tmp_path: Path) -> None:
    text = f"segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nabc\t1\t2\t{DOG}\n"
    with pytest.raises(UserError, match="'abc' is not YTID_milliseconds"):
        read(tmp_path, "audioset-strong", text)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "truth").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        read_truth(tmp_path / "truth", "csv", load_default())
    with pytest.raises(UserError, match="cannot read"):
        read_truth(tmp_path / "none", "csv", load_default())


def test_segments_hold_the_events_that_reach_into_them(tmp_path: Path) -> None:
    lines = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel"]
    lines += [f"a_30000\t2.5\t5.0\t{SPEECH}", f"a_30000\t4.9\t4.95\t{DOG}"]
    truth = in_segments(read(tmp_path, "audioset-strong", "\n".join(lines)), 2.5)
    assert [(item.span_s, item.positives) for item in truth.items] == [
        ((0.0, 2.5), set()),
        ((2.5, 5.0), {SPEECH, DOG}),
        ((5.0, 7.5), set()),
        ((7.5, 10.0), set()),
    ]
    for length_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"at least 0\.1 seconds"):
            in_segments(truth, length_s)


def test_segments_need_times(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="csv has none"):
        in_segments(read(tmp_path, "csv", "file,label\na.wav,Dog\n"), 1.0)
