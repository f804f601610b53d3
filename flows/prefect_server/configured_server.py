"""Prefect's settings and the server that they name; what is wrong is reported in one line."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from contextlib import redirect_stderr
from typing import TYPE_CHECKING

from audioset_core.errors import UserError
from flows.terminal import note

if TYPE_CHECKING:
    import httpx

_ANSWERS_WITHIN_S = 5.0
_URL, _AUTH, _KEY = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"


def import_settings() -> None:
    """Import Prefect, which reads its settings from the environment, a profile and files.

    Raises:
        UserError: it does not accept one of them.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):  # Prefect complains at length before it gives up
            import prefect.context  # noqa: F401 (which reads them)
    except ValueError as error:  # also what TOML and pydantic raise
        at = os.environ.get("PREFECT_PROFILES_PATH", "~/.prefect/profiles.toml")
        raise UserError(
            f"Prefect does not accept its settings: {_first_problem(error)}; look at PREFECT_* in "
            f"the environment and at {at}"
        ) from error
    sys.stderr.write(said.getvalue())
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING as PASSWORD

    if not str(PASSWORD.value()).isascii():
        raise UserError(
            f"{source_of(PASSWORD.name)}: Prefect's server cannot compare a password that has "
            f"characters beyond ASCII, and answers 500 to every request; choose another"
        )


def check_server(url: str, named_by: str) -> None:
    """Make sure that Prefect's API answers at the address, and accepts our requests.

    Args:
        url: Its address, as Prefect's settings have it now.
        named_by: Where the address comes from, for the message.

    Raises:
        UserError: nothing answers, or another program or Prefect does, or a password is needed.
    """
    import httpx
    import prefect
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    problem = f"Prefect's server at {url} ({named_by})"
    try:
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": _ANSWERS_WITHIN_S}) as client,
        ):
            answer = client.request("GET", "/health")
            if not _is_true(answer):
                raise UserError(f"{problem} is not Prefect's API: its address ends with /api")
            # This one wants the password, /health does not.
            version = str(client.request("GET", "/admin/version").json())
    except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
        raise UserError(f"{problem} {_refusal(error.response)}") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
        why = re.sub(r"\[Errno -?\d+\] ", "", " ".join(str(error).split()))
        why = why or type(error).__name__
        raise UserError(
            f"{problem} does not answer: {why}; start it, or unset {_URL} to have one started here"
        ) from error
    theirs, ours = _numbers(version), _numbers(prefect.__version__)
    what = f"{problem} is Prefect {version}, here is {prefect.__version__}"
    if theirs[:1] != ours[:1]:
        raise UserError(f"{what}: they cannot work together; unset {_URL} to have one started here")
    if theirs < ours:
        note(f"{what}: runs may fail; a server should not be older")


def source_of(name: str) -> str:
    """Where a setting of Prefect's comes from, by name: the environment, a profile, a file."""
    from prefect.context import get_settings_context
    from prefect.settings import PREFECT_PROFILES_PATH

    if name in os.environ:
        return name
    profile = get_settings_context().profile
    if name in profile.to_environment_variables():
        return f"{name} of the profile {profile.name!r} in {PREFECT_PROFILES_PATH.value()}"
    return f"{name} of .env, prefect.toml or pyproject.toml in the current folder"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _first_problem(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    given = [f"{name}={value}" for name, value in os.environ.items()
             if name.startswith("PREFECT_") and value == first["input"]]  # fmt: skip
    return f"{given[0] if given else first['loc'][-1]}: {first['msg']}"


def _is_true(answer: httpx.Response) -> bool:
    try:
        return bool(answer.json() is True)
    except json.JSONDecodeError:
        return False


def _refusal(answer: httpx.Response) -> str:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    # A server that is given a password beyond ASCII fails to compare it.
    is_refused = answer.status_code in (401, 403) or (
        answer.status_code == 500 and not str(PREFECT_API_AUTH_STRING.value()).isascii()
    )
    if not is_refused:
        return (
            f"answers {answer.status_code} {answer.reason_phrase}; the address of Prefect's API "
            f"ends with /api"
        )
    given = [_AUTH] * bool(PREFECT_API_AUTH_STRING.value())
    given += [_KEY] * bool(PREFECT_API_KEY.value())
    if given:
        return f"refuses the {'password' if given[0] == _AUTH else 'key'} of {source_of(given[0])}"
    return (
        f"needs a password: set {_AUTH} to user:password, as the server has it in "
        f"PREFECT_SERVER_API_AUTH_STRING"
    )
