"""A run asks the rules for alerts about what it labels, and tells what they find once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from audioset_core.ontology.graph import load_default
from db.alerts.raised import raised_alerts
from db.alerts.rules import AlertRule, change_rules
from db.query.question import Question
from flows.run import alerts, pipeline
from flows.run_report import sound_events
from flows.run_report.progress import lasting_server
from flows.run_report.sound_events import HEARD_EVENT, heard_event
from tests.db.build import NOW
from tests.flows.build import Lab, write_clip
from tests.flows.servers import wait_until

ANIMAL = load_default().find("Animal").mid


def _n_events(url: str, ids: set[UUID]) -> Counter[str]:
    """How many of these events the server has, by name."""
    asked: dict[str, Any] = {"filter": {"id": {"id": sorted(map(str, ids))}}, "limit": 50}
    events = httpx.post(f"{url}/events/filter", json=asked, timeout=30).json()["events"]
    return Counter(event["event"] for event in events)


@pytest.mark.slow
def test_what_was_sent_and_not_noted_is_not_sent_again(
    lab: Lab, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = AlertRule(name="animal", question=Question(under=(ANIMAL,), min_score=0.1))
    lost = AlertRule(name="lost", question=Question(under=("x:none",), min_score=0.1))
    change_rules(lab.engine, lambda _: [rule, lost], NOW)
    write_clip(tmp_path / "in" / "a.wav", 1)
    token = lasting_server.set(False)  # as `audioset label` without a server
    rows = dict(lab.label(tmp_path / "in").rows())
    assert rows["alert animal"] == "1 (not told: 1 wait for audioset serve)"
    lasting_server.reset(token)
    (alert,) = raised_alerts(lab.engine)
    assert (alert.state, alert.is_timed) == ("waiting", False)
    assert _n_events(prefect_server, {heard_event(alert).id}) == {}

    def dies(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(alerts, "mark_told", dies)
    write_clip(tmp_path / "in" / "b.wav", 2)
    summary = lab.label(tmp_path / "in")  # the labels do not depend on alerts
    assert summary.n_labelled == 1
    assert "lost" in summary.alert_problems
    rows = dict(summary.rows())
    assert rows["alert animal"] == "1"
    monkeypatch.undo()
    before = raised_alerts(lab.engine)
    assert [a.state for a in before] == ["waiting"] * 2
    sent = {heard_event(each).id for each in before}
    wait_until(lambda: _n_events(prefect_server, sent) == {HEARD_EVENT: 2}, 60)
    known: list[set[UUID]] = []

    def spied(*asked: Any) -> set[UUID]:
        known.append(look_up(*asked))
        return known[-1]

    look_up = sound_events._known
    monkeypatch.setattr(sound_events, "_known", spied)
    write_clip(tmp_path / "in" / "c.wav", 3)
    monkeypatch.setattr(pipeline, "LOOK_EVERY_S", -1.0)  # also while it labels
    ask, n_asked = pipeline.ask_new, []
    monkeypatch.setattr(pipeline, "ask_new", lambda engine: n_asked.append(1) or ask(engine))
    assert lab.label(tmp_path / "in").alerts == {"animal": {"waiting": 1}}
    assert len(n_asked) == 2
    assert known == [sent]
    assert [a.state for a in raised_alerts(lab.engine)] == ["told"] * 3
