"""How a function becomes a command of `audioset`, and how groups of options are declared.

A parameter whose type is a dataclass stands for several options, one for each field: options that
many commands share are declared once, in `flows.cli.shared_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, get_type_hints

import typer
from typer.main import get_command, get_group

from flows.cli.help import HelpGroup, helped

Function = Callable[..., None]


def command_of(name: str, found: Function | typer.Typer) -> Any:
    """The command of that name, alone or with commands below it."""
    if isinstance(found, typer.Typer):
        return helped(get_group(found))
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(with_options(found))
    return helped(get_command(alone))


def command_group(about: str, commands: Mapping[str, Function], **settings: Any) -> typer.Typer:
    """A command with commands below it, by name."""
    group = typer.Typer(
        cls=HelpGroup, help=about, rich_markup_mode=None, **{"no_args_is_help": True} | settings
    )
    for name, function in commands.items():
        group.command(name)(with_options(function))
    return group


def with_options(function: Function) -> Function:
    """The function with an option for each field of those parameters that are dataclasses."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for each in signature(function).parameters.values():
        kind: Any = hints[each.name]
        own = [each]
        if is_dataclass(hints[each.name]):
            own = list(signature(kind).parameters.values())
            groups[each.name] = kind, [one.name for one in own]
            hints |= get_type_hints(kind, include_extras=True)
        parameters += [
            one.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[one.name]) for one in own
        ]

    @wraps(function)
    def command(**given: Any) -> None:
        made = {
            name: kind(**{field: given.pop(field) for field in fields})
            for name, (kind, fields) in groups.items()
        }
        function(**made, **given)

    command.__signature__ = signature(function).replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
