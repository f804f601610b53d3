"""``audioset similar`` with an index answers as without one, whatever became of either since."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from audioset_core.storage import vector_index
from audioset_core.storage.atomic_files import write_atomically
from audioset_core.storage.score_files import npy_bytes
from db.engine import open_engine, sqlite_url, writing
from db.ledger.runs import finish_run, start_run
from db.records import RunCounts, RunStatus
from db.schema.tables import labellings
from flows.analysis.dataframes import open_labels
from flows.update_index import update_index
from tasks.indexing import update as update_module
from tests.db.build import NOW, RUN, sha
from tests.flows.collection import Collection, make_collection

Audioset = Callable[..., Any]
LATER = "00000000-0000-0000-0000-000000000002"
NAMES = tuple(f"{number:02}.wav" for number in range(40))
ASKED = ("/audio/07.wav", "/audio/07.wav@3.2")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Recordings of a run that has ended; one of them is being labelled by a later run."""
    made = make_collection(tmp_path_factory.mktemp("index") / "home", NAMES)
    start_run(made.engine, LATER, "host", 1, {}, NOW)
    _set(made, "38.wav", status="claimed", run_id=LATER)
    finish_run(made.engine, RUN, RunStatus.COMPLETED, RunCounts(0, 0, 0, 0, 0.0), {}, NOW)
    made.engine.dispose()
    return made


@pytest.fixture
def made(template: Collection, tmp_path: Path) -> Iterator[Collection]:
    home = shutil.copytree(template.home, tmp_path / "home")
    engine = open_engine(sqlite_url(home / "labels.db"))
    yield replace(template, home=home, engine=engine)
    engine.dispose()


@pytest.fixture
def run(audioset: Audioset, made: Collection) -> Callable[..., Any]:
    """A command in the collection's home, which may say "no"."""
    return lambda *arguments: audioset(*arguments, "--home", made.home)


def _set(made: Collection, name: str, **values: object) -> None:
    column = labellings.c.scores_path
    with writing(made.engine) as conn:
        is_own = update(labellings).where(column == f"scores/{sha(name)}.npy")
        assert conn.execute(is_own.values(values)).rowcount == 1


def _again(made: Collection, name: str, like: str) -> None:
    """Label a recording again, by which its embeddings become those of another."""
    path = f"embeddings/again-{sha(name)}.npy"
    write_atomically(made.home / path, npy_bytes(made.embeddings[like]))
    _set(made, name, embeddings_path=path, run_id=LATER)


def _similar(run: Callable[..., Any], asked: str, *options: str) -> tuple[list[Any], str]:
    said = run("similar", asked, "--top", "4", "--json", *options)
    assert said.code == 0, said
    return json.loads(said.out)["found"], said.err


def _assert_as_exact(run: Callable[..., Any], how: str) -> None:
    for asked in ASKED:
        found, told = _similar(run, asked)
        assert how in told
        exact, told = _similar(run, asked, "--exact")
        assert found == exact
        assert "with 39 other recordings" in told or "with 38 other recordings" in told


@pytest.mark.slow
def test_an_index_answers_as_the_files_do_whatever_changed_since(
    run: Callable[..., Any], made: Collection
) -> None:
    assert "added, 39 in all" in run("index", "build", "--moments").out
    _assert_as_exact(run, "from the index of 39 recordings\n")
    nearest = _similar(run, ASKED[0])[0][0]["path"].rpartition("/")[2]
    # The nearest sounds otherwise now, another one is the same sound, and one is new.
    _again(made, nearest, like="03.wav" if nearest != "03.wav" else "04.wav")
    _again(made, "21.wav", like="07.wav")
    _set(made, "38.wav", status="done", run_id=LATER)
    _assert_as_exact(run, "from the index of 39 recordings, 3 newer ones read one by one\n")
    assert _similar(run, ASKED[0])[0][0]["clip"] == sha("21.wav")
    # Then one is gone.
    _set(made, "21.wav", status="claimed")
    _assert_as_exact(run, "2 newer ones")
    said = run("index", "build", "--json")
    told = json.loads(said.out)["indexes"]
    assert [(each["rows"], each["n_new"]) for each in told] == [("recordings", 2), ("moments", 2)]
    _assert_as_exact(run, "from the index of 39 recordings\n")
    said = run("similar", ASKED[0], "--source", "1*", "--top", "4")
    assert "with 10 other recordings" in said.err, "an index cannot leave files out"
    frame = open_labels(made.home).similar(ASKED[0], top=4)
    assert frame["clip"].tolist() == [row["clip"] for row in _similar(run, ASKED[0])[0]]
    assert frame.attrs["how"].startswith("from the index")


@pytest.mark.slow
def test_an_index_with_many_gone_is_built_anew(run: Callable[..., Any], made: Collection) -> None:
    run("index", "build")
    for name in NAMES[10:22]:
        _again(made, name, like=name)
    said = run("index", "build")
    assert "built anew: 12 of 39 recordings were labelled again" in said.err
    assert "39 added, 39 in all" in said.out


