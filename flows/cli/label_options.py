"""Options of the command line from the fields of `LabelOptions`: their names, types and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import ValidationError

from audioset_core.errors import UserError
from tasks.labelling.options import LabelOptions


def with_label_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field, or for those named, in place of ``options``.

    ``patch_hop_s`` becomes ``--patch-hop``, a boolean field a flag.
    """
    chosen = names or tuple(LabelOptions.model_fields)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**values: Any) -> None:
            options = _label_options({name: values.pop(name) for name in chosen})
            command(options=options, **values)

        signature = inspect.signature(command, eval_str=True)
        parameters = []
        for parameter in signature.parameters.values():
            is_ours = parameter.name == "options"
            parameters += [_parameter(name) for name in chosen] if is_ours else [parameter]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    field = LabelOptions.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if not isinstance(kind, str)]
    is_union_of_many = len([kind for kind in kinds if kind is not NoneType]) > 1
    kind = str if is_union_of_many else field.annotation  # pydantic makes of the text what it means
    default = field.default
    if any(get_origin(each) is tuple for each in kinds):  # an option that may be repeated
        kind, default = list[str], [default]
    option = typer.Option(_flag(name), help=field.description)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )


def _label_options(values: dict[str, Any]) -> LabelOptions:
    try:
        return LabelOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        flag = _flag(str(first["loc"][0]))
        given = " ".join(first["input"]) if isinstance(first["input"], list) else first["input"]
        raise UserError(f"{flag} {given!r}: {problem}") from None


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_s').replace('_', '-')}"
