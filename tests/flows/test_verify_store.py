"""``audioset verify`` and the flow: every damage is found, and repaired without a trace."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.flows import load_flow_from_entrypoint
from pydantic import SecretStr
from sqlalchemy import make_url, text

from audioset_core.storage.score_file_check import Fault, Promise, check_file, stored_files
from audioset_core.storage.score_files import npy_bytes, read_scores
from db.engine import writing
from db.ledger.claims import ENDED
from flows.verify import StoreDamagedError, verify
from tasks.store_check import check as store_check
from tasks.store_check import stray_files as store_folders
from tasks.store_check.check import check_store
from tasks.store_check.report import Damage, Report
from tests.db.conftest import new_database
from tests.flows.build import REPOSITORY, Lab, command, run_command, write_clip

Audioset = Callable[..., Any]
N_CLIPS = 4
HEADER_BYTES = 128
LONG_AGO = 1_000_000_000.0


@dataclass(frozen=True, slots=True)
class Workshop:
    """One place for corpus and home, put back for every test from what was labelled once."""

    folder: Path
    pristine: Path
    database: str | None = None

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.pristine, self.folder)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("shop") / "now", tmp_path_factory.mktemp("pristine"))
    for seed in range(N_CLIPS):
        path = shop.pristine / "corpus" / f"{seed}.wav"
        write_clip(path, seed, 2.0 + seed, 16_000 + 6_050 * seed)
    return shop


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def labelled(
    request: pytest.FixtureRequest, workshop: Workshop, prefect_server: str, placeholder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Workshop:  # fmt: skip
    """A labelled home on either database."""
    workshop.restore()
    url = f"sqlite:///{workshop.home / 'labels.db'}"
    if request.param == "postgresql":
        url = new_database(request.getfixturevalue("postgres_server"), "template0")
    lab = Lab(workshop.home, url, placeholder)
    lab.label(workshop.corpus)
    lab.engine.dispose()
    pristine = tmp_path_factory.mktemp(f"labelled-{request.param}") / "pristine"
    shutil.copytree(workshop.folder, pristine)
    return Workshop(workshop.folder, pristine, make_url(url).database)


@pytest.fixture
def store(request: pytest.FixtureRequest, labelled: Workshop, placeholder: Path) -> Iterator[Lab]:
    labelled.restore()
    url = f"sqlite:///{labelled.home / 'labels.db'}"
    if not str(labelled.database).endswith(".db"):
        server = request.getfixturevalue("postgres_server")
        url = new_database(server, str(labelled.database))
    lab = Lab(labelled.home, url, placeholder)
    yield lab
    lab.engine.dispose()


@pytest.fixture
def corpus(request: pytest.FixtureRequest, workshop: Workshop) -> Path:
    """The recordings; where the test has a `store`, those that it was made of."""
    if "store" in request.fixturenames:
        request.getfixturevalue("store")
    else:
        workshop.restore()
    return workshop.corpus


def _run(store: Lab, sql: str, **values: Any) -> None:
    with writing(store.engine) as conn:
        assert conn.execute(text(sql), values).rowcount > 0


def _file(store: Lab, kind: str = "scores") -> Path:
    """The first labelling's file."""
    (first,) = store.rows(f"SELECT {kind}_path FROM labellings ORDER BY id LIMIT 1")
    return store.home / str(first[0])


