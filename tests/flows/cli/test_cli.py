"""The command line: one clear line for a mistake, data on stdout, and no time wasted."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command

from audioset_core.models.registry import BUNDLES, find_bundle
from flows.cli.command import command_of
from flows.cli.main import app
from flows.cli.shared_options import Files
from flows.terminal import LabelProgress
from tasks.labelling.options import LabelOptions
from tasks.labelling.shards import Receipt, ShardCounts
from tasks.labelling.worklist import Discovery
from tests.flows.build import REPOSITORY, Lab, run_command, write_clip

Audioset = Callable[..., Any]
CLOSED = "127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def labelled(lab: Lab, tmp_path: Path) -> Lab:
    for seed in range(3):
        write_clip(tmp_path / "corpus" / f"clip{seed}.wav", seed)
    lab.label(tmp_path / "corpus")
    return lab


def _is_one_line(said: Any, code: int = 2) -> str:
    assert said.code == code, said
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("audioset: ")
    return str(said.err)


class TestMistakes:
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Path:
        write_clip(tmp_path / "corpus" / "clip.wav", 1)
        return tmp_path / "corpus"

    @pytest.fixture
    def label(self, audioset: Audioset, tmp_path: Path, placeholder: Path) -> Audioset:
        settings = ("--home", tmp_path / "home", "--weights", placeholder)
        return lambda *arguments: audioset("label", *arguments, *settings)

    def test_a_path_that_is_not_there(self, label: Audioset, corpus: Path) -> None:
        said = _is_one_line(label(corpus / "clipp.wav"))
        assert f"did you mean {str(corpus / 'clip.wav')!r}" in said

    def test_a_glob_that_matches_nothing(self, label: Audioset, corpus: Path) -> None:
        assert "no file matches" in _is_one_line(label(corpus / "*.flac"))

    def test_nothing_to_label(self, label: Audioset) -> None:
        assert "nothing to label" in _is_one_line(label())

    def test_an_unknown_model(self, label: Audioset, corpus: Path) -> None:
        said = _is_one_line(label(corpus, "--model", "yamnot"))
        assert "did you mean 'yamnet'? there is yamnet" in said

    @pytest.mark.parametrize("hop", ["0.005", "0.123", "0", "-1", "2", "nan", "inf"])
    def test_a_hop_that_is_none(self, label: Audioset, corpus: Path, hop: str) -> None:
        assert "--patch-hop" in _is_one_line(label(corpus, f"--patch-hop={hop}"))

    def test_weights_that_are_not_there(
        self, audioset: Audioset, corpus: Path, tmp_path: Path
    ) -> None:
        said = audioset("label", corpus, "--weights", tmp_path / "w.h5", "--home", tmp_path / "h")
        assert "no weights file" in _is_one_line(said)

    def test_a_missing_manifest(self, label: Audioset, tmp_path: Path) -> None:
        assert "manifest" in _is_one_line(label("--manifest", tmp_path / "none.csv"))

    @pytest.mark.parametrize(
        "url", ["mysql://me:secret@host/x", "secret", "postgresql://me:secret@[host/x", "sqlite://"]
    )
    def test_a_wrong_database_url(self, label: Audioset, corpus: Path, url: str) -> None:
        said = _is_one_line(label(corpus, "--db", url))
        assert url == "secret" or "secret" not in said

    def test_a_postgresql_that_nobody_answers_for(self, label: Audioset, corpus: Path) -> None:
        said = _is_one_line(label(corpus, "--db", f"postgresql://me:secret@{CLOSED}/x"))
        assert "***" in said
        assert "secret" not in said

    @pytest.mark.parametrize(
        "command",
        [
            ["query", "--under", "Dog"],
            ["show", "abcdef"],
            ["failures"],
            ["export", "json", "o.json"],
        ],
    )
    def test_no_database_yet(
        self,
        audioset: Audioset,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        command: list[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert "audioset label" in _is_one_line(audioset(*command, "--home", "nowhere"))
        assert not (tmp_path / "nowhere").exists()

    def test_an_unknown_class_is_answered_with_the_nearest_three(
        self, audioset: Audioset, labelled: Lab
    ) -> None:
        said = _is_one_line(audioset("query", "--under", "Dogg", "--home", labelled.home))
        assert said.count("'") == 2 + 2 * 3
        assert "'Dog'" in said

    def test_a_score_below_what_is_stored(self, audioset: Audioset, labelled: Lab) -> None:
        said = audioset("query", "--under", "Dog", "--min-score", "0.05", "--home", labelled.home)
        assert "at least 0.1" in _is_one_line(said)

    def test_a_subtree_that_cannot_be_predicted(self, audioset: Audioset, labelled: Lab) -> None:
        said = audioset("query", "--under", "Kettle whistle", "--home", labelled.home)
        assert "cannot predict 'Kettle whistle'" in _is_one_line(said)

    @pytest.mark.parametrize("clip", ["no/such.wav", "000000", "0000"])
    def test_a_clip_that_was_never_seen(self, audioset: Audioset, labelled: Lab, clip: str) -> None:
        _is_one_line(audioset("show", clip, "--home", labelled.home))

    def test_a_download_says_its_size_where_it_is_known(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from flows.cli import labelling

        def fetched(*totals: int) -> list[str]:
            def prepare(_bundle: object, _given: object, progress: Callable[..., None]) -> None:
                for total in totals:
                    for done in (1_000, 9_000_000, 21_500_000, 40_000_000):
                        progress(done, total)

            monkeypatch.setattr(labelling.weights_files, "peek", lambda *_: None)
            monkeypatch.setattr(labelling.weights_files, "find_source", lambda *_: None)
            monkeypatch.setattr(labelling.weights_files, "prepare", prepare)
            labelling.ready_weights(find_bundle("mn10" if totals[0] else "ced_tiny"), None)
            return capsys.readouterr().err.splitlines()

        first, *lines = fetched(40_000_000)
        assert first.endswith("mn10_as_mAP_471.pt (19.7 MB)")
        assert lines == [
            "  0 %  0.0 of 40.0 MB", " 22 %  9.0 of 40.0 MB", " 53 %  21.5 of 40.0 MB",
            "100 %  40.0 of 40.0 MB",
        ]  # fmt: skip
        first, *lines = fetched(0)
        assert first.endswith("/model.safetensors")
        assert lines == ["0.0 MB", "21.5 MB", "40.0 MB"]

    def test_no_network_and_no_weights(
        self, corpus: Path, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        env = {k: v for k, v in environment.items() if not k.startswith("AUDIOSET_")}
        env |= {"AUDIOSET_CACHE": str(tmp_path / "empty"), "HTTPS_PROXY": f"http://{CLOSED}"}
        env |= {"https_proxy": f"http://{CLOSED}", "NO_PROXY": "", "no_proxy": ""}
        done = run_command("label", corpus, "--home", tmp_path / "home", env=env, cwd=tmp_path)
        lines = done.stderr.decode().splitlines()
        assert done.returncode == 2
        assert lines[0].startswith("downloading https://")
        assert lines[-1].startswith("audioset: cannot download")
        assert "--weights" in lines[-1]
        assert "AUDIOSET_WEIGHTS" in lines[-1]
        assert len(lines) == 2
        # Nothing that a later run could take for weights.
        assert not list((tmp_path / "empty").rglob("*.h5"))


class TestAnswers:
    def test_query_as_json_and_csv_and_text(self, audioset: Audioset, labelled: Lab) -> None:
        query = ("query", "--under", "Animal", "--min-score", "0.1", "--home", labelled.home)
        hits = json.loads(audioset(*query, "--json").out)
        assert len(hits) == 3
        assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)
        rows = list(csv.DictReader(io.StringIO(audioset(*query, "--csv").out)))
        assert [row["clip"] for row in rows] == [hit["clip"] for hit in hits]
        assert [float(row["score"]) for row in rows] == [hit["score"] for hit in hits]
        text = audioset(*query, "--limit", "2")
        assert len(text.out.splitlines()) == 3
        assert "the first 2 of 3 clips; more with --limit" in text.err

    def test_show_by_path_and_by_id(
        self, audioset: Audioset, labelled: Lab, tmp_path: Path
    ) -> None:
        by_path = audioset("show", tmp_path / "corpus" / "clip1.wav", "--home", labelled.home)
        clip = by_path.out.split()[1]
        assert audioset("show", clip[:12], "--home", labelled.home).out == by_path.out
        found = json.loads(audioset("show", clip, "--home", labelled.home, "--json").out)
        assert found["clip"]["sha256"] == clip
        assert found["labels"]
        assert found["detections"]

    def test_no_failures(self, audioset: Audioset, labelled: Lab) -> None:
        said = audioset("failures", "--home", labelled.home)
        assert (said.code, said.out) == (0, "no file failed\n")

    def test_models_says_what_is_labelled(self, audioset: Audioset, labelled: Lab) -> None:
        said = audioset("models", "--home", labelled.home, "--json")
        (found,) = json.loads(said.out)["labelled"]
        expected = {"name": "yamnet", "version": "placeholder-0", "labelled": 3}
        assert expected.items() <= found.items()

    def test_models_are_a_row_each_and_one_has_all_details(self, audioset: Audioset) -> None:
        """Rows fit 80 columns; the page of one model has the address or the path."""
        rows = audioset("models", "--home", "absent").out.splitlines()
        shown = {row.partition("\t")[0]: row for row in rows}
        assert shown.keys() >= BUNDLES.keys()
        assert max(len(row.expandtabs(1)) for row in rows) <= 80
        assert shown["mn20"].endswith("\tfile needed")
        said = audioset("models", "show", "mn20")
        assert "/mn20_as_mAP_478.pt and give the file with --weights or AUDIOSET" in said.out
        found = json.loads(audioset("models", "show", "ced_tiny", "--json").out)
        assert (found["classes"], found["window_s"], found["mAP"]) == (527, 10.0, 0.481)
        said = audioset("models", "show", "mn21")
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("audioset: no model is called 'mn21'; did you mean 'mn20'?")

    def test_convert_overwrites_no_source(self, audioset: Audioset, tmp_path: Path) -> None:
        source = tmp_path / "model.safetensors"
        source.write_bytes(b"x")
        said = audioset("convert", source)
        assert (said.code, source.read_bytes()) == (2, b"x")
        assert "model.safetensors would be overwritten: name another file with --output" in said.err

    def test_progress_is_on_stderr_and_ends_at_all(
        self, audioset: Audioset, lab: Lab, tmp_path: Path
    ) -> None:
        for seed in range(4):
            write_clip(tmp_path / "a" / f"{seed}.wav", seed, 5.0)
        said = audioset("label", tmp_path / "a", "--home", lab.home, "--weights", lab.weights)
        assert said.code == 0
        assert "%" not in said.out
        assert "100%  4/4 clips" in said.err.splitlines()[-1]


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*path, name))
    yield path, command


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*c, id=" ".join(c[0])) for c in _commands(get_command(app))]
)
def test_every_command_and_parameter_has_a_help_text(path: tuple[str, ...], command: Any) -> None:
    assert command.help, path
    without = [p.name for p in command.params if p.name != "help" and not getattr(p, "help", None)]
    assert without == []
    assert command.get_help(typer.Context(command))


_ASKING = ("query", "hours", "rank", "similar", "review", "export csv", "export raven",
           "export label-studio", "export sed-scores")  # fmt: skip


@pytest.mark.parametrize("path", _ASKING)
def test_a_condition_on_recordings_is_an_option_of_every_command_that_asks(path: str) -> None:
    commands = {" ".join(words): command for words, command in _commands(get_command(app))}
    offered = {parameter.name for parameter in commands[path].params}
    assert {field.name for field in fields(Files)} <= offered


@dataclass(frozen=True)
class _Pair:
    first: Annotated[str, typer.Option(help="The first.")]
    second: Annotated[int, typer.Option("--other", help="The second.")] = 2


def test_a_group_becomes_an_option_for_each_field() -> None:
    given = []

    def command(*, pair: _Pair, last: Annotated[bool, typer.Option("--last")] = False) -> None:
        given.append((pair, last))

    made = command_of("command", command)
    assert [parameter.name for parameter in made.params][:3] == ["first", "second", "last"]
    made(["--first", "a", "--last"], standalone_mode=False)
    made(["--first", "b", "--other", "3"], standalone_mode=False)
    assert given == [(_Pair("a"), True), (_Pair("b", 3), False)]


# Run in a process of its own: which of the heavy modules did the command load?
_HEAVY = ("torch", "prefect", "alembic", "fastapi", "pandas", "h5py", "openvino", "tensorflow")
_PROBE = f"""
import sys
from flows.cli.program import main
try:
    main()
