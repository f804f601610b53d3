"""When a run fails it says why in its own words, and the next run completes."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRunPolicy

from audioset_core.errors import UserError, WeightsError
from audioset_core.inference.scorer import Cancelled, Scorer
from audioset_core.storage import atomic_files as durable
from db.errors import DatabaseUnavailableError, DatabaseUserError
from flows.run import pipeline, retrying
from tasks import chunk_and_featurize, persist
from tasks.labelling import job, shards
from tests.flows.build import Lab, write_clip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for seed in range(6):
        write_clip(tmp_path / "a" / f"{seed}.wav", seed, 2.0 + seed / 10)
    return tmp_path / "a"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MIN_SHARD_S", 0.3)


def _statuses(lab: Lab) -> list[str]:
    return [row[0] for row in lab.rows("SELECT status FROM runs ORDER BY started_at")]


def _no_claims(lab: Lab) -> bool:
    return lab.count("labellings", "status = 'claimed'") == 0 == lab.count("run_items")


@pytest.mark.parametrize("what", ["missing", "text", "other model", "damaged"])
def test_bad_weights_are_the_persons_mistake(
    lab: Lab, corpus: Path, tmp_path: Path, what: str
) -> None:
    weights = tmp_path / "bad.safetensors"
    if what == "text":
        weights.write_text("not weights")
    elif what == "other model":
        weights.write_bytes(lab.weights.read_bytes().replace(b'"yamnet"', b'"yomnet"', 1))
    elif what == "damaged":
        weights.write_bytes(lab.weights.read_bytes()[:-100_000])
    with pytest.raises(WeightsError):
        lab.label(corpus, weights=weights)
    assert _statuses(lab) == ["failed"]
    assert _no_claims(lab)


def test_a_bad_path_is_the_persons_mistake(lab: Lab, corpus: Path) -> None:
    with pytest.raises(UserError, match="did you mean"):
        lab.label(corpus / "0.wave")
    assert _statuses(lab) == ["failed"]
    with pytest.raises(UserError, match="patch-hop"):
        lab.label(corpus, patch_hop_s=0.123)
    with pytest.raises(DatabaseUserError):
        Lab(lab.home, "mysql://host/name", lab.weights).label(corpus)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("where", ["write", "write_many", "commit"])
@pytest.mark.slow
def test_a_full_disk_fails_the_run_clearly_and_the_next_one_completes(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    calls = 0

    def second_time(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise full
        return original(*arguments, **named)

    if where == "write":
        write = os.write

        def torn(descriptor: int, data: Any) -> int:
            nonlocal calls
            calls += len(data) > 1_000
            if calls >= 2 and len(data) > 1_000:
                write(descriptor, bytes(data[:100]))
                raise full
            return write(descriptor, data)

        monkeypatch.setattr(durable.os, "write", torn)
    elif where == "write_many":
        original = persist.write_many
        monkeypatch.setattr(persist, "write_many", second_time)
    else:
        original = persist.commit_labellings
        monkeypatch.setattr(persist, "commit_labellings", second_time)
    with pytest.raises(OSError, match="No space left"):
        lab.label(corpus)
    assert _statuses(lab) == ["failed"]
    assert _no_claims(lab)
    lab.check()
    monkeypatch.undo()
    lab.label(corpus)
    assert _statuses(lab)[-1] == "completed"
    assert lab.count("labellings", "status = 'done'") == 6
    lab.check()


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("task", ["featurize", "infer", "persist"])
def test_an_error_in_any_task_is_raised_as_itself(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ArithmeticError("the sum is off")

    if task == "featurize":
        monkeypatch.setattr(chunk_and_featurize, "claim_clip", fail)
    elif task == "infer":
        monkeypatch.setattr(Scorer, "run", fail)
    else:
        monkeypatch.setattr(persist, "commit_labellings", fail)
    with pytest.raises(ArithmeticError, match="the sum is off"):
        lab.label(corpus)
    assert _statuses(lab) == ["failed"]
    assert _no_claims(lab)
    monkeypatch.undo()
    assert lab.label(corpus).n_labelled == 6


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_a_failed_run_leaves_no_claim_however_slow_its_other_shards_are(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is claiming clips while another fails must not claim behind the run's back."""
    claim, claimed = chunk_and_featurize.claim_clip, []

    def slow(*arguments: Any, **named: Any) -> Any:
        claimed.append(1)
        if len(claimed) > 1:
            # Until the run has been told to stop, and a little longer.
            job.stop_event(arguments[4].run_id).wait(10)
            threading.Event().wait(0.5)
        return claim(*arguments, **named)

    def fail(*_: Any, **__: Any) -> Any:
        deadline = time.monotonic() + 10
        while len(claimed) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise ArithmeticError("the sum is off")

    # Enough for a second clip to be in flight: these are cut into parts.
    monkeypatch.setattr("flows.run.shard_scheduler.SHARDS_IN_FLIGHT", 4)
    monkeypatch.setattr(chunk_and_featurize, "claim_clip", slow)
    monkeypatch.setattr(persist, "commit_labellings", fail)
    with pytest.raises(ArithmeticError):
        lab.label(corpus)
    assert len(claimed) > 1
    assert _no_claims(lab)


def test_a_database_that_is_away_for_a_moment_is_waited_for(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist.persist, "retry_delay_seconds", [0.0])
    commit, calls = persist.commit_labellings, []

    def flaky(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise DatabaseUnavailableError("the database failed: gone away")
        return commit(*arguments, **named)

    monkeypatch.setattr(persist, "commit_labellings", flaky)
    assert lab.label(corpus).n_labelled == 6
    assert len(calls) == 3
    lab.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "deployed", "statuses"),
    [
        (DatabaseUnavailableError("gone away"), "a", ["failed", "completed"]),
        (DatabaseUnavailableError("gone away"), None, ["failed"]),
        (UserError("no such model"), "a", ["failed"]),
        (DatabaseUserError("no such file"), "a", ["failed"]),
        (Cancelled(), "a", ["cancelled"]),
    ],
)
def test_only_a_deployment_without_its_database_is_tried_again(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch,
    error: Exception, deployed: str | None, statuses: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(retrying, "deployment", SimpleNamespace(id=deployed))
    monkeypatch.setattr(retrying, "RETRIES", FlowRunPolicy(retries=1, retry_delay=0))
    label, calls = pipeline.label_here, []

    def flaky(*given: Any) -> None:
        calls.append(1)
        label(*given)
        if len(calls) == 1:
            raise error

    monkeypatch.setattr(pipeline, "label_here", flaky)
    if statuses[-1] == "completed":
        assert lab.label(corpus).n_known == 6  # by the first try
    else:
        with pytest.raises(type(error)):
            lab.label(corpus)
    assert _statuses(lab) == statuses
    assert _no_claims(lab)


def test_scores_that_are_not_finite_fail_one_clip(
    lab: Lab, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Scorer.run

    def huge(*arguments: Any, **named: Any) -> Any:
        outputs = run(*arguments, **named)
        outputs[2].logits[0, 0] = 1e6  # beyond float16
        return outputs

    monkeypatch.setattr(Scorer, "run", huge)
    summary = lab.label(corpus)
    assert (summary.n_labelled, dict(summary.failures)) == (5, {"internal error": 1})
    lab.check()


def test_an_error_reaches_the_command_line_as_one_line(
    lab: Lab, corpus: Path, audioset: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(persist, "write_many", fail)
    said = audioset("label", corpus, "--home", lab.home, "--weights", lab.weights)
    assert said.code == 1
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("audioset: ")
    assert "No space left on device" in last
    assert "Traceback" not in said.err
