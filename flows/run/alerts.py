"""Alerts of a run: its recordings are asked for by the rules, and what fits is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from audioset_core.errors import UserError
from db.alerts.asked import Asked, ask_rules, is_any_unasked
from db.alerts.raised import (
    best_waiting,
    give_up_old,
    mark_summed,
    mark_told,
    rules_waiting,
    to_tell,
)
from db.alerts.rules import AlertRule, stored_rules
from db.errors import DatabaseUserError
from flows.asking import answerable

LOOK_EVERY_S = 60.0
"""Seconds between two looks of a run that labels on and on."""


def ask_new(engine: Engine) -> Asked:
    """Ask the rules about everything that they were not asked about."""
    if not is_any_unasked(engine):
        return Asked()
    from tasks.labelling.start_times import time_recordings
    from tasks.labelling.sun import extend_sun

    rules = stored_rules(engine)
    time_recordings(engine)  # rules know of sites and times
    if any(rule.question.sun for rule in rules):
        extend_sun(engine)
    asked, problems = [], {}
    for rule in rules:
        try:
            rule = askable(engine, rule)
        except (UserError, DatabaseUserError) as error:
            problems[rule.name] = str(error)
        asked.append(rule)
    return ask_rules(engine, asked, datetime.now(UTC), problems)


def askable(engine: Engine, rule: AlertRule) -> AlertRule:
    """The rule as it is asked: of the model that alone can answer, if there is one.

    Raises:
        UserError: no model here predicts its class, or a site of the rule is gone.
    """
    if rule.lacks_site:
        raise UserError("its site was removed: audioset alerts change --site, or remove")
    return replace(rule, question=answerable(engine, rule.question)[0])


def tell_waiting(engine: Engine, since: datetime, most: int, *, is_end: bool) -> dict[str, str]:
    """Send an event for what waits, `most` of each rule since then; the rest is counted at the end.

    Returns what kept rules from being sent on, by their names.

    Raises:
        httpx.HTTPError: the server cannot be reached; what was not sent waits on.
    """
    from flows.run_report.sound_events import (
        ensure_automations,
        heard_event,
        more_event,
        send_events,
    )

    ids = rules_waiting(engine)
    if not ids:
        return {}
    rules = [rule for rule in stored_rules(engine) if rule.id in ids]
    give_up_old(engine, rules, datetime.now(UTC))
    problems = ensure_automations(rules)
    some = to_tell(engine, since, most)
    if some:
        send_events([heard_event(alert) for alert in some])
        mark_told(engine, some, datetime.now(UTC))
    for best, n_waiting, last_id in best_waiting(engine) if is_end else ():
        send_events([more_event(best, n_waiting)])
        mark_summed(engine, best.rule_id, last_id, datetime.now(UTC))
    return problems
