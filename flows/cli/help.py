"""Help texts that fit the terminal, however narrow it is."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import Any

from typer import Context
from typer.core import TyperGroup

_LEAST_COLUMNS, _MOST_COLUMNS = 30, 80
_NO_LIMIT = 1_000


class _Formatter(Context.formatter_class):  # type: ignore[misc, valid-type]
    """As wide as the terminal; the explanations get at least two thirds of the width."""

    def __init__(self, **settings: Any) -> None:
        columns = max(get_terminal_size().columns, _LEAST_COLUMNS)
        super().__init__(**settings | {"width": min(columns, _MOST_COLUMNS) - 2})

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names and their explanations."""
        super().write_dl(rows, min(col_max, self.width // 3), col_spacing)


class _HelpContext(Context):
    formatter_class = _Formatter


class HelpGroup(TyperGroup):
    """Commands below a command, each with the whole first sentence of its help."""

    context_class = _HelpContext

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(
                (name, command.get_short_help_str(_NO_LIMIT))
                for name, command in self.commands.items()
            )


def helped(command: Any) -> Any:
    """The command, and those below it, with help that fits the terminal."""
    command.context_class = _HelpContext
    for each in getattr(command, "commands", {}).values():
        helped(each)
    return command
