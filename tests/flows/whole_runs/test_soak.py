"""Many clips through one process: what it holds stays what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from audioset_core.system import release_memory
from benchmarks.soak import Look, Watcher, growth, look, make_clips, soak
from tests.flows.build import Lab

N_CLIPS = 1_500
# Log-mel and waveform of a clip are 56 kB: a run that held them would grow by 56 MB.
MOST_MB_PER_1000_CLIPS = 25.0


@pytest.mark.slow
def test_a_long_run_does_not_grow(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 25 shards instead of two, so that there is something between the first and the last.
    monkeypatch.setattr("flows.run.shard_scheduler.shard_length_s", lambda *_: 30.0)
    make_clips(tmp_path / "corpus", N_CLIPS, 0.5)
    lab.label(tmp_path / "corpus" / "001")  # what a process needs once is there
    found, sizes = soak(tmp_path / "corpus", lab.home, lab.weights)
    assert found.n_clips == N_CLIPS - 500
    assert found.descriptors_late <= found.descriptors_early + 4
    assert found.threads_late <= found.threads_early + 2
    assert found.mb_per_1000_clips < MOST_MB_PER_1000_CLIPS
    # The placeholder hears something of everything.
    assert 0 < sizes["database_bytes_per_clip"] < 40_000
    assert lab.count("labellings", "status = 'done'") == N_CLIPS


def _run(mb_per_clip: float, descriptors_per_clip: float) -> tuple[list[Look], Watcher]:
    watcher = Watcher()
    watcher.stored = [(float(at), at * 10) for at in range(101)]
    looks = [
        Look(at_s=at / 2, rss_mb=100 + 5 * at * mb_per_clip,
             n_descriptors=20 + int(5 * at * descriptors_per_clip), n_threads=9)
        for at in range(-4, 204)
    ]  # fmt: skip
    return looks, watcher


def test_a_leak_is_seen() -> None:
    looks, watcher = _run(0.056, 0.1)
    found = growth(looks, watcher.stored)
    assert found.n_clips == 1000
    assert found.mb_per_1000_clips == pytest.approx(56, rel=0.01)
    assert found.mb_per_1000_clips > MOST_MB_PER_1000_CLIPS
    assert found.descriptors_late == 120
    assert found.descriptors_late > found.descriptors_early + 4
    assert found.rss_late_mb > found.rss_early_mb
    assert len(found.rss_mb) == 20


def test_no_leak_is_none() -> None:
    looks, watcher = _run(0.0, 0.0)
    found = growth(looks, watcher.stored)
    assert found.mb_per_1000_clips == pytest.approx(0, abs=1e-6)
    assert (found.descriptors_early, found.descriptors_late) == (20, 20)
    assert found.early_s_per_1000_clips == pytest.approx(found.late_s_per_1000_clips)


def test_a_look_is_of_this_process(tmp_path: Path) -> None:
    before = look()
    with (tmp_path / "file").open("w"):
        assert look().n_descriptors == before.n_descriptors + 1
    assert before.rss_mb > 10
    assert before.n_threads >= 1
    release_memory()
