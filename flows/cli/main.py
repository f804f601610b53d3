"""The commands of ``audioset``; `flows.cli.program` runs them.

A command's module is imported only when that command runs, so that each starts fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer

from audioset_core.weights.proxies import settle_proxies
from flows.cli.command import command_of
from flows.cli.help import HelpGroup
from flows.cli.program import main

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "label": ("label:label", "Label recordings, once."),
    "serve": ("serve:serve", "Watch folders, and label new recordings on a schedule."),
    "demo": ("demo:demo", "Label a small set of sounds, and print what was found."),
    "convert": ("models:convert", "Convert published weights to safetensors."),
    "models": ("models:app", "Models that can label, and the state of their weights."),
    "diff": ("models:diff", "Compare two models on the clips that both labelled."),
    "combine": ("combine:combine", "Make one model of several, from their stored scores."),
    "classes": ("classes:app", "Classes of your own, below those of AudioSet."),
    "teach": ("judge.teach:teach", "Teach classes from examples, on stored embeddings."),
    "ontology": ("ontology:app", "The AudioSet ontology."),
    "app": ("app:app", "Search, listen, judge and teach in the web browser."),
    "query": ("ask.query:query", "Find clips or intervals with any sound below a node."),
    "hours": ("ask.hours:hours", "Hours in which each class or branch is heard."),
    "rank": ("ask.rank:rank", "The windows with the best scores in all recordings."),
    "similar": ("ask.rank:similar", "Find the recordings that are most like a given one."),
    "index": ("index:app", "Make similar answer at once in large collections."),
    "show": ("ask.show:show", "Show everything that is known about a clip."),
    "sql": ("sql:sql", "Open the database in its own shell, read-only."),
    "failures": ("ask.show:failures", "Files that could not be labelled, and why."),
    "export": ("ask.export:app", "Write labels in other tools' formats."),
    "clips": ("clips:app", "Write the sounds themselves as files."),
    "redact": ("redact:redact", "Copy recordings without the speech in them."),
    "times": ("times:times", "When recordings began, and how file names give the time."),
    "sites": ("sites:app", "Where recordings were made, and which belong there."),
    "health": ("health:health", "Recordings and recorders with something wrong."),
    "alerts": ("alerts:app", "Rules that tell of sounds as soon as they are labelled."),
    "plot": ("ask.plot:plot", "Draw a picture of a clip."),
    "curve": ("ask.plot:curve", "Sorted scores of a class or branch over all clips."),
    "report": ("ask.report:report", "Write a page about the whole collection."),
    "review": ("judge.review:review", "Write a page on which to judge clips by ear."),
    "verdicts": ("judge.verdicts:app", "Import and list what people judged."),
    "estimate": ("judge.review:estimate", "Estimate how many clips and hours truly have a sound."),
    "verify": ("verify:verify", "Check that tables and files agree."),
    "evaluate": ("judge.evaluate:evaluate", "Compare stored scores with a truth file."),
    "thresholds": ("judge.thresholds:app", "Sets of thresholds by class, and their detections."),
}
"""Where each command is defined, and its line in the list of commands."""


_FORMER = {"browse": "app"}
"""Commands that there were, and what took their place."""


class _Commands(Mapping[str, Any]):
    """The commands by name; listing the names imports none of them."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name][0].partition(":")
        return command_of(name, getattr(import_module(f"flows.cli.commands.{module}"), attribute))

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

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named; a former one is a mistake that names the present one."""
        if args[0] in _FORMER:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {_FORMER[args[0]]!r}?")
        return super().resolve_command(ctx, args)

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
