"""``audioset alerts``: rules that tell of sounds as soon as they are labelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, cast, get_args

import typer
from sqlalchemy import Engine

from audioset_core.errors import UserError
from audioset_core.inputs.sites import find_site
from audioset_core.models.registry import find_bundle
from db.alerts.asked import Sound, try_rule
from db.alerts.raised import Alert, counts_by_state, raised_alerts
from db.alerts.rules import (
    AlertRule,
    Period,
    change_rules,
    stored_rules,
)
from db.engine import reading
from db.query.find import prepared
from db.query.paths import as_glob
from db.query.question import Question, file_conditions
from db.read_only import may_write
from db.reports.model_coverage import models_known
from db.schema.alert_tables import STATES
from flows.asking import asked_place, mids_of, open_database, shown_interval, sun_of
from flows.cli.alert_words import (
    SHOWN_STATES,
    asks_for,
    clean_name,
    find_rule,
    seconds,
    tells,
)
from flows.cli.command import command_group
from flows.cli.shared_options import Files, Output, Store, mids
from flows.cli.wall_clock import daily_span
from flows.options import make_home
from flows.run.alerts import ask_new, askable
from flows.terminal import note, one_line, shown_path

_BLOCK = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")
Name = Annotated[str, typer.Argument(help="The name of the rule.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sounds a rule asks for."""

    under: Annotated[
        list[str] | None,
        typer.Option(help="A class or category: name, MID or path. Repeat it for any of several."),
    ] = None
    min_score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Lowest score. [default: 0.5]")
    ] = None
    min_duration: Annotated[
        float | None, typer.Option(min=0.0, help="The sound lasts at least so many seconds.")
    ] = None
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="START END", help="At these times of day on the recorder's clock: 22:00 05:00."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Telling:
    """Which of the sounds are told, and to whom."""

    first_in: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(get_args(Period)),
            help="Only the first at a site in each day, night, week or month.",
        ),
    ] = None
    at_most_one_per: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="At a site only one in this time: 10min, 1h, 2d."),
    ] = None
    recorded_within: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only what was recorded so lately: 24h, 7d; any. [default: 7d]",
        ),
    ] = None
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE/NAME",
            help="The block of Prefect that sends it: slack-webhook/rangers, webhook/siren.",
        ),
    ] = None


def add(*, name: Name, wanted: Wanted, telling: Telling, files: Files, store: Store) -> None:
    """Add a rule. It is asked about what is labelled from now on, each recording once.

    A sound that fits is an event of Prefect's; docs/alerts.md has an example up to the webhook.
    """
    name = clean_name(name)
    if not wanted.under:
        raise UserError("say what to listen for: --under CLASS")
    own = _told_how(telling)
    if not store.is_there:  # a mistake makes no home
        mids_of(store.ontology(), wanted.under)
        for site in files.site or ():
            find_site((), site)
        asked_place(files.near, files.km)
        _ = wanted.between and daily_span(wanted.between)
        _ = files.model and find_bundle(files.model.partition("@")[0])
    make_home(store.home)
    with open_database(store.home, store.db, create=True) as engine:
        asked = _asked(engine, Question(min_score=0.5), wanted, files)
        rule = AlertRule(name=name, question=asked, **own)

        def added(rules: Sequence[AlertRule]) -> Sequence[AlertRule]:
            if any(each.name.casefold() == name.casefold() for each in rules):
                raise UserError(f"there is an alert {name!r} already: audioset alerts change")
            return [*rules, rule]

        _check(engine, rule)
        change_rules(engine, added, datetime.now(UTC))
        print(f"{name}: {asks_for(engine, rule)}; {tells(rule)}")
    if rule.notify is None:
        note("sent to nobody but Prefect's events: --notify names a block that sends it on")


