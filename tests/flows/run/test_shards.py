"""Work is cut into shards of bounded audio; where a cut falls never shows in the results."""

from __future__ import annotations

import hashlib
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from audioset_core.inputs.walk import read_inputs
from audioset_core.weights.locate import ReadyWeights
from db.catalog.sources import iter_items
from db.engine import open_engine
from db.ledger.runs import finish_run, start_run
from db.migrate import ensure_schema
from db.records import RunCounts, RunStatus, Variant, WorkItem
from flows.run import shard_scheduler
from flows.run_options import ExecutionOptions
from tasks.chunk_and_featurize import featurize_shard
from tasks.infer import score_shard
from tasks.label_shard import label_whole_shard
from tasks.labelling import shards, worklist
from tasks.labelling.job import Job, labelling_settings, now, stop_event
from tasks.labelling.options import LabelOptions
from tasks.labelling.shards import (
    Receipt,
    Shard,
    ShardFeatures,
    ShardScores,
    cut_shards,
    shard_length_s,
)
from tasks.labelling.worklist import discover
from tasks.load_ontology import load_ontology
from tasks.persist import persist_shard
from tests.flows.build import Lab, sound, write_clip

LOGGER = logging.getLogger("test")


def _item(number: int, estimated_s: float) -> WorkItem:
    return WorkItem(number, b"/clip", 1, 1, estimated_s)


DURATIONS = st.lists(
    st.one_of(st.floats(0, 50), st.floats(0, 5_000), st.just(0.0), st.just(10.0)), max_size=60
)


@given(durations=DURATIONS, shard_s=st.floats(10, 4_000))
def test_every_item_is_in_exactly_one_shard_in_order(
    durations: list[float], shard_s: float
) -> None:
    items = [_item(number, s) for number, s in enumerate(durations)]
    cut = list(cut_shards(items, shard_s, total=9))
    assert [item for shard in cut for item in shard.items] == items
    assert [shard.index for shard in cut] == list(range(1, len(cut) + 1))
    assert all(shard.total == 9 for shard in cut)
    assert sum(shard.estimated_s for shard in cut) == pytest.approx(sum(durations), abs=1e-6)


@given(durations=DURATIONS, shard_s=st.floats(10, 4_000))
def test_budgets_are_positive_and_parts_are_consistent(
    durations: list[float], shard_s: float
) -> None:
    cut = list(cut_shards([_item(n, s) for n, s in enumerate(durations)], shard_s))
    previous = None
    for shard in cut:
        assert shard.budget_s > 0
        assert shard.estimated_s <= shard_s * (1 + 1e-9)
        assert shard.budget_s <= shard_s * 1.5 * (1 + 1e-9)
        if shard.part:  # goes on with the clip of the shard before it
            assert previous is not None
            assert (previous.part, previous.is_last_part) == (shard.part - 1, False)
            assert shard.items == ()
        else:
            assert previous is None or previous.is_last_part
            assert shard.items
        if not shard.is_last_part:
            assert shard.part or len(shard.items) == 1
        previous = shard
    assert previous is None or previous.is_last_part


@pytest.mark.parametrize(
    ("estimated_s", "expected"), [(0, 600), (1_000, 600), (9_000, 1_500), (1e9, 2_400)]
)
def test_a_shard_grows_with_the_run_up_to_a_bound(estimated_s: float, expected: float) -> None:
    assert shard_length_s(estimated_s, n_wanted=6) == expected
    most_s = min(expected, 1_200.0)
    assert shard_length_s(estimated_s, n_wanted=6, most_s=most_s) == most_s


