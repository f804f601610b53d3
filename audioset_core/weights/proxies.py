"""The proxies of the environment, in a form that every client reads; none for this machine.

``settle_proxies`` is called once, before anything opens a connection; child processes inherit the
result. Without it httpx uses a proxy for 127.0.0.1 unless ``NO_PROXY`` forbids that, and raises for
entries that other programs accept: ``[::1]``, ``fe80::/10``, ``socks://host:port``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, MutableMapping
from urllib.parse import urlsplit

SCHEMES = ("http", "https", "socks5", "socks5h")
# Prefect names 0.0.0.0 as the address of a server for all interfaces.
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 (nothing is bound)
_KINDS = ("http_proxy", "https_proxy", "all_proxy")


def settle_proxies(environment: MutableMapping[str, str]) -> None:
    """Exempt this machine from the proxies, and write them in the form that httpx reads.

    ``socks://`` becomes ``socks5://``, which desktops mean. Entries of ``NO_PROXY`` that httpx
    cannot read are left out: they would match nothing. Without a proxy nothing changes.

    >>> environment = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "[::1],.lan,fe80::/10"}
    >>> settle_proxies(environment)
    >>> environment["no_proxy"]
    '::1,.lan,localhost,127.0.0.1,0.0.0.0'
    """
    proxies = dict(_proxies(environment))
    for name, address in proxies.items():
        environment[name] = re.sub(r"(?i)^socks://", "socks5://", address)
    if proxies:
        exempt = _exempt(environment)
        # Python's own reading prefers the lower case, other programs' the upper.
        environment["no_proxy"] = environment["NO_PROXY"] = exempt


def proxy_problem(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the first unusable proxy; None if all are usable."""
    for name, address in _proxies(environment):
        try:
            parts = urlsplit(_with_scheme(address))
            usable = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            return (
                f"{name}={_without_password(address)}: not a proxy that can be used; write "
                f"http://host:port or socks5://host:port, or unset it"
            )
    return None


def proxy_asked(scheme: str, environment: Mapping[str, str]) -> str | None:
    """The variable that names the proxy for addresses of this scheme, with its value to show."""
    found = {name.lower(): f"{name}={_without_password(at)}" for name, at in _proxies(environment)}
    return found.get(f"{scheme}_proxy") or found.get("all_proxy")


def _proxies(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that name a proxy, without blanks around the address.

    As Python reads them: in upper or lower case; lower case wins, also if it is empty.
    """
    for name in sorted(environment):
        lower, address = name.lower(), environment[name].strip()
        if lower in _KINDS and address and (name == lower or lower not in environment):
            yield name, address


def _exempt(environment: Mapping[str, str]) -> str:
    given = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    entries = [entry.strip() for entry in given.split(",")]
    if "*" in entries:
        return "*"  # alone, or urllib and websockets do not understand it
    entries = [re.sub(r"^\[(.*)\]$", r"\1", entry) for entry in entries]
    readable = [entry for entry in entries if entry and _is_readable(entry)]
    return ",".join(dict.fromkeys((*readable, *LOOPBACK)))


def _is_readable(entry: str) -> bool:
    """Whether httpx can read it: a name or an address, with or without a port."""
    if "://" in entry:
        return True
    name, _, port = entry.partition(":")
    if port.isdecimal() or not port:
        return name.isascii()
    try:
        ipaddress.IPv6Address(entry)
    except ValueError:
        return False
    return True


def _with_scheme(address: str) -> str:
    return address if "://" in address else f"http://{address}"


def _without_password(address: str) -> str:
    return re.sub(r"^([^/]*//)?[^/]*@", r"\1***@", address)
