from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from audioset_core.errors import UserError
from audioset_core.inputs.walk import (
    Found,
    PassedOver,
    find_recordings,
    folders_without_recordings,
    read_inputs,
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound")


def find(
    paths: Sequence[str | Path], manifest: Path | None = None, *, follow_symlinks: bool = False
) -> tuple[list[Found], PassedOver]:
    passed_over = PassedOver()
    inputs = read_inputs([str(p) for p in paths], manifest, follow_symlinks=follow_symlinks)
    found = list(find_recordings(inputs, passed_over))
    assert len({item.path for item in found}) == len(found), "a path was given twice"
    assert all(os.path.isabs(item.path) for item in found)  # noqa: PTH117
    return found, passed_over


def names(found: list[Found]) -> list[str]:
    return [os.path.relpath(os.fsdecode(item.path)) for item in found]


def refused(match: str, paths: Sequence[str] = (), manifest: Path | None = None) -> str:
    with pytest.raises(UserError, match=match) as caught:
        read_inputs(paths, manifest)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- folders, files and globs -------------------------------------------------------------------


def test_a_folder_is_walked_in_order() -> None:
    make("rec/b.wav", "rec/a.FLAC", "rec/sub/deep/c.mp3", "rec/sub/d.m4a", "rec/z.ogg")
    found, passed_over = find(["rec"])
    assert names(found) == [
        "rec/a.FLAC", "rec/b.wav", "rec/sub/d.m4a", "rec/sub/deep/c.mp3", "rec/z.ogg",
    ]  # fmt: skip
    assert find(["rec"])[0] == found
    assert passed_over == PassedOver()
    status = Path("rec/a.FLAC").stat()
    assert found[0] == Found(
        os.fsencode(Path("rec/a.FLAC").absolute()), status.st_size, status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )  # fmt: skip


def test_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    make("rec/a.wav", "b.wav")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opened a file")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert len(find(["rec", "b.wav"])[0]) == 2


def test_nested_and_repeated_roots_count_once() -> None:
    make("rec/a.wav", "rec/sub/b.wav", "rec-2/c.wav")
    expected = ["rec/a.wav", "rec/sub/b.wav"]
    for roots in (
        ["rec", "rec/sub"], ["rec/sub", "rec"], ["rec", "rec/"], ["./rec", "rec/../rec/sub"],
        ["rec", "rec/a.wav"], ["rec/a.wav", "rec", "rec/a.wav"], ["rec", "rec/**/*.wav"],
        [Path("rec").absolute(), "rec"],
    ):  # fmt: skip
        assert sorted(names(find(roots)[0])) == expected
    # A name that merely begins alike is another folder.
    assert sorted(names(find(["rec", "rec-2"])[0])) == ["rec-2/c.wav", *expected]


def test_the_root_of_the_file_system() -> None:
    make("a.wav")
    inputs = read_inputs(["/", "a.wav"])
    assert inputs.folders == (b"/",)
    assert read_inputs([".", "/"]).folders == (b"/",)


def test_many_folders_take_no_time() -> None:
    make(*(f"rec/{i:04}/a.wav" for i in range(1500)))
    assert len(find(["rec/*"])[0]) == 1500


def test_globs() -> None:
    make("rec/a.wav", "rec/b.flac", "rec/sub/c.wav", "rec/.hidden.wav", "x[1].wav")
    assert names(find(["rec/*.wav"])[0]) == ["rec/a.wav"]
    assert names(find(["rec/**/*.wav"])[0]) == ["rec/a.wav", "rec/sub/c.wav"]
    assert names(find(["rec/?.*"])[0]) == ["rec/a.wav", "rec/b.flac"]
    assert names(find(["rec/.h*"])[0]) == ["rec/.hidden.wav"]
    assert names(find(["rec/*/"])[0]) == ["rec/sub/c.wav"]
    assert names(find(["rec/**/**/../sub/[a-c].wav"])[0]) == ["rec/sub/c.wav"]
    assert names(find([f"{Path.cwd()}/*/*.wav"])[0]) == ["rec/a.wav"]
    # A name that looks like a pattern, but is there, is a name.
    assert names(find(["x[1].wav"])[0]) == ["x[1].wav"]
    refused(r"no file matches 'rec/\*\.aiff'", ["rec/*.aiff"])


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("HOME", str(here))
    make("rec/a.wav")
    assert names(find(["~/rec"])[0]) == ["rec/a.wav"]


def test_names_in_no_encoding() -> None:
    folder = os.fsencode(Path.cwd())
    for name in (b"caf\xe9.wav", b"\xff.wav", b"new\nline.wav"):
        os.close(os.open(folder + b"/" + name, os.O_CREAT | os.O_WRONLY))
    found, _ = find(["."])
    assert {item.path for item in found} == {
        folder + b"/" + name for name in (b"caf\xe9.wav", b"\xff.wav", b"new\nline.wav")
    }
    assert find([os.fsdecode(b"caf\xe9.wav")])[0][0].path == folder + b"/caf\xe9.wav"


@pytest.mark.parametrize("other_inputs", [[], ["rec"], ["rec", "rec/sub"]])
@pytest.mark.parametrize(
    "name",
    ["rec/odd.xyz", "rec/plain", "rec/a.wav", "rec/.hidden.wav", "rec/.dir/a.wav", "rec/link.wav",
     "rec/linked/b.wav", "rec/sub/notes.txt"],
)  # fmt: skip
def test_a_file_named_outright_counts_once_whatever_it_is(
    name: str, other_inputs: list[str]
) -> None:
    make("rec/a.wav", "rec/odd.xyz", "rec/plain", "rec/.hidden.wav", "rec/.dir/a.wav",
         "rec/sub/notes.txt", "elsewhere/b.wav")  # fmt: skip
    Path("rec/link.wav").symlink_to(Path("elsewhere/b.wav").absolute())
    Path("rec/linked").symlink_to(Path("elsewhere").absolute())
    for inputs in ([name, *other_inputs], [*other_inputs, name, name]):
        found, _ = find(inputs)
        assert names(found).count(name) == 1
        assert set(names(found)) == {name} | ({"rec/a.wav"} if other_inputs else set())


def test_a_file_named_outright_is_not_passed_over() -> None:
    make("rec/odd.xyz", "rec/other.xyz", "rec/.a.wav")
    _, passed_over = find(["rec", "rec/odd.xyz", "rec/.a.wav"])
    assert passed_over.by_suffix == {".xyz": 1}
    assert passed_over.n_hidden == 0


def test_a_file_that_vanishes_is_left_to_whoever_opens_it() -> None:
    make("a.wav")
    inputs = read_inputs(["a.wav"])
    Path("a.wav").unlink()
    (found,) = find_recordings(inputs, PassedOver())
    assert (found.size_bytes, found.mtime_ns) == (0, 0)


# --- what is passed over ------------------------------------------------------------------------


def test_everything_passed_over_is_tallied(here: Path) -> None:
    make("rec/a.wav", "rec/b.TXT", "rec/c.txt", "rec/README", "rec/.x.wav", "rec/.git/d.wav")
    make("elsewhere/e.wav")
    Path("rec/link.wav").symlink_to(here / "rec/a.wav")
    Path("rec/dangling.wav").symlink_to("nowhere")
    Path("rec/loop").symlink_to(here / "rec")
    Path("rec/elsewhere").symlink_to(here / "elsewhere")
    found, passed_over = find(["rec"])
    assert names(found) == ["rec/a.wav"]
    assert passed_over == PassedOver(
        by_suffix={".txt": 2, "no ending": 1},  # type: ignore[arg-type]
        n_links=4,
        n_hidden=2,
    )


def test_a_linked_folder_named_outright_is_walked(here: Path) -> None:
    make("elsewhere/e.wav")
    Path("rec").symlink_to(here / "elsewhere")
    assert names(find(["rec"])[0]) == ["rec/e.wav"]


def link(name: str, target: str | Path) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("pattern", ["rec", "rec/**/*.wav"])
def test_links_are_followed_only_on_request(here: Path, pattern: str) -> None:
    make("rec/a.wav", "elsewhere/deep/e.wav", "elsewhere/f.wav")
    link("rec/link.wav", here / "rec/a.wav")
    link("rec/aside", here / "elsewhere")  # sorts before what it leads to would
    link("elsewhere/further", here / "third")
    make("third/g.wav")
    found, passed_over = find([pattern])
    assert (names(found), passed_over.n_links) == (["rec/a.wav"], 2)
    found, passed_over = find([pattern], follow_symlinks=True)
    assert sorted(names(found)) == [
        "rec/a.wav", "rec/aside/deep/e.wav", "rec/aside/f.wav", "rec/aside/further/g.wav",
        "rec/link.wav",
    ]  # fmt: skip
    assert passed_over.n_links == 0
    assert find([pattern], follow_symlinks=True)[0] == found


@pytest.mark.parametrize("pattern", ["rec", "rec/**/*.wav", "rec/**", "**/*.wav", "*"])
def test_loops_of_links_end_and_real_paths_win(here: Path, pattern: str) -> None:
    make("rec/m/a.wav", "rec/z/b.wav")
    # Each alone is without end, and two in one folder double with every step.
    for name, target in (
        ("rec/a-loop", "."), ("rec/b-loop", "."), ("rec/m/up", ".."), ("rec/m/top", here / "rec"),
        ("rec/a-z", here / "rec/z"), ("rec/z/m", here / "rec/m"), ("rec/self.wav", "self.wav"),
        ("rec/one", "two"), ("rec/two", "one"),
    ):  # fmt: skip
        link(name, target)
    found, passed_over = find([pattern], follow_symlinks=True)
    assert [name for name in names(found) if name.endswith(("a.wav", "b.wav"))] == [
        "rec/m/a.wav", "rec/z/b.wav",
    ]  # fmt: skip
    # Opening it will tell that it leads nowhere.
    assert "rec/self.wav" in names(found)
    # The folder links that were not entered again, by the pattern and by the walk of its folders.
    assert passed_over.n_links in (6, 12)


def test_a_folder_is_entered_once_however_many_links_lead_there(here: Path) -> None:
    # Twenty floors with two stairs each: a million ways down.
    for floor in range(20):
        link(f"rec/{floor}/left", here / f"rec/{floor + 1}")
        link(f"rec/{floor}/right", here / f"rec/{floor + 1}")
    make("rec/20/a.wav")
    for pattern in ("rec/0", "rec/0/**/*.wav"):
        found, _ = find([pattern], follow_symlinks=True)
        assert len(found) == 1


def test_links_named_outright_are_followed(here: Path) -> None:
    make("elsewhere/e.wav")
    link("rec", here / "elsewhere")
    link("other.wav", here / "elsewhere/e.wav")
    for inputs, expected in ((["rec/*.wav"], "rec/e.wav"), (["other.wav"], "other.wav")):
        assert names(find(inputs)[0]) == [expected]
    assert names(find([], manifest("path\nrec/e.wav\n"))[0]) == ["rec/e.wav"]


def test_a_pattern_that_only_links_match_names_the_option(here: Path) -> None:
    make("elsewhere/e.wav")
    link("rec/link.wav", here / "elsewhere/e.wav")
    refused(r"no file matches 'rec/\*\.wav' but 1 links: --follow-symlinks", ["rec/*.wav"])


def test_two_links_to_one_file_are_two_names(here: Path) -> None:
    make("elsewhere/e.wav")
    link("rec/a.wav", here / "elsewhere/e.wav")
    link("rec/b.wav", here / "elsewhere/e.wav")
    link("rec/folder.wav", here / "elsewhere")
    assert names(find(["rec"], follow_symlinks=True)[0]) == [
        "rec/a.wav", "rec/b.wav", "rec/folder.wav", "rec/folder.wav/e.wav",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_listed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("rec/a.wav", "rec/closed/b.wav", "rec/open/c.wav")
    scandir = os.scandir
    closed = os.fsencode(here / "rec/closed")

    def refuse(folder: Any) -> Any:
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found, passed_over = find(["rec"])
    assert sorted(names(found)) == ["rec/a.wav", "rec/open/c.wav"]
    assert passed_over.unlistable == [f"{here}/rec/closed: Permission denied"]


def test_odd_things_with_an_audio_name_become_failures_not_silence(here: Path) -> None:
    make("rec/folder.wav/a.wav")
    os.mkfifo("rec/pipe.wav")
    found, _ = find(["rec"])
    assert sorted(names(found)) == ["rec/folder.wav", "rec/folder.wav/a.wav", "rec/pipe.wav"]


def test_a_folder_without_a_recording_says_what_it_holds(here: Path) -> None:
    make("rec/a.txt", "rec/b.txt", "rec/sub/c.jpg", "rec/.d.wav", "ok/a.wav", "ok/sub/x.txt")
    Path("rec/e.wav").symlink_to("elsewhere")
    Path("empty").mkdir()

    def barren(*paths: str) -> list[str]:
        return folders_without_recordings(read_inputs(paths))

    assert barren("rec", "ok", "ok/a.wav") == [
        f"no recording in '{here}/rec': its files have other endings (.txt 2, .jpg 1); name a "
        f"file, or a pattern such as 'folder/*.xyz', to label it whatever its ending; "
        f"1 links: --follow-symlinks; 1 hidden"
    ]
    assert barren("empty") == [
        f"no recording in '{here}/empty': it is empty (is its disk mounted?)"
    ]
    assert barren("*", "ok") == []  # a pattern may meet folders without
    assert barren("ok", "ok/sub") == [
        f"no recording in '{here}/ok/sub': its files have other endings (.txt 1); name a file, "
        f"or a pattern such as 'folder/*.xyz', to label it whatever its ending"
    ]


def test_every_ending_is_counted() -> None:
    make(*(f"rec/{n}.e{n % 30:02}" for n in range(45)), "rec/a.wav")
    _, passed_over = find(["rec"])
    assert passed_over.by_suffix.total() == 45
    assert passed_over.endings.startswith(".e00 2, .e01 2")
    assert passed_over.endings.endswith(".e28 1, .e29 1")


def test_very_deep_folders() -> None:
    depth = 1200
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    make("a.wav")
    os.chdir("/".join([".."] * depth))
    found, passed_over = find(["d"])
    # Python's own removal of folders does not go that deep.
    subprocess.run(["rm", "-r", "d"], check=True)
    # As far as the operating system takes a name (4,096 bytes), and beyond that with a word.
    assert len(found) + len(passed_over.unlistable) == 1


# --- what is not there --------------------------------------------------------------------------


def test_nothing_was_asked_for() -> None:
    refused("nothing to label")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("recordngs", "recordings"), ("recordings/mornin.wav", "recordings/morning.wav")],
)
def test_a_wrong_name_suggests_the_nearest(typed: str, meant: str) -> None:
    make("recordings/morning.wav", "other/x.wav")
    assert refused("no file or folder at", [typed]).endswith(f"did you mean {meant!r}?")