def _flip(path: Path, at_byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[at_byte] ^= 1
    path.write_bytes(data)


def _flip_header(store: Lab) -> None:
    _flip(_file(store), 30)


def _flip_data(store: Lab) -> None:
    _flip(_file(store), HEADER_BYTES + 100)


def _remove(store: Lab) -> None:
    _file(store).unlink()


def _truncate(store: Lab) -> None:
    os.truncate(_file(store), HEADER_BYTES + 10)


def _swap(store: Lab) -> None:
    """Another clip's file under this one's name."""
    (row,) = store.rows("SELECT scores_path FROM labellings ORDER BY id DESC LIMIT 1")
    _file(store).write_bytes((store.home / row[0]).read_bytes())


FIRST = "(SELECT min(id) FROM labellings)"


def _update(values: str, table: str = "labellings", key: str = "id") -> Callable[[Lab], None]:
    return lambda store: _run(store, f"UPDATE {table} SET {values} WHERE {key} = {FIRST}")


def _delete(table: str) -> Callable[[Lab], None]:
    return lambda store: _run(store, f"DELETE FROM {table} WHERE labelling_id = {FIRST}")


def _lower_scores(store: Lab) -> None:
    _run(store, f"UPDATE clip_scores SET peak = peak - 2 WHERE labelling_id = {FIRST}")


def _break_closure(store: Lab) -> None:
    _run(store, "DELETE FROM closure WHERE depth = 2 AND ancestor_id < 20")


# How, what it is called, whether a quick look finds it, whether the clip is labelled again.
DAMAGES: dict[str, tuple[Callable[[Lab], None], Damage, bool, bool]] = {
    "header bit": (_flip_header, Damage.DAMAGED, True, True),
    "data bit": (_flip_data, Damage.DAMAGED, False, True),
    "missing": (_remove, Damage.MISSING, True, True),
    "truncated": (_truncate, Damage.DAMAGED, True, True),
    "swapped": (_swap, Damage.DAMAGED, True, True),
    "no path": (_update("scores_path = NULL"), Damage.UNNAMED, True, True),
    "hostile path": (_update("scores_path = '../../etc/passwd'"), Damage.UNNAMED, True, True),
    "n_patches": (_update("n_patches = n_patches + 1"), Damage.PROMISE, True, False),
    "no n_patches": (_update("n_patches = NULL"), Damage.PROMISE, True, False),
    "n_patches 0": (_update("n_patches = 0"), Damage.PROMISE, True, False),
    "checksum": (_update(f"scores_sha256 = '{'0' * 64}'"), Damage.PROMISE, True, False),
    "end of checksum": (
        _update(f"scores_sha256 = substr(scores_sha256, 1, 20) || '{'0' * 44}'"),
        Damage.PROMISE, False, False,
    ),
    "type": (_update("score_dtype = 'float32'"), Damage.PROMISE, True, False),
    "not current": (
        lambda store: _run(store, f"UPDATE labellings SET is_current = (1 = 0) WHERE id = {FIRST}"),
        Damage.SPEECHLESS, True, False,
    ),
    "no classes": (_delete("clip_scores"), Damage.LABELS, False, False),
    "no detections": (_delete("detections"), Damage.LABELS, False, False),
    "peaks": (_lower_scores, Damage.LABELS, False, False),
    "intervals": (
        _update("end_patch = end_patch + 1", "detections", "labelling_id"),
        Damage.LABELS, False, False,
    ),
    "closure": (_break_closure, Damage.CLOSURE, True, False),
    "counts": (
        lambda store: _run(store, "UPDATE node_totals SET n_clips = n_clips + 1"),
        Damage.TOTALS, True, False,
    ),
}  # fmt: skip

# The kept counts show these too; the others perhaps, by how much they change.
COUNTED = ("not current", "no classes", "no detections", "closure")
PERHAPS_COUNTED = ("peaks", "intervals")


def _state(store: Lab) -> tuple[dict[str, Any], dict[str, tuple[bytes, int]], list[Any]]:
    """Results; every file with its content and time; the closure."""
    files = {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in store.home.rglob("*.npy")
    }
    closure = store.rows("SELECT * FROM closure ORDER BY ancestor_id, descendant_id")
    return store.results(), files, [tuple(row) for row in closure]


def _times(store: Lab) -> dict[int, Any]:
    return {row[0]: row[1] for row in store.rows("SELECT id, labelled_at FROM labellings")}


def _check(store: Lab, *, deep: bool = False, repair: bool = False) -> Report:
    return check_store(store.engine, store.home, is_deep=deep, is_repair=repair)


def _kinds(report: Report) -> set[Damage]:
    return set(report.found_kinds())


@pytest.fixture
def command_line(
    audioset: Audioset, store: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Audioset:
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object) -> Any:
        weights = ("--weights", store.weights) if "--repair" in arguments else ()
        return audioset("verify", "--home", store.home, "--db", store.url, *weights, *arguments)

    return run


class TestDamage:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", DAMAGES)
    def test_it_is_found_and_repaired_and_nothing_else_is_touched(
        self, store: Lab, command_line: Audioset, name: str
    ) -> None:
        damage, kind, is_quick, is_again = DAMAGES[name]
        results, files, closure = _state(store)
        times, own_file = _times(store), str(_file(store))
        damage(store)

        quick, deep = _check(store), _check(store, deep=True)
        also = {Damage.TOTALS} if name in (*COUNTED, *PERHAPS_COUNTED) else set()
        assert _kinds(quick) - also == ({kind} if is_quick else set())
        assert _kinds(deep) - also == {kind}
        if name in COUNTED:
            assert Damage.TOTALS in _kinds(quick) & _kinds(deep)
        assert command_line().code == (1 if quick.n_found else 0)
        assert command_line("--deep").code == 1

        said = command_line("--deep", "--repair")
        assert said.code == 0, said
        found_results, found_files, found_closure = _state(store)
        assert (found_results, found_closure) == (results, closure)
        assert {p: f[0] for p, f in found_files.items()} == {p: f[0] for p, f in files.items()}
        changed = {path for path in files if found_files[path] != files[path]}
        assert changed == ({own_file} if is_again else set())
        first = min(times)
        after = _times(store)
        assert {key for key in times if after[key] != times[key]} == (
            {first} if is_again else set()
        )
        store.check()
        clean = _check(store, deep=True)
        assert (clean.n_found, clean.n_left) == (0, 0)
        assert (clean.n_labellings, clean.n_files) == (N_CLIPS, N_CLIPS)

    def test_all_at_once(self, store: Lab, command_line: Audioset) -> None:
        results = store.results()
        for path in store.home.rglob("*.npy"):
            _flip(path, HEADER_BYTES + 20)
        _break_closure(store)
        assert _check(store, deep=True).n_of(Damage.DAMAGED) == N_CLIPS
        said = command_line("--deep", "--repair")
        assert said.code == 0, said
        assert "labelled again" in said.out
        assert store.results() == results
        assert command_line("--deep").code == 0

    @pytest.mark.slow
    def test_a_flipped_bit_anywhere_is_found_and_repaired(
        self, lab: Lab, corpus: Path, audioset: Audioset
    ) -> None:
        lab.label(corpus)
        results, files, _ = _state(lab)
        path = _file(lab)
        whole = path.read_bytes()
        choice = random.Random(20_170_305)
        (row,) = lab.rows(
            f"SELECT scores_sha256, n_patches, score_dtype FROM labellings WHERE id = {FIRST}"
        )
        promise = Promise(row[0], row[1], row[2], 521)
        assert check_file(path, promise, is_deep=True).fault is None
        # Every byte of the header, and as many of the scores, one bit each.
        places = {*range(HEADER_BYTES), *choice.sample(range(HEADER_BYTES, len(whole)), 100)}
        for at_byte in places:
            damaged = bytearray(whole)
            damaged[at_byte] ^= 1 << choice.randrange(8)
            path.write_bytes(damaged)
            assert check_file(path, promise, is_deep=True).fault is Fault.DAMAGED, at_byte
        report = _check(lab, deep=True)
        assert (_kinds(report), report.n_found) == ({Damage.DAMAGED}, 1)
        said = audioset(
            "verify", "--deep", "--repair", "--home", lab.home, "--weights", lab.weights
        )
        assert said.code == 0, said
        assert lab.results() == results
        assert path.read_bytes() == whole
        untouched = {p: f for p, f in files.items() if p != str(path)}
        assert untouched.items() <= _state(lab)[1].items()
        assert _check(lab, deep=True).n_found == 0

    @pytest.mark.slow
    def test_embeddings(self, lab: Lab, corpus: Path, audioset: Audioset) -> None:
        lab.label(corpus, embeddings=True)
        results, files, _ = _state(lab)
        _flip(_file(lab, "embeddings"), HEADER_BYTES + 20)
        assert _kinds(_check(lab)) == set()
        assert _kinds(_check(lab, deep=True)) == {Damage.DAMAGED}
        said = audioset(
            "verify", "--deep", "--repair", "--home", lab.home, "--weights", lab.weights
        )
        assert said.code == 0, said
        assert _state(lab)[0] == results
        assert {p: f[0] for p, f in _state(lab)[1].items()} == {p: f[0] for p, f in files.items()}
        assert _check(lab, deep=True).n_files == 2 * N_CLIPS

    def test_a_row_without_its_embeddings(self, lab: Lab, corpus: Path) -> None:
        lab.label(corpus, embeddings=True)
        _run(lab, f"UPDATE labellings SET embeddings_path = NULL WHERE id = {FIRST}")
        assert _kinds(_check(lab)) == {Damage.UNNAMED}

    def test_fewer_patches_than_the_recording_has(self, lab: Lab, corpus: Path) -> None:
        lab.label(corpus)
        _run(lab, "UPDATE clips SET n_samples = 3 * n_samples WHERE id = 1")
        report = _check(lab)
        assert _kinds(report) == {Damage.LENGTH}
        (finding,) = report.examples[Damage.LENGTH]
        assert "96,000 samples at 16000 Hz make 12" in finding.reason

    @pytest.mark.slow
    def test_scores_that_do_not_fit_the_recording_are_labelled_again(
        self, lab: Lab, corpus: Path, audioset: Audioset
    ) -> None:
        """Whole, named and promised as they are: another recording's, or one that was cut short."""
        lab.label(corpus)
        results, files, _ = _state(lab)
        path = _file(lab)
        short = npy_bytes(read_scores(path)[:-1])
        digest = hashlib.sha256(short).hexdigest()
        path.unlink()
        path = path.with_name(f"{path.name[:64]}-{digest[:16]}.npy")
        path.write_bytes(short)
        values = "scores_path = :path, scores_sha256 = :digest, n_patches = n_patches - 1"
        where = str(path.relative_to(lab.home))
        _run(lab, f"UPDATE labellings SET {values} WHERE id = {FIRST}", path=where, digest=digest)
        assert _kinds(_check(lab)) == {Damage.LENGTH}
        os.utime(path, (LONG_AGO, LONG_AGO))
        said = audioset(
            "verify", "--deep", "--repair", "--home", lab.home, "--weights", lab.weights
        )
        assert said.code == 0, said
        assert lab.results() == results
        assert {p: f[0] for p, f in _state(lab)[1].items()} == {p: f[0] for p, f in files.items()}

    @pytest.mark.parametrize(
        "options",
        [
            {"patch_hop_s": 0.24, "score_dtype": "float32"},
            {"framing": "seed"},
            {"framing": "pad", "embeddings": True},
        ],
    )
    def test_every_way_to_label_is_sound(
        self, lab: Lab, corpus: Path, options: dict[str, Any]
    ) -> None:
        write_clip(corpus / "short.wav", 7, 0.4)  # with the older port's framing without a patch
        lab.label(corpus, **options)
        report = _check(lab, deep=True)
        assert (report.n_found, report.n_labellings, report.notes) == (0, N_CLIPS + 1, [])

    @pytest.mark.slow
    def test_a_model_without_a_head_is_sound(
        self, lab: Lab, corpus: Path, vggish_without_head: Path
    ) -> None:
        write_clip(corpus / "short.wav", 7, 0.4)
        lab.label(corpus, model="vggish", weights=vggish_without_head)
        report = _check(lab, deep=True)
        assert (report.n_found, report.n_files) == (0, N_CLIPS)
        os.truncate(_file(lab, "embeddings"), 200)
        assert _kinds(_check(lab)) == {Damage.DAMAGED}


@pytest.mark.slow
class TestSources:
    def test_without_its_file_a_labelling_is_kept_and_listed(
        self, store: Lab, command_line: Audioset, corpus: Path
    ) -> None:
        results = store.results()
        _remove(store)
        (corpus / "0.wav").unlink()
        for arguments in ((), ("--repair",), ("--repair",)):
            said = command_line(*arguments)
            assert said.code == 1
            assert "no source file is left to label again" in said.out
            assert store.results() == results

    def test_a_file_that_changed_is_not_the_clip(
        self, store: Lab, command_line: Audioset, corpus: Path
    ) -> None:
        _remove(store)
        write_clip(corpus / "0.wav", 99, 2.5)
        assert command_line("--repair").code == 1
        assert store.count("labellings", "status = 'done'") == N_CLIPS

    def test_any_copy_will_do(self, lab: Lab, corpus: Path, audioset: Audioset) -> None:
        (corpus / os.fsdecode(b"z-\xff copy.wav")).write_bytes((corpus / "0.wav").read_bytes())
        lab.label(corpus)
        results = lab.results()
        _remove(lab)
        (corpus / "0.wav").unlink()
        said = audioset("verify", "--repair", "--home", lab.home, "--weights", lab.weights)
        assert said.code == 0, said
        assert lab.results() == results

    def test_without_the_weights_it_waits_for_them(
        self, lab: Lab, corpus: Path, audioset: Audioset, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        from tests.flows.build import write_placeholder

        lab.label(corpus)
        results = lab.results()
        _remove(lab)
        other = write_placeholder(tmp_path / "other.safetensors", 1)
        home = ("--home", lab.home)
        said = audioset("verify", "--repair", *home, "--weights", other)
        assert said.code == 1
        assert "not labelled again with yamnet@placeholder-0" in said.err
        # The tables say so until it is done; an ordinary run does it as well.
        report = _check(lab)
        assert _kinds(report) == {Damage.UNDONE}
        (undone,) = report.examples[Damage.UNDONE]
        assert undone.reason == f"label again: {corpus / '0.wav'}"
        assert audioset("verify", *home).code == 1
        monkeypatch.setenv("AUDIOSET_WEIGHTS", str(lab.weights))
        said = audioset("verify", "--repair", *home)
        assert said.code == 0, said
        assert lab.results() == results
        lab.check()

    def test_an_ordinary_run_labels_what_was_reset(self, lab: Lab, corpus: Path) -> None:
        lab.label(corpus)
        results = lab.results()
        _remove(lab)
        assert _check(lab, repair=True).n_left == 1
        summary = lab.label(corpus)
        assert (summary.n_labelled, summary.n_known) == (1, N_CLIPS - 1)
        assert lab.results() == results
        lab.check()
        assert _check(lab, deep=True).n_found == 0

    def test_the_labelling_that_spoke_goes_on(
        self, lab: Lab, corpus: Path, audioset: Audioset
    ) -> None:
        lab.label(corpus)
        lab.label(corpus, patch_hop_s=0.24)
        results = lab.results()
        for path in lab.home.rglob("*.npy"):
            _flip(path, HEADER_BYTES + 20)
        home = ("--home", lab.home, "--weights", lab.weights)
        assert audioset("verify", "--deep", "--repair", *home).code == 0
        assert lab.results() == results
        assert lab.count("labellings", "is_current") == N_CLIPS
        # And where only the ones that do not speak are damaged.
        for (path,) in lab.rows("SELECT scores_path FROM labellings WHERE NOT is_current"):
            (lab.home / path).unlink()
        assert audioset("verify", "--repair", *home).code == 0
        assert lab.results() == results
        assert audioset("verify", "--deep", "--home", lab.home).code == 0


class TestFolders:
    @pytest.fixture
    def litter(self, store: Lab) -> dict[str, Path]:
        """What crashes leave, old and young, and what is none of our business."""
        good = _file(store)
        paths = {
            "old orphan": good.with_name(f"{good.name[:64]}-{'0' * 16}.npy"),
            "unknown clip": good.with_name(f"{good.name[:2]}{'1' * 62}-{'0' * 16}.npy"),
            "young orphan": good.with_name(f"{good.name[:64]}-{'1' * 16}.npy"),
            "old temporary": good.with_name(f".{'a' * 16}.tmp"),
            "young temporary": good.with_name(f".{'b' * 16}.tmp"),
            "notes": good.with_name("notes.txt"),
        }
        for name, path in paths.items():
            path.touch()
            if "young" not in name:
                os.utime(path, (LONG_AGO, LONG_AGO))
        return paths

    def test_only_what_is_old_and_unnamed_is_deleted(
        self, store: Lab, command_line: Audioset, litter: dict[str, Path]
    ) -> None:
        before = _state(store)[0]
        found = _check(store)
        assert (found.n_of(Damage.ORPHAN), found.n_of(Damage.TEMPORARY)) == (2, 1)
        assert (found.n_left, found.n_damage_left) == (3, 0)
        assert found.notes == ["left alone: 1 files that no labelling run writes"]
        assert command_line().code == 1
        assert all(path.exists() for path in litter.values())
        assert command_line("--repair").code == 0
        left = {name for name, path in litter.items() if path.exists()}
        assert left == {"young orphan", "young temporary", "notes"}
        assert _state(store)[0] == before
        assert command_line("--deep").code == 0

    def test_a_file_that_a_run_is_about_to_name_is_kept(
        self, lab: Lab, corpus: Path, audioset: Audioset
    ) -> None:
        """However old it looks: a claim whose run may be alive keeps it."""
        lab.label(corpus)
        path = _file(lab)
        os.utime(path, (LONG_AGO, LONG_AGO))
        claimed = "status = 'claimed', scores_path = NULL, is_current = (1 = 0), lease_until = :at"
        _run(lab, f"UPDATE labellings SET {claimed} WHERE id = {FIRST}", at=_soon())
        report = _check(lab, repair=True)
        assert path.exists()
        assert "left alone: 1 files of clips that a run has claimed" in report.notes
        _run(lab, f"UPDATE labellings SET lease_until = :at WHERE id = {FIRST}", at=str(ENDED)[:19])
        (before,) = lab.rows(f"SELECT token FROM labellings WHERE id = {FIRST}")
        _check(lab, repair=True)
        assert not path.exists()
        (after,) = lab.rows(f"SELECT token FROM labellings WHERE id = {FIRST}")
        assert after[0] == before[0] + 1

    @pytest.mark.slow
    def test_files_of_the_homes_own_database_are_safe_from_another(
        self, lab: Lab, corpus: Path, postgres_url: str
    ) -> None:
        lab.label(corpus)
        files = list(lab.home.rglob("*.npy"))
        for path in files:
            os.utime(path, (LONG_AGO, LONG_AGO))
        other = Lab(lab.home, postgres_url, lab.weights)
        other.label(corpus / "0.wav")
        report = _check(other, repair=True)
        other.engine.dispose()
        assert report.n_of(Damage.ORPHAN) == N_CLIPS - 1
        assert all(path.exists() for path in files)
        assert "may name the files" in report.notes[0]

    def test_a_home_that_is_not_there_is_a_mistake(
        self, lab: Lab, corpus: Path, audioset: Audioset
    ) -> None:
        lab.label(corpus)
        results = lab.results()
        (lab.home / "scores").rename(lab.home / "elsewhere")
        for arguments in ((), ("--repair",)):
            said = audioset("verify", "--home", lab.home, *arguments)
            assert said.code == 2
            assert said.err.count("\n") == 1
            assert "is its disk mounted?" in said.err
        assert lab.results() == results

    def test_a_file_that_cannot_be_deleted_is_left_and_told(
        self, lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Path, missing_ok: bool = False) -> None:
            raise PermissionError(1, "Operation not permitted")

        lab.label(corpus)
        orphan = _file(lab).with_name(f"{_file(lab).name[:64]}-{'0' * 16}.npy")
        orphan.touch()
        os.utime(orphan, (LONG_AGO, LONG_AGO))
        monkeypatch.setattr(store_folders.Path, "unlink", refuse)
        report = _check(lab, repair=True)
        assert report.n_left == 1
        (finding,) = report.examples[Damage.ORPHAN]
        assert finding.reason.endswith("cannot be deleted: Operation not permitted")

    def test_a_file_that_cannot_be_read_is_left_as_it_is(
        self, lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from audioset_core.storage.score_file_check import Checked

        lab.label(corpus)
        results = lab.results()
        bad = Checked(Fault.UNREADABLE, "Input/output error")
        monkeypatch.setattr(store_check, "check_file", lambda *_, **__: bad)
        report = _check(lab, deep=True, repair=True)
        assert (report.n_of(Damage.UNREADABLE), report.n_left) == (N_CLIPS, N_CLIPS)
        assert lab.results() == results


class TestBesideARun:
    @pytest.mark.slow
    def test_repairs_do_not_disturb_a_labelling_run(
        self, lab: Lab, tmp_path: Path, environment: Mapping[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """With no grace for results, so that only the claims protect what the run has written."""
        for seed in range(40):
            write_clip(tmp_path / "many" / f"{seed:02d}.wav", seed, 1.0 + seed / 40)
        monkeypatch.setattr(store_folders, "GRACE_S", 0.0)
        # Of temporary files nothing but their age is known: the hour is theirs.
        monkeypatch.setattr(
            store_folders,
            "stored_files",
            lambda home: (f for f in stored_files(home) if not getattr(f, "is_temporary", False)),
        )
        slow = (
            "import contextlib, time\n"
            "from flows.prefect_server import settings as engine_settings\n"
            "engine = engine_settings.server_for_command\n"
            "@contextlib.contextmanager\n"
            "def slow_engine(*arguments):\n"
            "    with engine(*arguments):\n"
            "        from tasks import persist\n"
            "        from tasks.labelling import shards\n"
            "        shards.MIN_SHARD_S, persist._BATCH = 2.0, 3\n"
            "        commit = persist.commit_labellings\n"
            "        def slowly(*arguments):\n"
            "            time.sleep(0.05)\n"
            "            return commit(*arguments)\n"
            "        persist.commit_labellings = slowly\n"
            "        yield\n"
            "engine_settings.server_for_command = slow_engine\n"
        )
        process = subprocess.Popen(
            command("label", tmp_path / "many", "--home", lab.home, setup=slow),
            env=dict(environment), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        n_checks = n_seen = 0
        while process.poll() is None:
            with contextlib.suppress(Exception):  # no tables yet
                n_seen = lab.count("labellings", "status = 'done'")
            if n_seen:
                report = _check(lab, deep=True, repair=True)
                assert report.n_found == 0, report.rows()
                n_checks += 1
            time.sleep(0.01)
        output = process.communicate()[0].decode()
        assert process.returncode == 0, output
        assert n_checks > 3
        lab.check()
        assert lab.count("labellings", "status = 'done'") == 40
        assert _check(lab, deep=True).n_found == 0


class TestWhatIsSaid:
    def test_a_table_and_a_conclusion(self, store: Lab, command_line: Audioset) -> None:
        for path in store.home.rglob("*.npy"):
            path.unlink()
        said = command_line()
        lines = said.out.splitlines()
        assert lines[0] == "what\thow many\twhere\twhy"
        assert lines[1].startswith(f"missing file\t{N_CLIPS}\tscores/yamnet/")
        assert len(lines) == 1 + N_CLIPS + 1
        assert lines[-1] == (
            f"{N_CLIPS} labellings and {N_CLIPS} files checked (headers and sizes): "
            f"{N_CLIPS} findings, {N_CLIPS} left"
        )
        assert "audioset verify --repair" in said.err

    def test_nothing_is_wrong(self, store: Lab, command_line: Audioset) -> None:
        said = command_line("--deep")
        assert (said.code, said.err) == (0, "")
        assert said.out.endswith("(every byte and every label): nothing is wrong\n")

    def test_json(self, store: Lab, command_line: Audioset) -> None:
        _remove(store)
        found = json.loads(command_line("--json").out)
        (finding,) = found["findings"]
        assert (finding["what"], finding["found"], found["left"]) == ("missing file", 1, 1)
        assert finding["examples"][0]["reason"] == "no such file"
        # Also while something is labelled again: that is told on stderr.
        said = command_line("--json", "--repair")
        repaired = json.loads(said.out)
        assert (said.code, repaired["left"], repaired["findings"][0]["reset"]) == (0, 0, 1)
        assert "labelled now" in said.err

    def test_examples_are_few_whatever_is_wrong(self) -> None:
        from tasks.store_check.report import Finding

        report = Report(is_deep=False)
        for number in range(1_000):
            report.add(Finding(Damage.MISSING, str(number), "no such file"))
        assert report.n_left == 1_000
        assert len(report.rows()) == 6
        assert report.rows()[-1] == ("", "", "... and 995 more", "")

    def test_no_database_yet(self, audioset: Audioset, tmp_path: Path) -> None:
        said = audioset("verify", "--home", tmp_path / "nowhere")
        assert said.code == 2
        assert "audioset label" in said.err
        assert not (tmp_path / "nowhere").exists()

    @pytest.mark.slow
    def test_a_look_loads_neither_torch_nor_prefect(
        self, lab: Lab, corpus: Path, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        lab.label(corpus)
        _break_closure(lab)
        probe = (
            "import sys\nfrom flows.cli.program import main\n"
            "try:\n    main()\nfinally:\n"
            "    print(sorted({'torch', 'prefect', 'alembic'} & sys.modules.keys()))\n"
        )
        for arguments in (["--deep"], ["--deep", "--repair"]):
            done = subprocess.run(
                [sys.executable, "-c", probe, "verify", "--home", str(lab.home), *arguments],
                env=dict(environment), cwd=REPOSITORY, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.stdout.splitlines()[-1] == "[]", done
        assert _check(lab).n_found == 0

    @pytest.mark.slow
    def test_from_a_shell(
        self, lab: Lab, corpus: Path, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        """The weights that labelled are found as for any run, here by the environment."""
        lab.label(corpus)
        _remove(lab)
        home = ("--home", lab.home)
        assert run_command("verify", *home, env=environment, cwd=tmp_path).returncode == 1
        done = run_command("verify", "--repair", *home, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert run_command("verify", *home, env=environment, cwd=tmp_path).returncode == 0


class TestFlow:
    def _verify(self, store: Lab, **parameters: Any) -> Report:
        return verify(home=store.home, database=SecretStr(store.url), **parameters)

    def test_it_loads_by_its_entrypoint(self) -> None:
        flow = load_flow_from_entrypoint("flows.verify.verify", use_placeholder_flow=False)
        assert (flow.name, flow.persist_result) == ("verify", False)
        fields = flow.parameters.properties
        assert list(fields) == ["home", "deep", "repair", "database"]
        assert all(field.get("description") for field in fields.values())

    def test_a_sound_store_is_green(self, store: Lab, prefect_server: str) -> None:
        report = self._verify(store, deep=True)
        assert (report.n_labellings, report.n_found) == (N_CLIPS, 0)

    def test_damage_is_red_and_shown(self, store: Lab, prefect_server: str) -> None:
        _remove(store)
        with pytest.raises(StoreDamagedError, match="1 findings, 1 left"):
            self._verify(store)
        with httpx.Client(base_url=prefect_server, timeout=30) as api:
            runs = api.post(
                "/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}
            ).json()
            of_run = {"artifacts": {"flow_run_id": {"any_": [runs[0]["id"]]}}}
            found = api.post("/artifacts/filter", json=of_run).json()
        assert runs[0]["name"] == f"verify {str(store.home)[-60:]}"
        assert runs[0]["state_type"] == "FAILED"
        pages = {a["key"]: a["data"] for a in found if a["key"]}
        assert pages.keys() == {"verify-report", "verify-findings"}
        assert "| missing file | 1 | scores/yamnet/" in pages["verify-report"]
        (row,) = json.loads(pages["verify-findings"])
        assert (row["what"], row["why"], row["outcome"]) == ("missing file", "no such file", "left")

    def test_litter_alone_is_green(self, lab: Lab, corpus: Path) -> None:
        lab.label(corpus)
        orphan = _file(lab).with_name(f"{_file(lab).name[:64]}-{'0' * 16}.npy")
        orphan.touch()
        os.utime(orphan, (LONG_AGO, LONG_AGO))
        assert self._verify(lab).n_left == 1
        assert self._verify(lab, repair=True).n_left == 0

    def test_a_repair_labels_again(
        self, store: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("AUDIOSET_WEIGHTS", str(store.weights))
        monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
        results = store.results()
        _flip_data(store)
        _lower_scores_of_last(store)
        report = self._verify(store, deep=True, repair=True)
        assert (report.n_found, report.n_left) == (2, 0)
        assert store.results() == results
        assert self._verify(store, deep=True).n_found == 0


def _lower_scores_of_last(store: Lab) -> None:
    last = "(SELECT max(id) FROM labellings)"
    _run(store, f"UPDATE clip_scores SET mean = mean + 2 WHERE labelling_id = {last}")


def _soon() -> str:
    """In the form that SQLite stores."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 600))