@pytest.mark.parametrize(("takes_waveforms", "expected"), [(False, 2_400.0), (True, 600.0)])
def test_shards_of_waveforms_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_waveforms: bool, expected: float
) -> None:
    monkeypatch.setattr(shard_scheduler, "takes_waveforms", lambda *_: takes_waveforms)
    monkeypatch.setattr(shard_scheduler, "LONG_RUN_S", 1e7)
    frontend, parameters = labelling_settings(LabelOptions(), "yamnet")
    job = Job(
        run_id="run", home=tmp_path, database_url="sqlite://", options=LabelOptions(),
        weights=ReadyWeights(tmp_path, "yamnet", "placeholder-0", "0" * 64), frontend=frontend,
        parameters=parameters, variant=Variant(1, 1),
    )  # fmt: skip
    with shard_scheduler.shard_runner((job,), ExecutionOptions(), 1e6) as runner:
        assert runner.shard_s == expected


def test_a_million_files_without_a_length_are_not_one_shard() -> None:
    items = (_item(number, 0.0) for number in range(20_000))
    assert max(len(shard.items) for shard in cut_shards(items, 600.0)) <= 5_000


def test_a_header_that_promises_years_makes_no_thousands_of_parts() -> None:
    assert sum(1 for _ in cut_shards([_item(0, 2.5e7)], 3_600.0)) <= 1_000


def plain_job(lab: Lab, *paths: Path, framing: str = "reference") -> tuple[Engine, Job]:
    """A run with its work list, without Prefect."""
    engine = open_engine(lab.url)
    ensure_schema(engine)
    weights = ReadyWeights(lab.weights, "yamnet", "placeholder-0", "0" * 64)
    options = LabelOptions(device="cpu", framing=framing)
    frontend, parameters = labelling_settings(options, "yamnet")
    variant = load_ontology.fn(lab.url, weights, parameters)
    run_id = f"run-{len(lab.rows('SELECT id FROM runs'))}"
    start_run(engine, run_id, "host", 1, {}, now())
    job = Job(
        run_id=run_id, home=lab.home, database_url=lab.url, options=options, weights=weights,
        frontend=frontend, parameters=parameters, variant=variant,
    )  # fmt: skip
    discover(engine, run_id, [variant], read_inputs([str(path) for path in paths]))
    return engine, job


def label_plainly(
    lab: Lab, *paths: Path, shard_s: float, framing: str = "reference"
) -> list[Receipt]:
    """The flow's composition without Prefect, one task after the other."""
    engine, job = plain_job(lab, *paths, framing=framing)
    receipts: list[Receipt] = []
    features: ShardFeatures | None = None
    scores: ShardScores | None = None
    try:
        for shard in cut_shards(iter_items(engine, job.run_id), shard_s):
            if shard.part == 0:
                features = scores = None
            while True:
                features = featurize_shard((job,), shard, features, LOGGER)
                scores = score_shard((job,), features, scores)
                receipts.append(persist_shard((job,), shard, scores))
                if not (shard.is_last_part and receipts[-1].continues):
                    break
                shard = shard.next_part()
        finish_run(engine, job.run_id, RunStatus.COMPLETED, RunCounts(), None, now())
    finally:
        engine.dispose()
    return receipts


@pytest.fixture
def plain(placeholder: Path, tmp_path: Path) -> Lab:
    """A home for runs without Prefect."""
    (tmp_path / "home").mkdir()
    lab = Lab(tmp_path / "home", f"sqlite:///{tmp_path}/home/labels.db", placeholder)
    ensure_schema(lab.engine)
    yield lab
    lab.engine.dispose()


def _digests(lab: Lab) -> list[tuple[str, str, int]]:
    return [(clip, found[0], found[1]) for clip, found in sorted(lab.results().items())]