@pytest.mark.parametrize("typed", ["", "quite/elsewhere/x.wav", "zzz", "a\0b"])
def test_a_wrong_name_far_from_any(typed: str) -> None:
    make("recordings/morning.wav")
    assert "did you mean" not in refused("no file or folder at", [typed])


# --- manifests ----------------------------------------------------------------------------------


def manifest(text: str | bytes, name: str = "list.csv") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def listed(path: Path) -> list[tuple[str, str | None, dict[str, Any] | None]]:
    found, _ = find([], path)
    return [(name, item.user_id, item.meta) for name, item in zip(names(found), found, strict=True)]


def test_csv_with_everything(here: Path) -> None:
    make("data/a.wav", "data/ü, b.wav", "abs.wav")
    path = manifest(
        "\ufeffid,path,site,meta\r\n"
        '7,a.wav,north,"{""n"": 1, ""site"": ""south""}"\r\n'
        ',"ü, b.wav",,\r\n'
        f"x/../y,{here}/abs.wav,  spaced ,{{}}\r\n",
        "data/list.csv",
    )
    assert listed(path) == [
        ("data/a.wav", "7", {"site": "south", "n": 1}),
        ("data/ü, b.wav", None, None),
        ("abs.wav", "x/../y", {"site": "  spaced "}),
    ]