def test_a_damaged_index_is_left_aside_told_and_built_anew(
    run: Callable[..., Any], made: Collection
) -> None:
    run("index", "build")
    (graph,) = (made.home / "index").glob("*.graph")
    graph.write_bytes(graph.read_bytes()[:-4])
    said = run("similar", ASKED[0])
    assert "the index was not asked: " in said.err
    assert f"{graph.name} is damaged" in said.err
    assert "with 38 other recordings" in said.err
    said = run("index", "status")
    assert (said.code, said.out) == (1, "")
    assert "not used until it is built anew: audioset index build" in said.err
    said = run("index", "build")
    assert f"built anew: {graph}" in said.err
    assert run("index", "status").code == 0
    assert "from the index of 39" in run("similar", ASKED[0]).err


@pytest.mark.slow
def test_a_file_that_cannot_be_read_stays_out_and_is_never_missed_silently(
    run: Callable[..., Any], made: Collection
) -> None:
    file = made.home / "embeddings" / f"{sha('12.wav')}.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    said = run("index", "build")
    assert said.code == 1
    assert f"embeddings/{file.name}" in said.out
    assert "1 files cannot be used: audioset verify --repair" in said.err
    said = run("similar", ASKED[0])
    assert (said.code, said.out) == (1, ""), "as without an index"
    file.write_bytes(content)
    found, told = _similar(run, ASKED[0])
    assert "from the index of 38 recordings, 1 newer ones read one by one" in told
    assert found == _similar(run, ASKED[0], "--exact")[0]
    assert "1 added, 39 in all" in run("index", "build").out


def test_an_index_of_scores_where_there_are_no_embeddings(
    run: Callable[..., Any], made: Collection
) -> None:
    with writing(made.engine) as conn:
        conn.execute(update(labellings).values(embeddings_path=None))
    assert "scores of recordings: 39 added" in run("index", "build").out
    found, told = _similar(run, ASKED[0])
    assert "compared by scores of yamnet@1, from the index" in told
    assert found == _similar(run, ASKED[0], "--exact")[0]


def test_one_process_at_a_time_writes(run: Callable[..., Any], made: Collection) -> None:
    said = run("index", "status")
    assert (said.code, said.err) == (0, "no index yet: audioset index build\n")
    assert run("index", "remove").code == 2
    run("index", "build")
    with (made.home / "locks" / "index.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for command in ("build", "remove"):
            said = run("index", command)
            assert said.code == 2
            assert said.err.startswith("audioset: another process is writing an index")
        assert run("similar", ASKED[0]).code == 0
    assert "removed" in run("index", "remove").out
    assert not list((made.home / "index").iterdir())
    assert "with 38 other" in run("similar", ASKED[0]).err


@pytest.mark.slow
def test_many_moments_of_one_recording_hide_no_other(
    run: Callable[..., Any], made: Collection
) -> None:
    """One recording has all of the nearest moments, more than the index is asked for at first."""
    moment = made.embeddings["07.wav"][6]
    path = "embeddings/long.npy"
    write_atomically(made.home / path, npy_bytes(np.repeat(moment[None], 200, axis=0)))
    _set(made, "30.wav", embeddings_path=path)
    run("index", "build", "--moments")
    _assert_as_exact(run, "from the index of 39 recordings\n")


@pytest.mark.slow
@pytest.mark.server
def test_the_flow_does_what_the_command_does(
    prefect_server: str, run: Callable[..., Any], made: Collection
) -> None:
    del prefect_server
    (made.home / "embeddings" / f"{sha('12.wav')}.npy").unlink()
    assert update_index(home=made.home, only_if_there=True) == 0
    assert run("index", "status").err == "no index yet: audioset index build\n"
    assert update_index(home=made.home, moments=True) == 76, "38 recordings, in two indexes"
    assert "recordings: 0 added, 38 in all" in run("index", "build").out
    _again(made, "21.wav", like="07.wav")
    assert update_index(home=made.home, only_if_there=True) == 2, "one recording, in two indexes"


@pytest.mark.slow
def test_a_build_that_is_stopped_goes_on_where_it_was(
    run: Callable[..., Any], made: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "_BATCH_VALUES", 1)
    monkeypatch.setattr(update_module, "_SAVED_EVERY", 10)
    real, n_read = update_module._vectors, 0

    def stopped(*arguments: Any) -> Any:
        nonlocal n_read
        n_read += 1
        if n_read == 25:
            raise RuntimeError("stopped")
        return real(*arguments)

    monkeypatch.setattr(update_module, "_vectors", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        update_module.update_indexes(made.engine, made.home)
    found, told = _similar(run, ASKED[0])
    assert "from the index of 20 recordings, 19 newer ones read one by one" in told
    assert found == _similar(run, ASKED[0], "--exact")[0]
    assert "19 added, 39 in all" in run("index", "build").out
    assert n_read == 25 + 19