LONG = {
    "mono.wav": {},
    "stereo.flac": {"rate_hz": 44_100, "channels": 2},
    "voice.ogg": {"rate_hz": 8_000},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "long"
    for seed, (name, settings) in enumerate(LONG.items()):
        write_clip(folder / name, seed, 30.0, **settings)
    for seed in range(3):
        write_clip(folder / f"short{seed}.wav", 10 + seed, 1.7)
    return folder


@pytest.mark.slow
class TestCuts:
    @pytest.mark.parametrize("shard_s", [pytest.param(0.3, marks=pytest.mark.slow), 1.0, 2.9, 7.0])
    def test_however_a_clip_is_cut_its_file_is_the_same_to_the_byte(
        self, plain: Lab, corpus: Path, tmp_path: Path, shard_s: float
    ) -> None:
        whole = label_plainly(plain, corpus, shard_s=600.0)
        assert len(whole) == 1
        other = Lab(tmp_path / "cut", f"sqlite:///{tmp_path}/cut.db", plain.weights)
        ensure_schema(other.engine)
        cut = label_plainly(other, corpus, shard_s=shard_s)
        assert len(cut) > 30 / shard_s / 2
        assert sum(receipt.counts.n_labelled for receipt in cut) == 6
        assert sum(receipt.counts.audio_s for receipt in cut) == pytest.approx(
            whole[0].counts.audio_s
        )
        assert other.results() == plain.results()
        other.check()
        other.engine.dispose()

    @pytest.mark.slow
    def test_the_same_through_the_flow(
        self, lab: Lab, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab.label(corpus)
        monkeypatch.setattr(shards, "MIN_SHARD_S", 9.0)
        monkeypatch.setattr(shards, "MAX_SHARD_S", 9.0)
        other = Lab(tmp_path / "cut", f"sqlite:///{tmp_path}/cut.db", lab.weights)
        summary = other.label(corpus)
        assert summary.n_labelled == 6
        assert other.results() == lab.results()
        other.check()
        other.engine.dispose()

    def test_estimates_far_too_small_are_made_up_for_by_further_parts(
        self, lab: Lab, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab.label(corpus)
        monkeypatch.setattr(shards, "MIN_SHARD_S", 2.0)
        monkeypatch.setattr(worklist._Lengths, "estimated_s", lambda *_: 0.5)
        other = Lab(tmp_path / "cut", f"sqlite:///{tmp_path}/cut.db", lab.weights)
        summary = other.label(corpus)
        assert (summary.n_labelled, summary.n_failed) == (6, 0)
        assert other.results() == lab.results()
        other.check()
        other.engine.dispose()

    def test_estimates_far_too_large_make_parts_that_do_nothing(
        self, plain: Lab, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = label_plainly(plain, corpus, shard_s=600.0)
        monkeypatch.setattr(worklist._Lengths, "estimated_s", lambda *_: 300.0)
        other = Lab(tmp_path / "cut", f"sqlite:///{tmp_path}/cut.db", plain.weights)
        ensure_schema(other.engine)
        cut = label_plainly(other, corpus, shard_s=20.0)
        read_s = sum(receipt.counts.read_s for receipt in cut)
        assert read_s == pytest.approx(whole[0].counts.read_s)
        assert other.results() == plain.results()
        other.engine.dispose()


def test_a_streamed_wav_without_a_length_is_read_whole(plain: Lab, tmp_path: Path) -> None:
    file = tmp_path / "streamed.wav"
    write_clip(file, 1, 20.0)
    data = bytearray(file.read_bytes())
    at = data.find(b"data") + 4
    data[4:8] = data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    file.write_bytes(data)
    receipts = label_plainly(plain, file, shard_s=3.0)
    assert [r.counts.n_labelled for r in receipts if r.counts.n_labelled] == [1]
    assert plain.rows("SELECT duration_s FROM clips")[0][0] == pytest.approx(20.0)
    plain.check()


def test_damage_in_the_last_part_fails_that_clip_and_nothing_else(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MIN_SHARD_S", 4.0)
    folder = tmp_path / "a"
    write_clip(folder / "a.wav", 1)
    samples = sound(2, 30.0).astype(np.float32)
    samples[29 * 16_000] = np.inf
    soundfile.write(folder / "b.wav", samples, 16_000, subtype="FLOAT")
    write_clip(folder / "c.wav", 3)
    summary = lab.label(folder)
    assert (summary.n_labelled, dict(summary.failures)) == (2, {"samples are not finite": 1})
    assert lab.count("clips") == 2
    lab.check()


def test_a_copy_of_a_clip_that_fails_is_told_the_same_in_the_next_run(
    lab: Lab, tmp_path: Path
) -> None:
    samples = sound(2, 3.0).astype(np.float32)
    samples[-1] = np.nan
    for name in "ab":
        (tmp_path / "x").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "x" / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    lab.label(tmp_path / "x")
    lab.label(tmp_path / "x")
    assert set(lab.sources().values()) == {("failed", "samples are not finite")}
    assert (lab.count("clips"), lab.count("labellings")) == (0, 0)


def test_a_shard_that_is_stopped_gives_its_claims_back(plain: Lab, tmp_path: Path) -> None:
    from audioset_core.inference.scorer import Cancelled

    write_clip(tmp_path / "a.wav", 1)
    stop_event("run-0").set()
    try:
        with pytest.raises(Cancelled):
            label_plainly(plain, tmp_path / "a.wav", shard_s=600.0)
    finally:
        stop_event("run-0").clear()
    assert plain.count("labellings", "status = 'claimed' AND lease_until > '2000'") == 0


def _in_one(lab: Lab, corpus: Path, part_s: float) -> tuple[Engine, Job, Shard]:
    engine, job = plain_job(lab, corpus)
    (shard,) = cut_shards(iter_items(engine, job.run_id), 600.0)
    shard.budget_s = part_s
    return engine, job, shard


@pytest.mark.slow
def test_a_shard_in_one_task_gives_what_its_tasks_give(
    plain: Lab, corpus: Path, tmp_path: Path
) -> None:
    label_plainly(plain, corpus, shard_s=600.0)
    other = Lab(tmp_path / "one", f"sqlite:///{tmp_path}/one.db", plain.weights)
    ensure_schema(other.engine)
    engine, job, shard = _in_one(other, corpus, 7.0)
    receipt = label_whole_shard((job,), shard, LOGGER)
    assert (receipt.counts.n_labelled, receipt.failures, receipt.continues) == (6, (), False)
    assert other.results() == plain.results()
    finish_run(engine, job.run_id, RunStatus.COMPLETED, RunCounts(), None, now())
    other.check()
    engine.dispose()
    other.engine.dispose()


@pytest.mark.parametrize("step", ["score_shard", "persist_shard"])
def test_what_was_read_ahead_is_let_go_when_a_part_fails(
    plain: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    engine, job, shard = _in_one(plain, corpus, 7.0)
    ahead: list[ShardFeatures] = []

    def read(*arguments: Any) -> ShardFeatures:
        ahead.append(featurize_shard(*arguments))
        return ahead[-1]

    def fail(*_: Any) -> Any:
        raise RuntimeError("no more")

    monkeypatch.setattr("tasks.label_shard.featurize_shard", read)
    monkeypatch.setattr(f"tasks.label_shard.{step}", fail)
    with pytest.raises(RuntimeError, match="no more"):
        label_whole_shard((job,), shard, LOGGER)
    assert len(ahead) == 2
    held = ahead[1].open_clip
    assert held is not None
    assert not held.reader.recording._is_open
    query = f"SELECT lease_until FROM labellings WHERE id = {held.claims[0].labelling_id}"
    assert plain.rows(query)[0][0] < "2000"
    engine.dispose()


def test_persisting_twice_changes_nothing(plain: Lab, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 1)
    label_plainly(plain, tmp_path / "a.wav", shard_s=600.0)
    clip = hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()
    before = plain.results()
    assert list(before) == [clip]
    assert label_plainly(plain, tmp_path / "a.wav", shard_s=600.0) == []
    assert plain.results() == before