def test_csv_with_paths_alone() -> None:
    make("a.wav")
    assert listed(manifest("path\na.wav\n\nsub/../b.wav\n")) == [
        ("a.wav", None, None),
        ("b.wav", None, None),
    ]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_jsonl_keeps_id_and_meta_verbatim(bom: bytes) -> None:
    make("data/a.wav")
    meta = {"deep": [1, 2.5, None, {"é": True}], "empty": ""}
    lines = [
        {"path": "a.wav", "id": "clip #1", "meta": meta},
        {"path": "b.wav", "id": 12, "when": "dawn"},
        {"path": "c.wav", "meta": None},
        {"path": "d.wav", "meta": {}, "id": None},
        {"path": "e.wav", "site": 1, "meta": {"site": 2}},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    assert listed(manifest(bom + text.encode(), "data/list.jsonl")) == [
        ("data/a.wav", "clip #1", meta),
        ("data/b.wav", "12", {"when": "dawn"}),
        ("data/c.wav", None, None),
        ("data/d.wav", None, None),
        ("data/e.wav", None, {"site": 2}),
    ]


def test_a_listed_file_keeps_its_id_within_a_folder() -> None:
    make("rec/a.wav", "rec/b.wav", "rec/c.odd")
    path = manifest("path,id\nrec/a.wav,1\nrec/c.odd,2\n")
    found, passed_over = find(["rec", "rec/a.wav"], path)
    assert [(name, item.user_id) for name, item in zip(names(found), found, strict=True)] == [
        ("rec/a.wav", "1"),
        ("rec/c.odd", "2"),
        ("rec/b.wav", None),
    ]
    assert passed_over == PassedOver()


def test_names_in_no_encoding_can_be_listed() -> None:
    text = json.dumps({"path": os.fsdecode(b"caf\xe9.wav")})
    found, _ = find([], manifest(text, "list.jsonl"))
    assert found[0].path.endswith(b"/caf\xe9.wav")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "path\na.wav\nb.wav\nsub/../a.wav\n", "a.csv, line 4: the path of line 2 again"),
        ("a.csv", "path,id\na.wav,1\nb.wav,1\n", "a.csv, line 3: the id of line 2 again"),
        (
            "a.jsonl",
            '{"path": "a.wav", "id": 1}\n\n{"path": "b.wav", "id": "1"}\n',
            "a.jsonl, line 3: the id of line 1 again",
        ),
        ("a.csv", "", "the first line must name a column 'path'"),
        (
            "a.csv",
            "recorder;site\na.wav;b\n",
            "the first line must name a column 'path' .*, separated by semicolons, reads "
            "'recorder', 'site'",
        ),
        ("a.csv", "path;id\na.wav;1;2\n", r"line 2: not 2 columns .* \(separated by semicolons\)"),
        ("a.csv", "path\nC:\\rec\\a.wav\n", r"line 2: 'C:\\\\rec\\\\a.wav' is a Windows path"),
        ("a.csv", "path\n\\\\nas\\rec\\a.wav\n", "line 2: .* is a Windows path"),
        ("a.csv", "path\nfile:///C:/rec/a.wav\n", "line 2: .* is a Windows path"),
        ("a.csv", "path\nfile://nas/rec/a.wav\n", "line 2: .* is on machine 'nas'"),
        ("a.csv", "path,id\na.wav\n", "line 2: not 2 columns"),
        ("a.csv", "path,id\na.wav,1,2\n", "line 2: not 2 columns"),
        ("a.csv", "path,id\n,1\n", "line 2: 'path' is missing"),
        ("a.csv", "path,meta\na.wav,{\n", "line 2: not JSON"),
        ("a.csv", "path,meta\na.wav,[1]\n", "line 2: a JSON object is expected"),
        ("a.csv", b"path\ncaf\xe9.wav\n", "UTF-8"),
        ("a.csv", b"path\n" + b"x" * 200_000, "field"),
        ("a.jsonl", "{}\n", "line 1: 'path' is missing"),
        ("a.jsonl", '{"path": 3}\n', "line 1: 'path' is missing"),
        ("a.jsonl", '{"path": "a\\u0000b"}\n', "line 1: 'path' is missing"),
        ("a.jsonl", '{"path": "\\ud800"}\n', "line 1: .* cannot be the name of a file"),
        ("a.jsonl", '{"path": "a.wav"}\nnonsense\n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: a JSON object is expected"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", '{"path": "a.wav", "id": 1.5}\n', "line 1: 'id' must be"),
        ("a.jsonl", '{"path": "a.wav", "id": true}\n', "line 1: 'id' must be"),
        ("a.jsonl", '{"path": "a.wav", "meta": "x"}\n', "line 1: meta must be an object"),
        ("a.jsonl", '{"path": "a.wav", "meta": {"x": NaN}}\n', "line 1: not JSON"),
        ("a.jsonl", b'{"path": "\xff"}\n', "UTF-8"),
    ],
)
def test_what_is_wrong_with_a_manifest(name: str, text: str | bytes, message: str) -> None:
    refused(message, manifest=manifest(text, name))


