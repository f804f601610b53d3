"""Where credentials come from: the environment, the files in ``~/.aws``, or the machine's role.

The library knows the variables of each cloud; it does not know Amazon's files.
"""

from __future__ import annotations

import configparser
import os
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from audioset_core.errors import AudioError, Reason

_RENEW = timedelta(minutes=5)
# Variables that lead to credentials, and the file that does so for Google.
_CREDENTIALS = {
    "s3": r"AWS_(ACCESS_KEY|SECRET|SKIP_SIGNATURE|WEB_IDENTITY|CONTAINER_|PROFILE)",
    "gs": r"GOOGLE_(SERVICE_ACCOUNT|APPLICATION_CREDENTIALS|SKIP_SIGNATURE)",
    "az": r"AZURE_(?!STORAGE_ACCOUNT_NAME|STORAGE_ENDPOINT)",
}
_GOOGLE_FILE = Path(".config/gcloud/application_default_credentials.json")
_OF_MACHINE = ("169.254.169.254", 80)


def has_credentials(scheme: str) -> bool:
    """Whether there may be credentials; the library would look for a cloud's for minutes."""
    wanted = _CREDENTIALS.get(scheme)
    if wanted is None or any(re.match(wanted, name) for name in os.environ):
        return True
    if (scheme == "s3" and _file_keys(None)) or (
        scheme == "gs" and (Path.home() / _GOOGLE_FILE).exists()
    ):
        return True
    try:
        socket.create_connection(_OF_MACHINE, timeout=1).close()
    except OSError:
        return False
    return True


def of_profile() -> dict[str, Any]:
    """Settings from the files in ``~/.aws``, where the environment has no keys.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
    """
    given = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    profile = os.environ.get("AWS_PROFILE")
    if any(os.environ.get(name) for name in given):
        return {}
    settings: dict[str, Any] = {}
    region = _aws_file("AWS_CONFIG_FILE", "config", profile).get("region")
    if region and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        settings["region"] = region
    if _file_keys(profile):
        settings["credential_provider"] = lambda: _file_keys(profile)
    elif profile:
        raise AudioError(
            Reason.UNREADABLE,
            f"profile {profile!r} has no access key in ~/.aws; aws configure export-credentials "
            f"--profile {profile} --format env gives what belongs into the environment",
        )
    return settings


def _file_keys(profile: str | None) -> dict[str, Any] | None:
    """The keys of a profile, to be read again after five minutes: they may be renewed."""
    for variable, name in (
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        ("AWS_CONFIG_FILE", "config"),
    ):
        found = _aws_file(variable, name, profile)
        if "aws_access_key_id" in found and "aws_secret_access_key" in found:
            return {
                "access_key_id": found["aws_access_key_id"],
                "secret_access_key": found["aws_secret_access_key"],
                "token": found.get("aws_session_token"),
                "expires_at": datetime.now(UTC) + _RENEW,
            }
    return None


def _aws_file(variable: str, name: str, profile: str | None) -> dict[str, str]:
    path = Path(os.environ.get(variable) or Path.home() / ".aws" / name)
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text())
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    profile = profile or "default"
    section = next((s for s in (profile, f"profile {profile}") if parser.has_section(s)), None)
    return dict(parser.items(section)) if section else {}
