"""The commands of ``audioset``; `flows.cli.program` runs them.

A command's module is imported when the command is asked for: no question waits for another's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer

from audioset_core.weights.proxies import settle_proxies
from flows.cli.command import made
from flows.cli.help import HelpGroup
from flows.cli.program import main

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "label": ("label:label", "Label recordings, once."),
    "serve": ("serve:serve", "Watch folders, label what arrives, on a schedule."),
    "demo": ("demo:demo", "Label a small set of sounds, and say what was found."),
    "convert": ("models:convert", "Convert published weights to safetensors."),
    "models": ("models:app", "Models that can label, and which one speaks first."),
    "diff": ("models:diff", "Two models on the clips that both labelled."),
    "ontology": ("ontology:app", "The AudioSet ontology."),
    "query": ("ask.query:query", "Clips or intervals with any sound under a node."),
    "hours": ("ask.hours:hours", "Hours in which a class or branch is heard."),
    "rank": ("ask.rank:rank", "The best windows of all recordings."),
    "similar": ("ask.rank:similar", "Recordings most like one."),
    "show": ("ask.show:show", "What is known of a clip."),
    "sql": ("sql:sql", "The database in its own shell, read-only."),
    "browse": ("sql:browse", "The database in a web browser, read-only."),
    "failures": ("ask.show:failures", "Files that could not be labelled, and why."),
    "export": ("ask.export:app", "Write labels in other tools' formats."),
    "times": ("times:times", "When recordings began, and how names tell it."),
    "plot": ("ask.plot:plot", "A picture of a clip."),
    "curve": ("ask.plot:curve", "Sorted scores of a subtree over all clips."),
    "report": ("ask.report:report", "The whole collection on one page."),
    "review": ("judge.review:review", "A page to judge clips by ear."),
    "verdicts": ("judge.verdicts:app", "What people judged: import, list, show, history."),
    "estimate": ("judge.review:estimate", "How many clips and hours truly hold a sound."),
    "verify": ("verify:verify", "Check that tables and files agree."),
    "evaluate": ("judge.evaluate:evaluate", "Compare stored scores with a truth file."),
    "thresholds": ("judge.thresholds:app", "Sets of thresholds by class, and what they find."),
}
"""Where each command is, and what it is for, for the list of all."""


class _Commands(Mapping[str, Any]):
    """The commands by name; to list the names imports none of them."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name][0].partition(":")
        return made(name, getattr(import_module(f"flows.cli.commands.{module}"), attribute))

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Program(HelpGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": _Commands()})

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The names with the table's help, so that ``--help`` imports no command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


app = typer.Typer(
    name="audioset",
    cls=_Program,
    help="Label large collections of recordings with AudioSet classes, and ask what is in them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _before_any_command() -> None:
    settle_proxies(os.environ)