@pytest.mark.parametrize(
    "text",
    [
        "path;id;site\na.wav;1;north, by the sea\n",
        "path\tid\tsite\na.wav\t1\tnorth, by the sea\n",
        "path|id|site\na.wav|1|north, by the sea\n",
        "sep=;\r\npath;id;site\r\na.wav;1;north, by the sea\r\n",
        'sep=~\npath~id~site\na.wav~1~north, by the sea\n',
        'path,id,site\n"a.wav","1","north, by the sea"\n',
        '#TYPE System.IO.FileInfo\n"FullName","Id","site"\n"a.wav","1","north, by the sea"\n',
        'File;ID;site\n  a.wav ;1;north, by the sea\n;;\n',
        '"File Name";"Id";"site";\na.wav;1;north, by the sea;\n',
        'Path,id,site\n"""a.wav""",1,"north, by the sea"\n',
        "FilePath\tid\tsite\na.wav\t1\tnorth, by the sea\n",
        "path,id,site\rsub/../a.wav,1,\"north, by the sea\"\r",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_tables_as_programs_write_them(text: str, encoding: str) -> None:
    make("a.wav")
    assert listed(manifest(text.encode(encoding))) == [
        ("a.wav", "1", {"site": "north, by the sea"})
    ]


def test_a_list_in_utf_16_of_lines_of_json() -> None:
    make("ü.wav")
    text = '{"File": "ü.wav", "id": 3, "n": 1}\n'
    assert listed(manifest(text.encode("utf-16"), "a.jsonl")) == [("ü.wav", "3", {"n": 1})]


def test_paths_as_people_write_them(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("HOME", str(here))
    make("a b.wav", "sub/c.wav", " d.wav", "e\\f.wav")
    for written, meant in (
        ("  a b.wav\t", "a b.wav"),
        ("~/sub/c.wav", "sub/c.wav"),
        (f"file://{here}/a%20b.wav", "a b.wav"),
        (f"FILE://localhost{here}/sub/c.wav", "sub/c.wav"),
        ("sub\\c.wav", "sub/c.wav"),
        (" d.wav", " d.wav"),
        ("e\\f.wav", "e\\f.wav"),
        ("'a b.wav'", "a b.wav"),
    ):
        assert listed(manifest(json.dumps({"path": written}), "a.jsonl")) == [(meant, None, None)]
        assert names(find([written])[0]) == [meant]
    for typed in ("C:\\rec\\a.wav", "D:/rec/*.wav", "\\\\nas\\rec"):
        refused("is a Windows path", [typed])


def test_what_is_listed_and_not_there_is_known_as_that() -> None:
    make("a.wav")
    Path("b.wav").symlink_to("nowhere.wav")
    found, _ = find([], manifest("path\na.wav\nb.wav\nc.wav\na.wav/d.wav\n"))
    assert [item.is_there for item in found] == [True, False, False, False]


def test_a_start_that_is_not_understood_is_remarked(here: Path) -> None:
    text = (
        "path;recorded_at\na.wav;18.05.2024 04:30\nb.wav;18.05.2024 05:30\nc.wav;2024-05-18 06:30\n"
    )
    (remark,) = read_inputs([], manifest(text)).remarks
    assert remark.startswith(
        "list.csv: recorded_at is not understood in 2 lines, first in line 2: '18.05.2024 04:30'"
    )
    assert "2024-05-18T04:30:00+02:00 (ISO 8601)" in remark
    assert "milliseconds" in remark
    assert read_inputs([], manifest("path;timestamp\na.wav;1716006600123\n")).remarks == ()


def test_no_manifest(here: Path) -> None:
    refused("cannot read the manifest", manifest=Path("absent.csv"))
    refused("cannot read the manifest", manifest=here)


def test_an_empty_manifest_is_an_empty_list() -> None:
    assert listed(manifest("path\n")) == []
    assert listed(manifest("", "a.jsonl")) == []