def list_(
    *,
    raised: Annotated[
        bool, typer.Option("--raised", help="What was heard, the last first, not the rules.")
    ] = False,
    rule: Annotated[str | None, typer.Option(help="With --raised: only of this rule.")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(STATES), help="With --raised: only in these states."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --raised: at most so many.")] = 100,
    store: Store,
    output: Output,
) -> None:
    """List the rules and how many sounds each has found, or with --raised the sounds."""
    if (rule or state) and not raised:
        raise UserError("--rule and --state are for --raised")
    for each in state or ():
        if each not in STATES:
            raise UserError(f"there is no state {each!r}: {', '.join(STATES)}")
    with store.database() as engine:
        if not raised:
            _list_rules(engine, output)
            return
        if may_write(engine):
            for name, wrong in ask_new(engine).problems.items():
                note(f"{name}: {wrong}")
        of_rule = None if rule is None else find_rule(stored_rules(engine), rule).name
        _list_raised(raised_alerts(engine, of_rule, state or (), limit), output)


def change(
    *,
    name: Name,
    rename: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    wanted: Wanted,
    telling: Telling,
    files: Files,
    store: Store,
) -> None:
    """Change a rule: what is given is set anew, '' drops it. What was told is not told again."""
    own = _told_how(telling)
    with store.database() as engine:
        before = find_rule(stored_rules(engine), name)
        asked = _asked(engine, before.question, wanted, files)
        lacks_site = before.lacks_site and files.site is None
        rule = replace(before, **own, question=asked, lacks_site=lacks_site)
        if rename:
            rule = replace(rule, name=clean_name(rename))
        if rule == before:
            raise UserError("say what to change: audioset alerts change --help")
        if lacks_site:
            raise UserError(f"a site of {before.name!r} was removed: choose with --site")

        def changed(rules: Sequence[AlertRule]) -> Sequence[AlertRule]:
            others = [each for each in rules if each.id != rule.id]
            if any(each.name.casefold() == rule.name.casefold() for each in others):
                raise UserError(f"there is an alert {rule.name!r} already")
            return [*others, rule]

        _check(engine, rule)
        change_rules(engine, changed, datetime.now(UTC))
        print(f"{rule.name}: {asks_for(engine, rule)}; {tells(rule)}")


def remove(*, name: Name, store: Store) -> None:
    """Remove a rule, with the list of what it has found. The recordings and labels stay."""
    with store.database() as engine:
        gone = find_rule(stored_rules(engine), name)
        n_raised = sum(n for (its, _), n in counts_by_state(engine).items() if its == gone.id)
        change_rules(
            engine, lambda rules: [each for each in rules if each.id != gone.id], datetime.now(UTC)
        )
        print(f"{gone.name}: removed, with {n_raised:,} sounds that it had found")


def try_(
    *,
    name: Name,
    last: Annotated[
        int, typer.Option(min=1, max=100_000, help="So many recordings, those labelled last.")
    ] = 1_000,
    send: Annotated[
        bool,
        typer.Option("--send", help="Instead, send a trial to Prefect, and by the rule's block."),
    ] = False,
    store: Store,
    output: Output,
) -> None:
    """Show what a rule would find in what is labelled already, and what it would tell of it."""
    with store.database() as engine:
        rule = find_rule(stored_rules(engine), name)
        if send:  # also before anything is labelled
            _send_trial(rule, store)
            return
        rule = askable(engine, rule)
        if left_out := sun_of(engine, rule.question):
            note(left_out)
        found = try_rule(engine, rule, last, datetime.now(UTC))
    columns = ("score", "name", "heard_at", "is_timed", "start_s", "end_s", "state", "path")
    rows = [
        (s.score, of, s.heard_at, s.is_timed, s.start_ms / 1_000, s.end_ms / 1_000, state, s.path)
        for s, of, state in reversed(found)
    ]
    headings = (">score", "class", "heard", "when", "state", "file")
    cells = (
        (f"{s.score:.2f}", of, _heard(s), shown_interval(s.start_ms / 1_000, s.end_ms / 1_000),
         SHOWN_STATES[state], one_line(shown_path(s.path)))
        for s, of, state in reversed(found)
    )  # fmt: skip
    output.show(columns, rows, headings, cells)
    if not (output.is_data or rows):
        note(f"nothing in the last {last:,} recordings: {asks_for(engine, rule)}")


def _send_trial(rule: AlertRule, store: Store) -> None:
    from flows.prefect_server.settings import server_that_lasts

    with server_that_lasts(store.home):
        from flows.run_report.sound_events import ensure_automations, send_events, trial_event

        if wrong := ensure_automations([rule]).get(rule.name):
            raise UserError(f"{rule.name}: {wrong}")
        send_events([trial_event(rule.name)])
    print(f"{rule.name}: a trial was sent" + (f" by {rule.notify}" if rule.notify else ""))


def _list_rules(engine: Engine, output: Output) -> None:
    rules, counts = stored_rules(engine), counts_by_state(engine)
    rows = []
    for rule in rules:
        found = {state: n for (its, state), n in counts.items() if its == rule.id}
        n_told = found.get("told", 0) + found.get("summed", 0)
        rows.append(
            (rule.name, asks_for(engine, rule), tells(rule), rule.notify, n_told,
             sum(found.values()))
        )  # fmt: skip
    output.show(
        ("name", "asks_for", "tells", "notify", "n_told", "n_found"),
        rows,
        ("alert", "asks for", "tells", "by", ">told", ">found"),
        (
            (name, one_line(what), how, by or "", f"{n_told:,}", f"{n_found:,}")
            for name, what, how, by, n_told, n_found in rows
        ),
    )
    if not rules:
        note("no alerts yet: audioset alerts add NAME --under CLASS")


def _list_raised(found: Sequence[Alert], output: Output) -> None:
    columns = (
        "rule", "state", "score", "mid", "name", "heard_at", "is_timed", "start_s", "end_s", "clip",
        "path", "site", "raised_at", "told_at",
    )  # fmt: skip

    def value(alert: Alert, column: str) -> Any:
        if column in ("start_s", "end_s"):
            return getattr(alert, column.replace("_s", "_ms")) / 1_000
        return getattr(alert, column)

    output.show(
        columns,
        ([value(alert, column) for column in columns] for alert in found),
        ("alert", ">score", "class", "heard", "when", "site", "state", "file"),
        (
            (a.rule, f"{a.score:.2f}", a.name, _heard(a),
             shown_interval(a.start_ms / 1_000, a.end_ms / 1_000), one_line(a.site or ""),
             SHOWN_STATES[a.state], one_line(shown_path(a.path)))
            for a in found
        ),
    )  # fmt: skip


def _heard(of: Alert | Sound) -> str:
    return f"{of.heard_at:%Y-%m-%d %H:%M:%S}" if of.is_timed else "unknown"


def _asked(engine: Engine, question: Question, wanted: Wanted, files: Files) -> Question:
    """The question with what the options state; what they leave out stays."""
    stated: dict[str, Any] = {
        name: x
        for name, x in (
            ("min_score", wanted.min_score), ("min_duration_s", wanted.min_duration),
        )
        if x is not None
    }  # fmt: skip
    if wanted.under:
        stated["under"] = mids(engine, wanted.under)
    if wanted.between is not None:
        stated["span"] = daily_span(wanted.between)
    given = replace(
        files,
        site=_without_blanks(files.site),
        # Runs are started in other folders than this one.
        source=[as_glob(path) for path in _without_blanks(files.source)],
        sun=_without_blanks(files.sun),
        model=files.model or None,
    )
    options = {"sites": "site", "near": "near", "paths": "source", "sun": "sun", "model": "model"}
    of_files = given.of_question(engine)
    for name, option in options.items():
        if getattr(files, option) is not None:
            stated[name] = of_files[name]
    return replace(question, **stated)


def _without_blanks(given: Sequence[str] | None) -> list[str]:
    return [each for each in given or () if each]


def _told_how(telling: Telling) -> dict[str, Any]:
    """Fields of the rule, of those options that are given.

    Raises:
        UserError: an option is wrong.
    """
    own: dict[str, Any] = {}
    periods = get_args(Period)
    if telling.first_in is not None:
        if telling.first_in not in ("", *periods):
            raise UserError(f"--first-in {telling.first_in!r}: choose {', '.join(periods)}")
        own["first_in"] = cast(Period, telling.first_in) or None
    if telling.at_most_one_per is not None:
        own["one_per_s"] = seconds("--at-most-one-per", telling.at_most_one_per)
    if telling.recorded_within is not None:
        own["recorded_within_s"] = seconds("--recorded-within", telling.recorded_within)
    if telling.notify is not None:
        if telling.notify and not _BLOCK.fullmatch(telling.notify):
            raise UserError(
                f"--notify {telling.notify!r}: write the block's type and name, such as "
                "slack-webhook/rangers or custom-webhook/siren"
            )
        own["notify"] = telling.notify or None
    return own


def _check(engine: Engine, rule: AlertRule) -> None:
    """Refuse what cannot be asked; say what cannot be heard yet.

    Raises:
        UserError, DatabaseUserError: the question is wrong.
    """
    file_conditions(rule.question)
    if left_out := sun_of(engine, rule.question):
        note(left_out)
    if not models_known(engine):
        return
    try:
        question = askable(engine, rule).question
    except UserError as error:
        note(f"{rule.name} waits: {error}")
        return
    with reading(engine) as conn:
        prepared(conn, question, by_interval=True)


app = command_group(
    "Rules that tell of sounds as soon as they are labelled.",
    {"add": add, "list": list_, "change": change, "remove": remove, "test": try_},
)
