"""Events for sounds that a rule asks for, and the automations that send them on.

An event's id is chosen when the alert is stored. What the server has is not sent again, so that a
sound is told once, also if a process ends between sending and noting that it has sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import Event, RelatedResource, Resource
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from db.alerts.raised import Alert
from db.alerts.rules import AlertRule
from db.paging import batches
from flows.terminal import clock, one_line
from tasks.labelling.job import now

HEARD_EVENT = "audioset.sound-heard"
MORE_EVENT = "audioset.more-sounds-heard"
AUTOMATION = "audioset: alert {}"
_LABEL = "audioset.alert"
_PAGE = 50  # Prefect answers with so many events at most
_WEBHOOK = "webhook"


def heard_event(alert: Alert) -> Event:
    """The event that tells of one sound."""
    where = f" at {alert.site}" if alert.site else ""
    when = f"{alert.heard_at:%Y-%m-%d %H:%M:%S %z}" if alert.is_timed else "at an unknown time"
    place = alert.path or f"clip {alert.clip[:12]}"
    text = (
        f"{alert.name}, score {alert.score:.2f},{where} {when}: "
        f"{place}, {clock(alert.start_ms / 1_000)}-{clock(alert.end_ms / 1_000)}"
    )
    payload = {
        "text": one_line(text), "class": alert.name, "mid": alert.mid, "score": alert.score,
        "clip": alert.clip, "path": alert.path, "site": alert.site,
        "start_s": alert.start_ms / 1_000, "end_s": alert.end_ms / 1_000,
        "heard_at": alert.heard_at.isoformat() if alert.is_timed else None,
        "page": f"/clips/{alert.clip}",
    }  # fmt: skip
    return _event(HEARD_EVENT, alert, f"audioset.recording.{alert.clip}", payload)


def more_event(best: Alert, n_more: int) -> Event:
    """The event that tells how many more sounds of a rule there are; `best` is one of them."""
    text = f"and {n_more:,} more: audioset alerts list --raised --rule {best.rule!r}"
    payload = {"text": text, "n_more": n_more}
    return _event(MORE_EVENT, best, f"audioset.alert.{best.rule}", payload)


def trial_event(rule: str) -> Event:
    """An event that is sent on as those of the rule are, and says that it is a trial."""
    text = f"a trial of the alert {rule!r}: nothing was heard"
    return Event(
        event=HEARD_EVENT,
        resource=_resource(f"audioset.alert.{rule}", rule),
        payload={**_of_rule(rule), "text": text, "is_trial": True},
    )


def send_events(events: Sequence[Event]) -> None:
    """Have the server take the events, those that it has not yet.

    Raises:
        httpx.HTTPError: the server cannot be reached, or refuses them.
    """
    with get_client(sync_client=True) as client:
        for some in batches(events, _PAGE):
            known = _known(client, [event.id for event in some])
            new = [event.model_dump(mode="json") for event in some if event.id not in known]
            if new:
                client.request("POST", "/events", json=new)


def ensure_automations(rules: Iterable[AlertRule]) -> dict[str, str]:
    """Have the server send on what the rules find, by the blocks that they name.

    An automation that is there keeps whatever a person changed, but for the block. Returns what is
    wrong, by the rule's name.
    """
    with get_client(sync_client=True) as client:
        return {rule.name: wrong for rule in rules if (wrong := _ensure(client, rule))}


def _ensure(client: SyncPrefectClient, rule: AlertRule) -> str | None:
    name = AUTOMATION.format(rule.name)
    there = client.read_automations_by_name(name)
    if rule.notify is None:
        for each in there:
            client.delete_automation(each.id)
        return None
    kind, _, block = rule.notify.partition("/")
    try:
        document = client.read_block_document_by_name(block, kind, include_secrets=False)
    except ObjectNotFound:
        return f"sent to nobody, since Prefect has no block {rule.notify}"
    schema, block_id = document.block_schema, document.id
    if kind != _WEBHOOK and schema and "notify" not in schema.capabilities:
        return f"sent to nobody, since no block of the type {kind} can notify"
    wanted = _automation(rule.name, kind, block_id)
    if not there:
        client.create_automation(wanted)
    for each in there:
        if block_id not in [getattr(action, "block_document_id", None) for action in each.actions]:
            client.update_automation(each.id, each.model_copy(update={"actions": wanted.actions}))
    return None


def _automation(rule: str, kind: str, block_id: UUID) -> AutomationCore:
    notification = {
        "type": "send-notification",
        "subject": "{{ event.payload.subject }}",
        "body": "{{ event.payload.text }}",
    }
    call = {"type": "call-webhook", "payload": "{{ event.payload | tojson }}"}
    action: dict[str, Any] = call if kind == _WEBHOOK else notification
    return AutomationCore.model_validate(
        {
            "name": AUTOMATION.format(rule),
            "description": "Made by audioset for audioset alerts.",
            "enabled": True,
            "trigger": {
                "type": "event",
                "posture": "Reactive",
                "expect": [HEARD_EVENT, MORE_EVENT],
                "match": {_LABEL: rule},
                "threshold": 1,
                "within": 0,
            },
            "actions": [action | {"block_document_id": str(block_id)}],
        }
    )


def _event(kind: str, alert: Alert, resource_id: str, payload: dict[str, Any]) -> Event:
    related = [
        (f"audioset.class.{alert.mid}", alert.name, "class"),
        *([(f"audioset.site.{alert.site_id}", alert.site, "site")] if alert.site else []),
    ]
    return Event(
        # The two kinds of event about one alert differ.
        id=uuid5(UUID(alert.event_id), kind),
        event=kind,
        occurred=now(),
        resource=_resource(resource_id, alert.rule),
        related=[
            RelatedResource({**_named(its_id, name), "prefect.resource.role": role})
            for its_id, name, role in related
        ],
        payload={**_of_rule(alert.rule), **payload},
    )


def _resource(resource_id: str, rule: str) -> Resource:
    return Resource({**_named(resource_id, rule), _LABEL: rule})


def _named(resource_id: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": resource_id, "prefect.resource.name": name}


def _of_rule(rule: str) -> dict[str, Any]:
    return {"rule": rule, "subject": f"audioset: {rule}"}


def _known(client: SyncPrefectClient, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the events that the server has."""
    moment = now()
    # The server keeps no event for longer, and looks through those of a day or so if not asked.
    since, until = moment - timedelta(days=90), moment + timedelta(days=1)
    wanted = {
        "id": {"id": [str(each) for each in ids]},
        "occurred": {"since": since.isoformat(), "until": until.isoformat()},
    }
    asked = {"filter": wanted, "limit": _PAGE}
    answer = client.request("POST", "/events/filter", json=asked).json()
    return {UUID(event["id"]) for event in answer["events"]}