except SystemExit as ended:
    print(*[name for name in {_HEAVY} if name in sys.modules], file=sys.stderr)
    sys.exit(ended.code)
"""


def _loaded(*arguments: str | Path, env: Mapping[str, str]) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *map(str, arguments)],
        env=dict(env), cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, set(done.stderr.splitlines()[-1].split())


def test_labelling_what_is_labelled_loads_neither(
    labelled: Lab, environment: Mapping[str, str], tmp_path: Path
) -> None:
    code, loaded = _loaded("label", tmp_path / "corpus", "--home", labelled.home, env=environment)
    assert code == 0
    assert loaded == set()
    assert not (labelled.home / "prefect.db").exists()


# What a name may be that a person or a program gave a file.
HOSTILE = {
    "newline": b"new\nline.wav",
    "quotes": b'it\'s "so" `called` $(id).wav',
    "emoji": "\N{DOG FACE} caf\u00e9 \u202egnp.wav".encode(),
    "bytes": b"latin-\xe9-\xff.wav",
    "dash": b"--help.wav",
    "escape": b"\x1b[2J\x1b]0;owned\x07red\x1b[31m.wav",
    "markup": b"<b>|bold|[red].wav",
    "formula": b"=1+1,semicolon;%s{0}.wav",
    "long": b"x" * 251 + b".wav",
}


@pytest.fixture(scope="module")
def hostile_home(
    prefect_server: str, placeholder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """A home that has labelled files of all those names, and met a bad one of each."""
    base = tmp_path_factory.mktemp("hostile")
    for seed, name in enumerate(HOSTILE.values()):
        write_clip(os.fsencode(base / "files") + b"/" + name, seed, 1.0, format="WAV")
        (base / "bad").mkdir(exist_ok=True)
        Path(os.fsdecode(os.fsencode(base / "bad") + b"/" + name)).write_text("no sound")
    lab = Lab(base / "home", f"sqlite:///{base}/home/labels.db", placeholder)
    assert lab.label(base / "files").n_labelled == len(HOSTILE)
    yield lab
    lab.engine.dispose()


def _is_harmless(data: bytes, *, lines: int | None = None) -> str:
    """Valid UTF-8 without a control character other than tab and the end of a line."""
    text = data.decode()
    assert [c for c in text if ord(c) < 32 and c not in "\t\n"] == []
    assert "\u202e" not in text
    if lines is not None:
        assert len(text.splitlines()) == lines
    return text


@pytest.mark.slow
class TestHostileNames:
    def test_label_reports_failures_safely(
        self, hostile_home: Lab, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        bad = hostile_home.home.parent / "bad"
        done = run_command("label", bad, "--home", tmp_path / "h", env=environment, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        _is_harmless(done.stdout)
        assert "this is text" in _is_harmless(done.stderr)
        listed = run_command("failures", "--home", tmp_path / "h", env=environment, cwd=tmp_path)
        _is_harmless(listed.stdout, lines=len(HOSTILE) + 1)

    @pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
    def test_query(
        self,
        hostile_home: Lab,
        environment: Mapping[str, str],
        tmp_path: Path,
        form: tuple[str, ...],
    ) -> None:
        done = run_command(
            "query", "--under", "Animal", "--min-score", "0.1", *form,
            "--home", hostile_home.home, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode()
        if form == ("--json",):
            assert len(json.loads(text)) == len(HOSTILE)
        elif form == ("--csv",):
            rows = list(csv.DictReader(io.StringIO(text)))
            assert len(rows) == len(HOSTILE)
            assert all(row["path"].endswith(".wav") for row in rows)
        else:
            _is_harmless(done.stdout, lines=len(HOSTILE) + 1)

    @pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
    def test_show_by_name(
        self, hostile_home: Lab, environment: Mapping[str, str], name: bytes, tmp_path: Path
    ) -> None:
        files = hostile_home.home.parent / "files"
        done = run_command(
            "show", "--home", hostile_home.home, "--", name, env=environment, cwd=files
        )
        assert done.returncode == 0, done.stderr
        assert _is_harmless(done.stdout).startswith("clip ")

    def test_export(self, hostile_home: Lab, audioset: Audioset, tmp_path: Path) -> None:
        said = audioset("export", "json", tmp_path / "o.json", "--home", hostile_home.home)
        assert said.code == 0
        assert len(json.loads((tmp_path / "o.json").read_text())["predictions"]) == len(HOSTILE)

    def test_a_single_file_with_a_leading_dash(
        self, hostile_home: Lab, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        files = hostile_home.home.parent / "files"
        done = run_command(
            "label", "--home", hostile_home.home, "--", HOSTILE["dash"], HOSTILE["bytes"],
            env=environment, cwd=files,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "labelled before\t2" in done.stdout.decode()

    def test_a_manifest_with_hostile_ids(
        self, lab: Lab, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        write_clip(tmp_path / "a.wav", 1)
        write_clip(tmp_path / "b.wav", 2)
        user_id = "../../etc/\x1b[31m\u202e\n id"
        entries = [{"path": "a.wav", "id": user_id, "meta": {"\x1b": "\n"}}, {"path": "b.wav"}]
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, entries)))
        assert lab.label(manifest=tmp_path / "m.jsonl").n_labelled == 2
        shown = run_command(
            "show", tmp_path / "a.wav", "--home", lab.home, env=environment, cwd=tmp_path
        )
        assert shown.returncode == 0
        _is_harmless(shown.stdout)
        out = tmp_path / "o.json"
        run_command("export", "json", out, "--home", lab.home, env=environment, cwd=tmp_path)
        assert user_id in [p["id"] for p in json.loads(out.read_text())["predictions"]]
        lab.check()

    @pytest.mark.parametrize("text", ["nul\0", "lone \ud800"])
    def test_an_id_that_no_database_takes_is_refused_in_one_line(
        self, audioset: Audioset, lab: Lab, tmp_path: Path, text: str
    ) -> None:
        write_clip(tmp_path / "a.wav", 1)
        (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.wav", "id": text}))
        said = audioset(
            "label", "--manifest", tmp_path / "m.jsonl", "--home", lab.home,
            "--weights", lab.weights,
        )  # fmt: skip
        assert said.code == 2
        assert "line 1: the 'id' holds characters" in _is_one_line(said)

    @pytest.mark.parametrize("text", ["nul\0", "lone \ud800"])
    def test_meta_may_hold_any_json_text(
        self, audioset: Audioset, lab: Lab, tmp_path: Path, text: str
    ) -> None:
        write_clip(tmp_path / "a.wav", 1)
        (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.wav", "meta": {"k": text}}))
        assert lab.label(manifest=tmp_path / "m.jsonl").n_labelled == 1
        for command in (["show", tmp_path / "a.wav", "--json"], ["export", "json", tmp_path / "o"]):
            assert audioset(*command, "--home", lab.home).code == 0
        exported = json.loads((tmp_path / "o").read_text())
        assert exported["predictions"][0]["meta"] == {"k": text}


def test_label_has_an_option_for_every_field_of_its_options(audioset: Callable[..., Any]) -> None:
    said = audioset("label", "--help")
    words = " ".join(said.out.split())
    for name, field in LabelOptions.model_fields.items():
        assert f"--{name.removesuffix('_s').replace('_', '-')} " in words
        assert field.description is not None
        assert " ".join(field.description.split())[:20] in words


def test_the_parts_of_a_clip_that_is_known_are_not_told_one_by_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def receipt(n_known: int) -> Receipt:
        return Receipt(ShardCounts(n_known=n_known), estimated_s=0.3)

    with LabelProgress() as progress:
        progress.begin(Discovery(n_items=1, estimated_s=3.0))
        for n_known in (1, 0, 0, 0):
            progress.advance(receipt(n_known))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["100%  1/1 clips, 0.00 h, 0 x real time, 0 failed"]
