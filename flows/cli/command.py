"""How a function becomes a command of `audioset`, and how groups of options are declared.

A parameter whose type is a dataclass stands for several options, one for each field: options that
many commands share are declared once, in `flows.cli.shared_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any

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
    own = signature(function, eval_str=True)
    parameters: list[Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for each in own.parameters.values():
        options = [each]
        if is_dataclass(each.annotation):
            kind: Any = each.annotation
            options = list(signature(kind, eval_str=True).parameters.values())
            groups[each.name] = kind, [option.name for option in options]
        parameters += [option.replace(kind=Parameter.KEYWORD_ONLY) for option in options]

    @wraps(function)
    def command(**given: Any) -> None:
        made = {
            name: kind(**{field: given.pop(field) for field in fields})
            for name, (kind, fields) in groups.items()
        }
        function(**made, **given)

    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in parameters}
    return command
